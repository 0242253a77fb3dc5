"""conv3x3 at inference against torch's convolution, at the sizes of the paper's generator."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import work
from bench.case import BATCHES, Case, Inputs, Judge, Prepare, Setting, Thunk, judge_by
from cbtalk.ops import conv3x3, transform_weight

# batch, input and output channels, height and width ahead of the enlargement, whether there is one
PAPER = [
    *((1, *sizes, False) for sizes in ((64, 64, 256), (128, 128, 128), (256, 128, 64), (256, 512, 32))),
    *((1, *sizes, True) for sizes in ((128, 128, 128), (256, 256, 32))),
]
SWEEP = [*((B, 128, 128, 64, enlarged) for B in BATCHES for enlarged in (False, True)), (3, 67, 61, 37, False)]


def cases(setting: Setting) -> list[Case]:
    """Plain, and behind a nearest-neighbour enlargement by two. The weight is transformed once, as the model does."""
    return [_case(setting, *sizes) for sizes in (SWEEP if setting.sweep else PAPER)]


def _case(setting: Setting, B: int, C: int, out: int, size: int, upsample: bool) -> Case:
    return Case(
        "conv3x3", f"({B}, {C}, {size}, {size}) -> {out}" + (", enlarged" if upsample else ""), "fwd",
        partial(_inputs, setting, B, C, out, size),
        partial(_ours, upsample),
        _peers(upsample),
        partial(_judge, upsample),
        work.conv3x3(B, C, out, size, upsample=upsample, dtype=setting.dtype, device=setting.device),
    )  # fmt: skip


def _inputs(setting: Setting, B: int, C: int, out: int, size: int, generator: torch.Generator) -> Inputs:
    x = torch.randn(B, C, size, size, generator=generator).to(memory_format=torch.channels_last)
    weight = torch.randn(out, C, 3, 3, generator=generator) / (3 * C**0.5)
    tensors = x, weight.to(memory_format=torch.channels_last), torch.randn(out, generator=generator)
    return tuple(tensor.to(setting.device, setting.dtype) for tensor in tensors)


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
