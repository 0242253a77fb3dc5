"""Group normalisation of channels_last pictures, with the SiLU that follows it in the same pass."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cbtalk import _native
from cbtalk.ops.backends import choose
from cbtalk.reference import group_norm as reference

# mean and rstd are (B, groups) in float32.
torch.library.define(
    "cbtalk::group_norm",
    "(Tensor x, Tensor weight, Tensor bias, int groups, float eps, bool silu) -> (Tensor y, Tensor mean, Tensor rstd)",
)
torch.library.define(
    "cbtalk::group_norm_backward",
    "(Tensor grad_y, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, int groups, bool silu)"
    " -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
)


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float, silu: bool = False, backend: str = "auto"
) -> Tensor:
    """Group normalisation (Wu and He, 2018), then SiLU where asked for.

    C++ for channels_last float32 and bfloat16 on the CPU (statistics and arithmetic in float32, sums in a fixed order
    whatever the number of threads); torch for the rest.

    Args:
        x: (B, C, H, W).
        weight: (C,), in the dtype of x or float32.
        bias: (C,), likewise.
        groups: number of groups; it divides C.
        eps: added to the variance.
        silu: y * sigmoid(y) of the normalised y.
        backend: "auto", "cpp" or "reference".

    Returns:
        (B, C, H, W), in the dtype of x.

    Raises:
        ValueError: shapes that do not fit together.
        BackendError: the backend asked for by name cannot run here.
    """
    if x.dim() != 4 or groups < 1 or x.shape[1] % groups:
        raise ValueError(f"x {tuple(x.shape)} is not (B, C, H, W) with C a multiple of {groups} groups")
    if weight.shape != x.shape[1:2] or bias.shape != x.shape[1:2]:
        raise ValueError(f"weight {tuple(weight.shape)} and bias {tuple(bias.shape)} must have {x.shape[1]} elements")
    if choose(backend, [("cpp", why_not_cpp(x, weight, bias)), ("reference", None)]) == "reference":
        return reference.group_norm(x, weight, bias, groups=groups, eps=eps, silu=silu)
    return _GroupNorm.apply(x, weight, bias, groups, eps, silu)


def why_not_cpp(x: Tensor, weight: Tensor, bias: Tensor) -> str | None:
    """Why the C++ kernels cannot take these tensors, or None."""
    if reason := _native.why_not_cpp():
        return reason
    if any(tensor.device.type != "cpu" for tensor in (x, weight, bias)):
        return "it takes CPU tensors only"
    if x.dtype not in (torch.float32, torch.bfloat16):
        return "it takes float32 and bfloat16 only"
    if not x.is_contiguous(memory_format=torch.channels_last):
        return "it takes channels_last pictures only"
    return None


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool) -> Tensor:
        weight32, bias32 = weight.float().contiguous(), bias.float().contiguous()
        y, mean, rstd = torch.ops.cbtalk.group_norm.default(x, weight32, bias32, groups, eps, silu)
        ctx.save_for_backward(x, weight32, bias32, mean, rstd)
        ctx.groups, ctx.silu, ctx.dtype = groups, silu, weight.dtype
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        grad_y = grad_y.contiguous(memory_format=torch.channels_last)  # the one place where a gradient is relaid
        grad_x, grad_weight, grad_bias = torch.ops.cbtalk.group_norm_backward.default(
            grad_y, x, weight, bias, mean, rstd, ctx.groups, ctx.silu
        )
        return grad_x, grad_weight.to(ctx.dtype), grad_bias.to(ctx.dtype), None, None, None


@torch.library.register_fake("cbtalk::group_norm")
def _fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = x.new_empty((x.shape[0], groups), dtype=torch.float32)
    return torch.empty_like(x), statistics, torch.empty_like(statistics)


@torch.library.register_fake("cbtalk::group_norm_backward")
def _fake_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)
