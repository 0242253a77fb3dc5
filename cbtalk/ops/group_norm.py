"""Group normalisation of channels_last pictures, with the SiLU that follows it in the same pass."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cbtalk import _native, _triton, ranges
from cbtalk.ops.backends import choose, in_order
from cbtalk.reference import group_norm as reference

# The C++ of the CPU and of the GPU register under the first name, Triton's kernels under the second.
# mean and rstd are (B, groups) in float32.
for _suffix in ("", "_triton"):
    torch.library.define(
        f"cbtalk::group_norm{_suffix}",
        "(Tensor x, Tensor weight, Tensor bias, int groups, float eps, bool silu)"
        " -> (Tensor y, Tensor mean, Tensor rstd)",
    )
    torch.library.define(
        f"cbtalk::group_norm_backward{_suffix}",
        "(Tensor grad_y, Tensor x, Tensor weight, Tensor bias, Tensor mean, Tensor rstd, int groups, bool silu)"
        " -> (Tensor grad_x, Tensor grad_weight, Tensor grad_bias)",
    )

_COMPILED = (torch.ops.cbtalk.group_norm.default, torch.ops.cbtalk.group_norm_backward.default)
_TRITON = (torch.ops.cbtalk.group_norm_triton.default, torch.ops.cbtalk.group_norm_backward_triton.default)
_OPS = {"cpp": _COMPILED, "cuda": _COMPILED, "triton": _TRITON}  # forward, backward
_ON_GPU = (torch.float32, torch.float16, torch.bfloat16)


@ranges.ranged("group_norm")
def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, *, groups: int, eps: float, silu: bool = False, backend: str = "auto"
) -> Tensor:
    """Group normalisation (Wu and He, 2018), then SiLU where asked for.

    C++ for channels_last float32 and bfloat16 on the CPU; CUDA C++ or Triton for channels_last float32, float16 and
    bfloat16 on a GPU; torch for the rest. The compiled ones compute statistics and everything else in float32, with
    sums in a fixed order: the same input gives the same bits, whatever the number of threads and the batch beside it.

    Args:
        x: (B, C, H, W).
        weight: (C,), in the dtype of x or float32.
        bias: (C,), likewise.
        groups: number of groups; it divides C.
        eps: added to the variance.
        silu: y * sigmoid(y) of the normalised y.
        backend: "auto", "cpp", "cuda", "triton" or "reference".

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
    tensors = (x, weight, bias)
    candidates = in_order(x, cpp=why_not_cpp(*tensors), cuda=why_not_cuda(*tensors), triton=why_not_triton(*tensors))
    chosen = choose(backend, candidates)
    if chosen == "reference":
        return reference.group_norm(x, weight, bias, groups=groups, eps=eps, silu=silu)
    return _GroupNorm.apply(x, weight, bias, groups, eps, silu, chosen)


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


def why_not_cuda(x: Tensor, weight: Tensor, bias: Tensor) -> str | None:
    """Why the CUDA C++ kernels cannot take these tensors, or None."""
    return _native.why_not_cuda(x, weight, bias) or _why_not_on_gpu(x)


def why_not_triton(x: Tensor, weight: Tensor, bias: Tensor) -> str | None:
    """Why the Triton kernels cannot take these tensors, or None."""
    return _triton.why_not_triton(x, weight, bias) or _why_not_on_gpu(x)


def _why_not_on_gpu(x: Tensor) -> str | None:
    if x.dtype not in _ON_GPU:
        return "it takes float32, float16 and bfloat16 only"
    if not x.is_contiguous(memory_format=torch.channels_last):
        return "it takes channels_last pictures only"
    return None


class _GroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool, backend: str
    ) -> Tensor:
        weight32, bias32 = weight.float().contiguous(), bias.float().contiguous()
        y, mean, rstd = _OPS[backend][0](x, weight32, bias32, groups, eps, silu)
        ctx.save_for_backward(x, weight32, bias32, mean, rstd)
        ctx.groups, ctx.silu, ctx.dtype, ctx.backend = groups, silu, weight.dtype, backend
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, rstd = ctx.saved_tensors
        grad_y = grad_y.contiguous(memory_format=torch.channels_last)  # the one place where a gradient is relaid
        grad_x, grad_weight, grad_bias = _OPS[ctx.backend][1](grad_y, x, weight, bias, mean, rstd, ctx.groups, ctx.silu)
        return grad_x, grad_weight.to(ctx.dtype), grad_bias.to(ctx.dtype), None, None, None, None


@torch.library.register_fake("cbtalk::group_norm")
@torch.library.register_fake("cbtalk::group_norm_triton")
def _fake_forward(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    statistics = x.new_empty((x.shape[0], groups), dtype=torch.float32)
    return torch.empty_like(x), statistics, torch.empty_like(statistics)


@torch.library.register_fake("cbtalk::group_norm_backward")
@torch.library.register_fake("cbtalk::group_norm_backward_triton")
def _fake_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), torch.empty_like(bias)


# Triton is imported by the first call: it need not be installed.
@torch.library.impl("cbtalk::group_norm_triton", ("cpu", "cuda"))
def _triton_forward(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from cbtalk.kernels.group_norm import group_norm_forward

    return group_norm_forward(x, weight, bias, groups, eps, silu)


@torch.library.impl("cbtalk::group_norm_backward_triton", ("cpu", "cuda"))
def _triton_backward(
    grad_y: Tensor, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, rstd: Tensor, groups: int, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    from cbtalk.kernels.group_norm import group_norm_backward

    return group_norm_backward(grad_y, x, weight, bias, mean, rstd, groups, silu)
