"""group_norm with its SiLU against torch's two kernels, at the sizes of the paper's encoder and generator."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import work
from bench.case import BATCHES, Case, Inputs, Judge, Setting, judge_by, timed
from bench.peers import COMPILED, compiled
from cbtalk.ops.examples import EPS, GROUPS, named

PAPER = [(64, 256), (128, 128), (256, 32)]  # C, H = W
SWEEP = [*((B, 128, 128) for B in BATCHES), (3, 96, 61)]  # B, C, H = W


def cases(setting: Setting) -> list[Case]:
    """The forward pass, then forward and backward."""
    sizes = SWEEP if setting.sweep else [(setting.batch, *size) for size in PAPER]
    return [_case(setting, *size, direction) for size in sizes for direction in ("fwd", "bwd")]


def _case(setting: Setting, B: int, C: int, H: int, direction: str) -> Case:
    return Case(
        "group_norm", f"+ SiLU ({B}, {C}, {H}, {H})", direction,
        partial(_inputs, setting, B, C, H),
        timed(named("group_norm").op, direction),
        {
            "group_norm, silu": timed(_torchs, direction),
            "group_norm, x * sigmoid(x)": timed(_released, direction),
            COMPILED: compiled(_torchs, direction),
        },
        partial(_judge, direction),
        # forward: x read, the result written; backward: the gradient and x read, one written
        work.images(2 if direction == "fwd" else 5, B * C * H * H, setting.dtype),
        ("group_norm, silu",) if (C, H, direction) == (*PAPER[0], "fwd") else (),
    )  # fmt: skip


def _inputs(setting: Setting, B: int, C: int, H: int, generator: torch.Generator) -> Inputs:
    return named("group_norm").make(generator, setting.dtype, batch=B, channels=C, height=H, width=H)


def _normed(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.group_norm(x, GROUPS, weight.to(x.dtype), bias.to(x.dtype), EPS)


def _torchs(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(_normed(x, weight, bias))


def _released(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    normed = _normed(x, weight, bias)
    return normed * torch.sigmoid(normed)


def _judge(direction: str, inputs: Inputs) -> Judge:
    exact = timed(_torchs, direction)(*(x.double() for x in inputs))()
    # A channel's sum over all pixels, in the order of 65536 additions of either sign.
    return judge_by(exact, inputs[0].dtype, scales=(1, 1, 3, 3))
