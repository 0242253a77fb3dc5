"""The model in each precision: the time of a frame beside float32's, its limit, and what the images differ by.

python -m bench.precision [--models mini paper] [--precisions bf16 fp16] [--rounds 7] [--threads 2] [--device cuda]
    [--portraits FOLDER --clips FOLDER]

Times: a batch of 4 with the keypoints of its driving images, on an untrained model and noise; medians over rounds in
turns. The limit is the frame's products in half precision at the best rate that a 3 x 3 convolution of torch reached,
beside everything else that it takes (on a CPU, by torch's profiler). Images: the demo's, the astronaut of
scikit-image by the bundled motion, or each portrait by three frames of a clip, by the weights of `mini`, in levels of
255; of a pixel, the channel that differs most. No weights of `paper` are bundled.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from statistics import median

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch.profiler import ProfilerActivity, profile

from bench import machine
from bench.case import Thunk
from bench.gpu_timing import event_clock
from bench.model import make_scene
from bench.stages import stage_operations
from bench.timing import Clock, in_rounds, wall_clock
from cbtalk.allocator import keep_freed_memory
from cbtalk.media.clips import find_clips
from cbtalk.media.crop import CropBox, crop_resize
from cbtalk.media.images import Image8, read_image
from cbtalk.model.blocks import Conv3x3
from cbtalk.model.checkpoint import BUNDLED, load
from cbtalk.model.keypoints import Keypoints
from cbtalk.model.talker import Talker
from cbtalk.precision import PRECISIONS, dtype_of
from cbtalk.render.driving import crop_view, read_driving, square
from cbtalk.render.engine import Engine
from cbtalk.render.motion_file import load_motion

BATCH = 4
SIZE = 256  # of `mini`
SHAPES = ((128, 128), (256, 32), (32, 128))  # channels and side of convolutions
PORTRAIT = CropBox(112, 10, 240)  # `make demo`
PRODUCTS = (
    "cbtalk::conv3x3",
    "aten::mkldnn_convolution",
    "aten::_convolution",
    "aten::_slow_conv2d_forward",
    "aten::addmm",
    "aten::mm",
    "aten::bmm",
)
STEP = 5  # every so many frames of the demo are compared


@torch.inference_mode()
def main() -> None:
    """Prints a line for each convolution, each model and each precision."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=["mini", "paper"], default=["mini", "paper"])
    parser.add_argument("--precisions", nargs="+", choices=["bf16", "fp16"], default=["bf16"])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--portraits", type=Path)
    parser.add_argument("--clips", type=Path)
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
        _differences(name, arguments)


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
        taken, thunk = median(seconds[name]), scenes[name].animate(BATCH)
        operations = sum(stage_operations(scenes[name].animate(1)).values()) * BATCH
        limit = f"{operations / BATCH / 1e9:.0f} GFLOP at the best rate {_part(operations / best[name], float32)}"
        if device == "cpu":
            limit += f", everything but products {_part(taken * (1 - _share_of_products(thunk)), float32)}"
        print(f"{model}, {name}: {taken / BATCH * 1e3:.1f} ms a frame, {ratio:.2f} of float32's; {limit}")


def _part(seconds: float, float32: float) -> str:
    return f"{seconds / BATCH * 1e3:.1f} ms, {seconds / float32:.2f}"


def _share_of_products(thunk: Thunk) -> float:
    """The share of a call on the CPU that convolutions and products of matrices take, but for our attention's."""
    with profile(activities=[ProfilerActivity.CPU]) as profiled:
        thunk()
    times = {event.key: event.self_cpu_time_total for event in profiled.key_averages()}
    return sum(times.get(name, 0.0) for name in PRODUCTS) / sum(times.values())


def _differences(name: str, arguments: argparse.Namespace) -> None:
    talkers = [load("mini", device=arguments.device, dtype=dtype) for dtype in (torch.float32, PRECISIONS[name])]
    differences = []
    for portrait, motion in _demo() if arguments.clips is None else _pairs(arguments.portraits, arguments.clips):
        of_float32, other = (_images(talker, portrait, motion) for talker in talkers)
        differences.append(np.abs(of_float32 - other))
    difference = np.concatenate(differences)
    largest = np.quantile(difference.max(axis=-1), 0.999)
    worst = max(np.quantile(frame.max(axis=-1), 0.999) for frame in difference)
    print(
        f"mini, {name}: {len(difference)} images differ by {difference.mean():.3f} in the mean, {largest:.0f} in "
        f"99.9 % of pixels, {worst:.0f} in those of the worst"
    )


def _demo() -> Iterator[tuple[Image8, Keypoints | Image8]]:
    demo = load_motion(BUNDLED / "demo_motion.safetensors", fingerprint=None, num_keypoints=None)
    yield crop_resize(skimage.data.astronaut(), PORTRAIT, SIZE), demo[slice(None, None, STEP)]


def _pairs(portraits: Path, clips: Path) -> Iterator[tuple[Image8, Keypoints | Image8]]:
    """Each portrait, and the first, middle and last frame of a clip."""
    for portrait, clip in zip(sorted(portraits.glob("*.png")), find_clips(clips), strict=False):
        frames = [frame.image for frame in read_driving(clip.path, crop_view("centre", SIZE))]
        yield square(read_image(portrait), "centre", SIZE), np.stack(frames[:: (len(frames) - 1) // 2])


def _images(talker: Talker, portrait: Image8, motion: Keypoints | Image8) -> NDArray[np.int16]:
    engine = Engine(talker, portrait)
    keypoints = motion if isinstance(motion, Keypoints) else engine.detect(motion)
    return engine.render(keypoints).images.astype(np.int16)


if __name__ == "__main__":
    main()
