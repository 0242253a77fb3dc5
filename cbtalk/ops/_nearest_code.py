"""Nearest codes and vector quantisation, without a distance matrix and without one-hot codes."""

from typing import Literal, overload

import torch
from torch import Tensor

from cbtalk import _native, _triton, ranges
from cbtalk.ops._nearest_code_kernels import QUANTIZE, SEARCH
from cbtalk.ops.backends import choose
from cbtalk.ops.kernel_op import needs_gradient
from cbtalk.reference import nearest_code as reference
from cbtalk.reference.nearest_code import NearestCode as NearestCode
from cbtalk.reference.nearest_code import Quantized as Quantized
from cbtalk.reference.nearest_code import QuantizedSums as QuantizedSums

# The kernels number codes with 32 bits and fill up the last group of 32.
_MAX_CODES = 2**31 - 33
# Those of all codebooks together, and the last tile may be larger.
_MAX_GPU_CODES = 2**31 - 1024
_MAX_GPU_CODEBOOKS = 65535  # a dimension of a grid
_KERNEL_DTYPES = (torch.float32, torch.float16, torch.bfloat16)


@ranges.ranged("nearest_code")
def nearest_code(z: Tensor, codebook: Tensor, *, ignored: Tensor | None = None, backend: str = "auto") -> NearestCode:
    """The code nearest to each row, by squared Euclidean distance.

    Codes are compared by |e|^2 - 2 z.e in float32 or wider, under autocast too: the same order as the distances
    without the rounding of |z|^2, which is large beside the differences between codes. The kernels compare again in
    float64 where float32 cannot tell the nearest code for certain, so that far from the origin theirs is the nearest
    too. Of equally near codes the smallest index wins. A code with a NaN never wins; a row of NaN takes index 0 at
    distance NaN. The distance is that of the winner, computed as sum (z - e)^2, and carries gradients to both
    arguments: those of the codes as they were here, whatever becomes of the codebook before the backward pass. The C++
    kernels allocate one packed copy of the codebook; an answer for a row depends on neither the other rows nor the
    number of threads.

    Args:
        z: (N, D) floating, N >= 0, any strides; or (H, N, D), rows of H codebooks.
        codebook: (K, D) floating, K >= 1, any strides; or (H, K, D).
        ignored: bool, (N,) or (H, N), True for a row that does not count (padding): index -1, distance 0, gradient 0,
            whatever is in it.
        backend: "auto", "cpp" (on the CPU), "cuda" or "triton" (on a GPU), each for float32, float16 and bfloat16, one
            dtype for each argument; or "reference".

    Returns:
        indices (N,) int64 and distances (N,), float32 or wider; (H, N) where there are H codebooks.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
        BackendError: the backend asked for cannot run; the message is the reason.
    """
    _check(z, codebook)
    ignored = _for_every_row(ignored, z)
    chosen = choose(backend, WHY_NOT, z, codebook, triton_first=True)
    if chosen == "reference":
        return reference.nearest_code(z, codebook, ignored=ignored)
    indices, distances, _ = SEARCH(chosen, z, codebook, ignored, needs_gradient(z, codebook))
    return NearestCode(indices, distances)


@overload
def vector_quantize(
    z: Tensor,
    codebook: Tensor,
    beta: float = 0.25,
    *,
    gamma: float = 1.0,
    ignored: Tensor | None = None,
    sums: Literal[False] = False,
    backend: str = "auto",
) -> Quantized: ...


@overload
def vector_quantize(
    z: Tensor,
    codebook: Tensor,
    beta: float = 0.25,
    *,
    gamma: float = 1.0,
    ignored: Tensor | None = None,
    sums: Literal[True],
    backend: str = "auto",
) -> QuantizedSums: ...


