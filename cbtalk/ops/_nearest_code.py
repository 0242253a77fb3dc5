"""Nearest codes and vector quantisation, without a distance matrix and without one-hot codes."""

from typing import Any

import torch
from torch import Tensor

from cbtalk import _native, _triton, ranges
from cbtalk.ops.backends import choose
from cbtalk.ops.kernel_op import KernelOp
from cbtalk.reference import nearest_code as reference
from cbtalk.reference.nearest_code import NearestCode as NearestCode
from cbtalk.reference.nearest_code import Quantized as Quantized

# The kernels number codes with 32 bits and fill up the last group of 32.
_MAX_CODES = 2**31 - 33
# The last tile may be larger.
_MAX_GPU_CODES = 2**31 - 1024
_GPU_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@ranges.ranged("nearest_code")
def nearest_code(z: Tensor, codebook: Tensor, *, backend: str = "auto") -> NearestCode:
    """The code nearest to each row, by squared Euclidean distance.

    Codes are compared by |e|^2 - 2 z.e in float32 or wider, under autocast too: the same order as the distances
    without the rounding of |z|^2, which is large beside the differences between codes. On a GPU a row for which float32
    cannot tell the nearest code for certain is searched again in float64. Of equally near codes the smallest index
    wins. A code with a NaN never wins; a row of NaN takes index 0 at distance NaN. The distance is that
    of the winner, computed as sum (z - e)^2, and carries gradients to both arguments. The C++ kernels allocate one
    packed copy of the codebook; an answer for a row depends on neither the other rows nor the number of threads.

    Args:
        z: (N, D) floating, N >= 0, any strides.
        codebook: (K, D) floating, K >= 1, any strides.
        backend: "auto", "cpp" (float32 on the CPU), "cuda" or "triton" (float32, float16 and bfloat16 on a GPU, each
            argument in its own) or "reference".

    Returns:
        indices (N,) int64 and distances (N,), float32 or wider.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
        BackendError: the backend asked for cannot run; the message is the reason.
    """
    _check(z, codebook)
    chosen = choose(backend, WHY_NOT, z, codebook)
    if chosen == "reference":
        return reference.nearest_code(z, codebook)
    return NearestCode(*_SEARCH(chosen, z, codebook))


@ranges.ranged("vector_quantize")
def vector_quantize(z: Tensor, codebook: Tensor, beta: float = 0.25, *, backend: str = "auto") -> Quantized:
    """Each row replaced by its nearest code, with the loss that draws rows and codes together.

    The vector quantisation of van den Oord et al., "Neural Discrete Representation Learning" (2017): the gradient of
    the codes goes straight through to z, and

        loss = beta * mean (sg(code) - z)^2 + mean (code - sg(z))^2

    trains z towards its code and the code towards its rows; sg stops the gradient. The codebook's gradient is summed
    in a fixed order, on the CPU that of the rows: equal calls give equal bits. Nearest is what `nearest_code` says.

    Args:
        z: (N, D) floating, N >= 0, any strides.
        codebook: (K, D) floating, K >= 1, any strides.
        beta: weight of the first term, the commitment.
        backend: "auto", "cpp" (float32 on the CPU), "cuda" or "triton" (float32, float16 and bfloat16 on a GPU, each
            argument in its own) or "reference".

    Returns:
        codes (N, D) in z's dtype, loss (), indices (N,) int64, and counts (K,) int64, how many rows chose each code.
        The loss of no rows is NaN, as any mean of nothing.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
        BackendError: the backend asked for cannot run; the message is the reason.
    """
    _check(z, codebook)
    chosen = choose(backend, WHY_NOT, z, codebook)
    if chosen == "reference":
        return reference.vector_quantize(z, codebook, beta)
    return Quantized(*_QUANTIZE(chosen, z, codebook, beta))


def why_not_cpp(z: Tensor, codebook: Tensor) -> str | None:
    """Why the C++ kernels cannot take these tensors, or None."""
    if reason := _native.why_not_cpp():
        return reason
    if any(x.device.type != "cpu" for x in (z, codebook)):
        return "it takes CPU tensors only"
    if any(x.dtype != torch.float32 for x in (z, codebook)):
        return "it takes float32 only"
    if codebook.shape[0] > _MAX_CODES:
        return f"it takes at most {_MAX_CODES} codes"
    return None


def why_not_cuda(z: Tensor, codebook: Tensor) -> str | None:
    """Why the CUDA C++ kernels cannot take these tensors, or None."""
    return _native.why_not_cuda(z, codebook) or _why_not_gpu(z, codebook)


