"""The model in each precision: the time of a frame beside float32's, its limit, and what the pictures differ by.

python -m bench.precision [--models mini paper] [--precisions bf16 fp16] [--rounds 7] [--threads 2] [--device cuda]

Times: a batch of 4 with the keypoints of its driving pictures, on an untrained model and noise; medians over rounds in
turns. The limit is the frame's products in half precision at the best rate that a 3 x 3 convolution of torch reached,
without any other work. Pictures: the demo's, the astronaut of scikit-image by the bundled motion, by the weights of
`mini`, in levels of 255; of a pixel, the channel that differs most. No weights of `paper` are bundled.
"""

import argparse
from statistics import median

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F

from bench import machine
from bench.case import Thunk
from bench.gpu_timing import event_clock
from bench.model import make_scene
from bench.stages import stage_operations
from bench.timing import Clock, in_rounds, wall_clock
from cbtalk.allocator import keep_freed_memory
from cbtalk.media.crop import CropBox, crop_resize
from cbtalk.model.blocks import Conv3x3
from cbtalk.model.checkpoint import BUNDLED, load
from cbtalk.precision import PRECISIONS, dtype_of
from cbtalk.render.engine import Engine
from cbtalk.render.motion_file import load_motion

BATCH = 4
SHAPES = ((128, 128), (256, 32), (32, 128))  # channels and side of convolutions
PORTRAIT = CropBox(112, 10, 240)  # `make demo`
STEP = 5  # every so many frames of the demo are compared


@torch.inference_mode()
def main() -> None:
    """Prints a line for each convolution, each model and each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["mini", "paper"], default=["mini", "paper"])
    parser.add_argument("--precisions", nargs="+", choices=["bf16", "fp16"], default=["bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    keep_freed_memory()  # as the command line does
    clock = event_clock if arguments.device == "cuda" else wall_clock
    for name, fact in machine.header(arguments.device).items():
        print(f"{name}: {fact}")
    print(f"AMX: {torch.cpu._is_amx_tile_supported()}; auto takes {dtype_of('auto', arguments.device)}")
    names = ["fp32", *arguments.precisions]
    best = dict.fromkeys(names, 0.0)
    for channels, side in SHAPES:
        for name, rate in _rates(channels, side, names, arguments.device, clock, arguments.rounds).items():
            best[name] = max(best.get(name, 0.0), rate)
    for model in arguments.models:
        _frames(model, names, best, arguments.device, clock, arguments.rounds)
    for name in arguments.precisions:
        _differences(name, arguments.device)


def _rates(channels: int, side: int, names: list[str], device: str, clock: Clock, rounds: int) -> dict[str, float]:
    """Operations a second of a convolution, counted as the plain algorithm has them: torch's, and ours in float32."""
    convolution = Conv3x3(channels, channels).to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    weight, bias = convolution.weight, convolution.get_parameter("bias")
    x = torch.rand(BATCH, channels, side, side, device=device).contiguous(memory_format=torch.channels_last)

    def plain(dtype: torch.dtype) -> Thunk:
        half, its_weight, its_bias = (tensor.to(dtype) for tensor in (x, weight, bias))
        return lambda: F.conv2d(half, its_weight, its_bias, padding=1)

    thunks: dict[str, Thunk] = {"ours, fp32": lambda: convolution(x)}
    thunks |= {name: plain(PRECISIONS[name]) for name in names}
    seconds = in_rounds(thunks, seconds=0, min_rounds=rounds, clock=clock)
    operations = 2 * 9 * channels**2 * side**2 * BATCH
    rates = {name: operations / median(values) for name, values in seconds.items()}
    shown = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in rates.items())
    print(f"conv3x3 {BATCH} x {channels} x {side} x {side}, GFLOP/s: {shown}")
    return rates


def _frames(model: str, names: list[str], best: dict[str, float], device: str, clock: Clock, rounds: int) -> None:
    scenes = {name: make_scene(model, device, PRECISIONS[name]) for name in names}
    seconds = in_rounds(
        {name: scene.animate(BATCH) for name, scene in scenes.items()}, seconds=0, min_rounds=rounds, clock=clock
    )
    float32 = median(seconds["fp32"])
    print(f"{model}, fp32: {float32 / BATCH * 1e3:.1f} ms a frame")
    for name in names[1:]:
        ratio = median(one / other for one, other in zip(seconds[name], seconds["fp32"], strict=True))
        products = sum(stage_operations(scenes[name].animate(1)).values()) / best[name] * BATCH
        print(
            f"{model}, {name}: {median(seconds[name]) / BATCH * 1e3:.1f} ms a frame, {ratio:.2f} of float32's; "
            f"its products alone {products / BATCH * 1e3:.1f} ms, {products / float32:.2f}"
        )


def _differences(name: str, device: str) -> None:
    demo = load_motion(BUNDLED / "demo_motion.safetensors", fingerprint=None, num_keypoints=None)
    motion, portrait = demo[slice(None, None, STEP)], crop_resize(skimage.data.astronaut(), PORTRAIT, 256)
    pictures = []
    for dtype in (torch.float32, PRECISIONS[name]):
        rendered = Engine(load("mini", device=device, dtype=dtype), portrait).render(motion)
        pictures.append(rendered.images.astype(np.int16))
    difference = np.abs(pictures[0] - pictures[1])
    largest = np.quantile(difference.max(axis=-1), 0.999)
    print(f"mini, {name}: pictures differ by {difference.mean():.3f} in the mean, {largest:.0f} in 99.9 % of pixels")


if __name__ == "__main__":
    main()
