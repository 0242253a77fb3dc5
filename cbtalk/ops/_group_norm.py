"""Group normalisation with an optional fused SiLU."""

import math
from typing import Any

import torch
from torch import Tensor

from cbtalk import _native, _triton, ranges
from cbtalk.ops.backends import choose
from cbtalk.ops.kernel_op import KernelOp
from cbtalk.ops.layout import is_channels_last
from cbtalk.reference import group_norm as reference
from cbtalk.reference.layout import in_layout_of

_ON_GPU = (torch.float32, torch.float16, torch.bfloat16)


@ranges.ranged("group_norm")
def group_norm(
    x: Tensor,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    *,
    groups: int,
    eps: float,
    silu: bool = False,
    backend: str = "auto",
) -> Tensor:
    """Group normalisation (Wu and He, 2018) with an optional fused SiLU.

    C++ for channels_last float32 and bfloat16 on the CPU; Triton for channels_last float32, float16 and bfloat16 on a
    GPU; torch for the rest. The compiled ones compute statistics and everything else in float32, with
    sums in a fixed order: the same input gives the same bits, whatever the number of threads and the batch beside it.
    They have first derivatives; second derivatives and forward mode are torch's, with backend="reference".

    Args:
        x: (B, C) or (B, C, ...), any rank from 2 on. channels_last: dense with the channels innermost.
        weight: (C,), in the dtype of x or float32; None for ones.
        bias: (C,), likewise; None for zeros.
        groups: number of groups; it divides C.
        eps: added to the variance.
        silu: y * sigmoid(y) of the normalised y.
        backend: "auto", "cpp", "triton" or "reference".

    Returns:
        The shape and dtype of x.

    Raises:
        ValueError: shapes that do not fit together.
        BackendError: the backend asked for by name cannot run here.
    """
    _check(x, weight, bias, groups)
    chosen = choose(backend, WHY_NOT, x, weight, bias)
    if chosen == "reference":
        return reference.group_norm(x, weight, bias, groups=groups, eps=eps, silu=silu)
    weight = x.new_ones(x.shape[1], dtype=torch.float32) if weight is None else weight.float().contiguous()
    bias = x.new_zeros(x.shape[1], dtype=torch.float32) if bias is None else bias.float().contiguous()
    if x.dim() == 4:
        return _OP(chosen, x, weight, bias, groups, eps, silu)[0]
    rows = x.movedim(1, -1)  # (B, ..., C), contiguous
    image = rows.view(x.shape[0], math.prod(x.shape[2:]), 1, x.shape[1]).permute(0, 3, 1, 2)
    y, _, _ = _OP(chosen, image, weight, bias, groups, eps, silu)
    return y.permute(0, 2, 3, 1).view(rows.shape).movedim(-1, 1)


def _check(x: Tensor, weight: Tensor | None, bias: Tensor | None, groups: int) -> None:
    if x.dim() < 2 or groups < 1 or x.shape[1] % groups:
        raise ValueError(f"x {tuple(x.shape)} is not (B, C, ...) with C a multiple of {groups} groups")
    for name, parameter in (("weight", weight), ("bias", bias)):
        if parameter is not None and parameter.shape != x.shape[1:2]:
            raise ValueError(f"{name} {tuple(parameter.shape)} must have {x.shape[1]} elements")


def why_not_cpp(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> str | None:
    """The reason why the C++ kernels cannot take these tensors, or None."""
    if reason := _native.why_not_cpp(x, weight, bias):
        return reason
    if x.dtype not in (torch.float32, torch.bfloat16):
        return "it takes float32 and bfloat16 only"
    return _why_not_layout(x)


def why_not_triton(x: Tensor, weight: Tensor | None, bias: Tensor | None) -> str | None:
    """The reason why the Triton kernels cannot take these tensors, or None."""
    given = [tensor for tensor in (x, weight, bias) if tensor is not None]
    if reason := _triton.why_not_triton(*given):
        return reason
    if x.dtype not in _ON_GPU:
        return "it takes float32, float16 and bfloat16 only"
    return _why_not_layout(x)


def _why_not_layout(x: Tensor) -> str | None:
    if not is_channels_last(x):
        return "it takes channels_last tensors only"
    return None


def _fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = x.new_empty((x.shape[0], groups), dtype=torch.float32)
    return torch.empty_like(x), statistics, torch.empty_like(statistics)


def _fake_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    x, weight, bias, groups, _, silu = inputs
    _, mean, rstd = output
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, weight, bias, mean, rstd)
    ctx.groups, ctx.silu = groups, silu


def _backward(ctx: Any, grad_y: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    x, weight, bias, mean, rstd = ctx.saved_tensors
    gradients = _BACKWARD_OP(ctx.backend, in_layout_of(x, grad_y), x, weight, bias, mean, rstd, ctx.groups, ctx.silu)
    return *gradients, None, None, None


WHY_NOT = {"cpp": why_not_cpp, "triton": why_not_triton}
# weight and bias are (C,) in float32, as are mean and rstd, (B, groups).
_OP = KernelOp(
    "group_norm",
    "(Tensor x, Tensor weight, Tensor bias, int groups, float eps, bool silu) -> (Tensor y, Tensor mean, Tensor rstd)",
    _fake_forward,
    module="group_norm",
    save=_save,
    backward=_backward,
)
_BACKWARD_OP = KernelOp(
    "group_norm_backward",
    "(Tensor grad_y, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, int groups, bool silu)"
    " -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    _fake_backward,
    module="group_norm",
)