def why_not_triton(z: Tensor, codebook: Tensor) -> str | None:
    """Why the Triton kernels cannot take these tensors, or None."""
    return _triton.why_not_triton(z, codebook) or _why_not_gpu(z, codebook)


def _why_not_gpu(z: Tensor, codebook: Tensor) -> str | None:
    if any(x.dtype not in _GPU_DTYPES for x in (z, codebook)):
        return "it takes float32, float16 and bfloat16 only"
    if z.shape[1] == 0:
        return "it takes rows of at least one element"
    if codebook.shape[0] > _MAX_GPU_CODES:
        return f"it takes at most {_MAX_GPU_CODES} codes"
    return None


def _check(z: Tensor, codebook: Tensor) -> None:
    if z.dim() != 2 or codebook.dim() != 2 or z.shape[1] != codebook.shape[1] or codebook.shape[0] < 1:
        raise ValueError(f"z {tuple(z.shape)} must be (N, D) and codebook {tuple(codebook.shape)} (K, D), K >= 1")
    if not (z.is_floating_point() and codebook.is_floating_point()):
        raise ValueError(f"z and codebook must be floating point, not {z.dtype} and {codebook.dtype}")


def _wide(z: Tensor, codebook: Tensor) -> torch.dtype:
    return torch.promote_types(torch.promote_types(z.dtype, codebook.dtype), torch.float32)


def _fake_nearest_code(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    return z.new_empty((z.shape[0],), dtype=torch.int64), z.new_empty((z.shape[0],), dtype=_wide(z, codebook))


def _fake_nearest_code_backward(
    grad_distances: Tensor, z: Tensor, codebook: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape), codebook.new_empty(codebook.shape)


def _fake_vector_quantize(z: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    indices = z.new_empty((z.shape[0],), dtype=torch.int64)
    counts = z.new_empty((codebook.shape[0],), dtype=torch.int64)
    return z.new_empty(z.shape), z.new_empty((), dtype=_wide(z, codebook)), indices, counts


def _fake_vector_quantize_backward(
    grad_codes: Tensor | None, grad_loss: Tensor, z: Tensor, codebook: Tensor, indices: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape), codebook.new_empty(codebook.shape)


def _save_search(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    ctx.mark_non_differentiable(output[0])
    ctx.save_for_backward(*inputs, output[0])


def _backward_search(ctx: Any, _: Tensor, grad_distances: Tensor) -> tuple[Tensor, Tensor]:
    gradients: tuple[Tensor, Tensor] = _SEARCH_BACKWARD(ctx.backend, grad_distances, *ctx.saved_tensors)
    return gradients


def _save_quantize(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor, Tensor]) -> None:
    z, codebook, ctx.beta = inputs
    ctx.mark_non_differentiable(output[2], output[3])
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(z, codebook, output[2])


def _backward_quantize(
    ctx: Any, grad_codes: Tensor | None, grad_loss: Tensor | None, *_: Tensor | None
) -> tuple[Tensor, Tensor, None]:
    z, codebook, indices = ctx.saved_tensors
    grad_codes = None if grad_codes is None else grad_codes.contiguous()
    grad_loss = z.new_zeros((), dtype=_wide(z, codebook)) if grad_loss is None else grad_loss
    return *_QUANTIZE_BACKWARD(ctx.backend, grad_codes, grad_loss, z, codebook, indices, ctx.beta), None


WHY_NOT = {"cpp": why_not_cpp, "cuda": why_not_cuda, "triton": why_not_triton}
_SEARCH = KernelOp(
    "nearest_code",
    "(Tensor z, Tensor codebook) -> (Tensor indices, Tensor distances)",
    _fake_nearest_code,
    module="nearest_code",
    save=_save_search,
    backward=_backward_search,
)
_SEARCH_BACKWARD = KernelOp(
    "nearest_code_backward",
    "(Tensor grad_distances, Tensor z, Tensor codebook, Tensor indices) -> (Tensor grad_z, Tensor grad_codebook)",
    _fake_nearest_code_backward,
    module="nearest_code",
)
_QUANTIZE = KernelOp(
    "vector_quantize",
    "(Tensor z, Tensor codebook, float beta) -> (Tensor codes, Tensor loss, Tensor indices, Tensor counts)",
    _fake_vector_quantize,
    module="nearest_code",
    save=_save_quantize,
    backward=_backward_quantize,
)
_QUANTIZE_BACKWARD = KernelOp(
    "vector_quantize_backward",
    "(Tensor? grad_codes, Tensor grad_loss, Tensor z, Tensor codebook, Tensor indices, float beta)"
    " -> (Tensor grad_z, Tensor grad_codebook)",
    _fake_vector_quantize_backward,
    module="nearest_code",
)
