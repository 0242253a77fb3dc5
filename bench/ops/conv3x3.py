"""conv3x3 at inference against torch's convolution, at the sizes of the paper's generator."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.case import Case, Inputs, Thunk
from cbtalk.ops import conv3x3, transform_weight

PLAIN = [(64, 64, 256), (128, 128, 128), (256, 128, 64), (256, 512, 32)]  # input and output channels, height and width
ENLARGED = [(128, 128, 128), (256, 256, 32)]  # of the picture ahead of the enlargement


def cases() -> list[Case]:
    """Plain, and behind a nearest-neighbour enlargement by two. The weight is transformed once, as the model does."""
    return [*(_case(*sizes, upsample=False) for sizes in PLAIN), *(_case(*sizes, upsample=True) for sizes in ENLARGED)]


def _case(channels: int, out_channels: int, size: int, upsample: bool) -> Case:
    name = f"conv3x3 (1, {channels}, {size}, {size}) -> {out_channels}" + (", enlarged" if upsample else "")
    return Case(
        name,
        partial(_inputs, channels, out_channels, size),
        partial(_ours, upsample),
        {"interpolate, conv2d" if upsample else "conv2d": partial(_torchs, upsample)},
        partial(_wrong, upsample),
    )


def _inputs(channels: int, out_channels: int, size: int, generator: torch.Generator) -> Inputs:
    x = torch.randn(1, channels, size, size, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(out_channels, channels, 3, 3, generator=generator) / (3 * channels**0.5)
    return x, weight.to(memory_format=torch.channels_last), torch.randn(out_channels, generator=generator)


def _ours(upsample: bool, x: Tensor, weight: Tensor, bias: Tensor) -> Thunk:
    kept: dict[int, Tensor] = {}

    def transformed(points: int) -> Tensor:
        if points not in kept:
            kept[points] = transform_weight(weight, points)
        return kept[points]

    return lambda: conv3x3(x, weight, bias, upsample=upsample, transformed=transformed)


def _torchs(upsample: bool, x: Tensor, weight: Tensor, bias: Tensor) -> Thunk:
    if not upsample:
        return lambda: F.conv2d(x, weight, bias, padding=1)
    return lambda: F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


def _wrong(upsample: bool, inputs: Inputs, result: object) -> str | None:
    exact = _torchs(upsample, *(tensor.double() for tensor in inputs))()
    assert isinstance(result, Tensor) and isinstance(exact, Tensor)
    error = ((result - exact).norm() / exact.norm()).item()
    return None if error < 1e-6 else f"relative error {error:.1e}"