@ranges.ranged("vector_quantize")
def vector_quantize(
    z: Tensor,
    codebook: Tensor,
    beta: float = 0.25,
    *,
    gamma: float = 1.0,
    ignored: Tensor | None = None,
    sums: bool = False,
    backend: str = "auto",
) -> Quantized | QuantizedSums:
    """Each row replaced by its nearest code, with the loss that draws rows and codes together.

    The vector quantisation of van den Oord et al., "Neural Discrete Representation Learning" (2017): the gradient of
    the codes goes straight through to z, and

        loss = beta * mean (sg(code) - z)^2 + gamma * mean (code - sg(z))^2

    trains z towards its code and the code towards its rows; sg stops the gradient. A codebook that is updated by a
    moving average has no second term, gamma = 0; `counts` and `sums` are what the average is made of, and the backward
    pass uses the codes as they were here, whatever becomes of the codebook in between. The codebook's gradient and the
    sums are added in a fixed order, on the CPU that of the rows: equal calls give equal bits. Nearest is what
    `nearest_code` says.

    Args:
        z: (N, D) floating, N >= 0, any strides; or (H, N, D), rows of H codebooks.
        codebook: (K, D) floating, K >= 1, any strides; or (H, K, D).
        beta: weight of the first term, the commitment.
        gamma: weight of the second term, the codebook's. 0 leaves the codebook without a gradient.
        ignored: bool, (N,) or (H, N), True for a row that does not count (padding), whatever is in it: index -1, codes
            0 with gradient 0, and no part in loss, counts and sums.
        sums: whether to give the sums of the rows of each code too.
        backend: "auto", "cpp" (on the CPU), "cuda" or "triton" (on a GPU), each for float32, float16 and bfloat16, one
            dtype for each argument; or "reference".

    Returns:
        codes (N, D) in z's dtype, loss (), indices (N,) int64, and counts (K,) int64, how many rows chose each code;
        with `sums`, also the sums (K, D) of those rows, float32 or wider, without gradient. Where there are H
        codebooks, all but the loss have H in front. The loss of no rows is NaN, as any mean of nothing.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
        BackendError: the backend asked for cannot run; the message is the reason.
    """
    _check(z, codebook)
    ignored = _for_every_row(ignored, z)
    chosen = choose(backend, WHY_NOT, z, codebook, triton_first=True)
    if chosen == "reference":
        found = reference.vector_quantize(z, codebook, beta, gamma=gamma, ignored=ignored)
    else:
        keep_rows = needs_gradient(z, codebook)
        found = QUANTIZE(chosen, z, codebook, ignored, beta, gamma, sums, keep_rows)
    return QuantizedSums(*found[:5]) if sums else Quantized(*found[:4])


def why_not_cpp(z: Tensor, codebook: Tensor) -> str | None:
    """The reason why the C++ kernels cannot take these tensors, or None."""
    if reason := _native.why_not_cpp(z, codebook) or _why_not_dtype(z, codebook):
        return reason
    if codebook.shape[-2] > _MAX_CODES:
        return f"it takes at most {_MAX_CODES} codes"
    return None


def why_not_cuda(z: Tensor, codebook: Tensor) -> str | None:
    """The reason why the CUDA C++ kernels cannot take these tensors, or None."""
    return _native.why_not_cuda(z, codebook) or _why_not_gpu(z, codebook)


def why_not_triton(z: Tensor, codebook: Tensor) -> str | None:
    """The reason why the Triton kernels cannot take these tensors, or None."""
    return _triton.why_not_triton(z, codebook) or _why_not_gpu(z, codebook)


def _why_not_gpu(z: Tensor, codebook: Tensor) -> str | None:
    if reason := _why_not_dtype(z, codebook):
        return reason
    if z.shape[-1] == 0:
        return "it takes rows of at least one element"
    if codebook.shape[:-2].numel() > _MAX_GPU_CODEBOOKS:
        return f"it takes at most {_MAX_GPU_CODEBOOKS} codebooks"
    if codebook.shape[:-1].numel() > _MAX_GPU_CODES:
        return f"it takes at most {_MAX_GPU_CODES} codes"
    return None


def _why_not_dtype(z: Tensor, codebook: Tensor) -> str | None:
    if z.dtype not in _KERNEL_DTYPES or codebook.dtype not in _KERNEL_DTYPES:
        return "it takes float32, float16 and bfloat16 only"
    return None


def _check(z: Tensor, codebook: Tensor) -> None:
    rows, codes = z.shape, codebook.shape
    if len(rows) != len(codes) or len(rows) not in (2, 3):
        raise ValueError(f"{_shapes(z, codebook)} must be (N, D) and (K, D), or (H, N, D) and (H, K, D)")
    if rows[-1] != codes[-1] or codes[-2] < 1 or (len(rows) == 3 and rows[0] != codes[0]):
        raise ValueError(f"{_shapes(z, codebook)} must have rows of one length, as many heads, and at least one code")
    if not (z.is_floating_point() and codebook.is_floating_point()):
        raise ValueError(f"z and codebook must be floating point, not {z.dtype} and {codebook.dtype}")


def _shapes(z: Tensor, codebook: Tensor) -> str:
    return f"z {tuple(z.shape)} and codebook {tuple(codebook.shape)}"


def _for_every_row(ignored: Tensor | None, z: Tensor) -> Tensor | None:
    """The mask of rows in the shape of the indices, contiguous, as the kernels take it."""
    if ignored is None:
        return None
    rows = z.shape[:-1]
    if ignored.dtype != torch.bool or ignored.shape not in (rows, rows[-1:]):
        raise ValueError(
            f"ignored must be bool of the shape {tuple(rows)} of the rows, not {ignored.dtype} {tuple(ignored.shape)}"
        )
    return ignored.expand(rows).contiguous()


WHY_NOT = {"cpp": why_not_cpp, "cuda": why_not_cuda, "triton": why_not_triton}
