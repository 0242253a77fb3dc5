"""The convolutions behind an upsampling of a frame: operations and memory traffic, upsampled first and by phases.

python -m bench.upsampling [--preset paper]

A table in Markdown, by arithmetic from the sizes of the layers that a frame goes through; nothing is timed. GFLOP are
multiplications and additions; MB are those of float32 images read and written by each kernel that a GPU launches:
upsampling, convolution and addition of the bias; or convolution of all phases and their interleaving with the bias.
The last row has all products and convolutions of a frame on a GPU, with phases where they are taken.
"""

import argparse
from collections.abc import Iterator
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from bench.model import Scene, make_scene
from bench.stages import stage_operations
from cbtalk.model.blocks import Conv3x3
from cbtalk.model.config import PRESETS
from cbtalk.model.upsampling import LEAST_PIXELS
from cbtalk.ops.backends import use_backend


class Layer(NamedTuple):
    """A convolution behind an upsampling, with the size of the image ahead of both."""

    channels: int
    outputs: int
    height: int
    width: int

    def by_phases(self) -> bool:
        """Whether a GPU takes phases for it."""
        return self.height * self.width >= LEAST_PIXELS

    def operations(self) -> tuple[float, float]:
        """Upsampled first, and by phases, whose windows are one more than the pixels in each direction."""
        products = 2.0 * self.channels * self.outputs
        return products * 36 * self.height * self.width, products * 16 * (self.height + 1) * (self.width + 1)

    def traffic(self) -> tuple[int, int]:
        """Bytes, upsampled first and by phases."""
        image, result = (4 * count * self.height * self.width for count in (self.channels, 4 * self.outputs))
        windows = 16 * self.outputs * (self.height + 1) * (self.width + 1)
        return image + 2 * 4 * image + 3 * result, image + 2 * windows + result


@torch.inference_mode()
def layers_of(scene: Scene) -> list[tuple[str, Layer]]:
    """The layers that a frame goes through, by name, in order."""
    found: list[tuple[str, Layer]] = []

    def note(name: str, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        found.append((name, Layer(x.shape[1], output.shape[1], x.shape[2], x.shape[3])))

    for name, module in scene.talker.named_modules():
        if isinstance(module, Conv3x3) and module.upsample:
            module.register_forward_hook(partial(note, name))
    scene.animate(1)()
    return found


@torch.inference_mode()
def table(preset: str) -> Iterator[str]:
    """The lines of the table."""
    yield "| layer | channels | size | GFLOP, upsampled | by phases | MB, upsampled | by phases |"
    yield "| --- | --- | --- | ---: | ---: | ---: | ---: |"
    scene = make_scene(preset, "cpu")
    sums = [0.0] * 4
    for name, layer in layers_of(scene):
        figures = [*layer.operations(), *layer.traffic()]
        taken = figures if layer.by_phases() else [figures[0], figures[0], figures[2], figures[2]]
        sums = [one + other for one, other in zip(sums, taken, strict=True)]
        mark = "" if layer.by_phases() else " (not taken)"
        size = f"{layer.height} x {layer.width}"
        yield _row(f"`{name}`{mark}", f"{layer.channels} to {layer.outputs}", size, figures)
    yield _row("all of them", "", "", sums)
    with use_backend("reference"):
        plain = sum(stage_operations(scene.animate(1)).values())
    yield f"| a frame | | | {plain / 1e9:.2f} | {(plain - sums[0] + sums[1]) / 1e9:.2f} | | |"


def _row(name: str, channels: str, size: str, figures: list[float]) -> str:
    operations, traffic = [f"{x / 1e9:.2f}" for x in figures[:2]], [f"{x / 1e6:.1f}" for x in figures[2:]]
    return f"| {' | '.join([name, channels, size, *operations, *traffic])} |"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", choices=PRESETS, default="paper", help="(paper)")
    print(*table(parser.parse_args().preset), sep="\n")


if __name__ == "__main__":
    main()
