"""conv3x3 at inference against torch's convolution, at the sizes of the paper's generator."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bench.case import BATCHES, Case, Inputs, Judge, Prepare, Setting, Thunk, judge_by
from bench.work import Work, product_rate
from cbtalk.ops import conv3x3, transform_weight
from cbtalk.ops.examples import named

# input and output channels, height and width ahead of the upsampling, whether there is one
PAPER = [
    *((*sizes, False) for sizes in ((64, 64, 256), (128, 128, 128), (256, 128, 64), (256, 512, 32))),
    *((*sizes, True) for sizes in ((128, 128, 128), (256, 256, 32))),
]
# the batch ahead of these
SWEEP = [*((B, 128, 128, 64, upsample) for B in BATCHES for upsample in (False, True)), (3, 67, 61, 37, False)]


def cases(setting: Setting) -> list[Case]:
    """Plain, and behind a nearest-neighbour upsampling by two. The weight is transformed once, as the model does."""
    return [
        _case(setting, *sizes) for sizes in (SWEEP if setting.sweep else [(setting.batch, *sizes) for sizes in PAPER])
    ]


def _case(setting: Setting, B: int, C: int, out: int, size: int, upsample: bool) -> Case:
    return Case(
        "conv3x3", f"({B}, {C}, {size}, {size}) -> {out}" + (", upsampled" if upsample else ""), "fwd",
        partial(_inputs, setting, B, C, out, size),
        partial(_ours, upsample),
        _peers(upsample),
        partial(_judge, upsample),
        floor(B, C, out, size, upsample=upsample, dtype=setting.dtype, device=setting.device),
        ("conv2d",) if (C, out, size, upsample) == PAPER[0] else (),
    )  # fmt: skip


def floor(B: int, C: int, out: int, size: int, *, upsample: bool, dtype: torch.dtype, device: str = "cpu") -> Work:
    """By minimal filtering as cbtalk does it, its transforms not counted: a floor of this algorithm, not of all.

    F(4 x 4, 3 x 3) takes 36 products for 16 outputs, instead of 144; from 32 x 32 on. Below, F(2 x 2, 3 x 3) takes 16
    for 4, instead of 36; behind an upsampling by two 9 of these are left.
    """
    rate, times = product_rate(dtype, device)
    products = 9 if upsample else 36 / 16 if size >= 32 else 16 / 4  # for each input pixel
    pixels = B * size * size
    elements = pixels * (C + out * (4 if upsample else 1)) + 9 * C * out
    return Work(elements * dtype.itemsize, 2.0 * products * C * out * pixels * times, rate)


@register_flop_formula(torch.ops.cbtalk.conv3x3)
def _operations(x: Any, weight: Any, packed: Any, bias: Any, *_: Any, **__: Any) -> float:
    """x (B, C, H, W), packed (points, panels, C, 16), bias (O,): shapes, as torch's counter gives them."""
    B, C, H, W = x
    outputs = {36: 16, 16: 4, 9: 1}[packed[0]]  # pixels of x that share a product of each point
    return 2 * (packed[0] / outputs) * B * H * W * C * bias[0]


def _inputs(setting: Setting, B: int, C: int, out: int, size: int, generator: torch.Generator) -> Inputs:
    make = named("conv3x3").make
    return make(generator, setting.dtype, batch=B, channels=C, outputs=out, height=size, width=size)


def _ours(upsample: bool, x: Tensor, weight: Tensor, bias: Tensor) -> Thunk:
    kept: dict[int, Tensor] = {}

    def transformed(points: int) -> Tensor:
        if points not in kept:
            kept[points] = transform_weight(weight, points)
        return kept[points]

    return lambda: conv3x3(x, weight, bias, upsample=upsample, transformed=transformed)


def _peers(upsample: bool) -> dict[str, Prepare | str]:
    name = "interpolate, conv2d" if upsample else "conv2d"
    return {name: partial(_torchs, upsample), f"{name}, NCHW": partial(_contiguous, upsample)}


def _torchs(upsample: bool, x: Tensor, weight: Tensor, bias: Tensor) -> Thunk:
    if not upsample:
        return lambda: F.conv2d(x, weight, bias, padding=1)
    return lambda: F.conv2d(F.interpolate(x, scale_factor=2.0, mode="nearest"), weight, bias, padding=1)


def _contiguous(upsample: bool, *inputs: Tensor) -> Thunk:
    """In the released model's layout."""
    return _torchs(upsample, *(tensor.contiguous() for tensor in inputs))


def _judge(upsample: bool, inputs: Inputs) -> Judge:
    return judge_by(_torchs(upsample, *(tensor.double() for tensor in inputs))(), inputs[0].dtype)
