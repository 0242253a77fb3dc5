"""Nearest codes and vector quantisation, without a distance matrix and without one-hot codes."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from cbtalk import _native
from cbtalk.ops.backends import choose
from cbtalk.reference import nearest_code as reference
from cbtalk.reference.nearest_code import NearestCode as NearestCode
from cbtalk.reference.nearest_code import Quantized as Quantized

torch.library.define("cbtalk::nearest_code", "(Tensor z, Tensor codebook) -> (Tensor indices, Tensor distances)")
torch.library.define(
    "cbtalk::nearest_code_backward",
    "(Tensor grad_distances, Tensor z, Tensor codebook, Tensor indices) -> (Tensor grad_z, Tensor grad_codebook)",
)
torch.library.define(
    "cbtalk::vector_quantize",
    "(Tensor z, Tensor codebook, float beta) -> (Tensor codes, Tensor loss, Tensor indices, Tensor counts)",
)
torch.library.define(
    "cbtalk::vector_quantize_backward",
    "(Tensor? grad_codes, Tensor grad_loss, Tensor z, Tensor codebook, Tensor indices, float beta)"
    " -> (Tensor grad_z, Tensor grad_codebook)",
)

# The kernels number codes with 32 bits and fill up the last group of 32.
_MAX_CODES = 2**31 - 33


def nearest_code(z: Tensor, codebook: Tensor, *, backend: str = "auto") -> NearestCode:
    """The code nearest to each row, by squared Euclidean distance.

    Codes are compared by |e|^2 - 2 z.e in float32 or wider, under autocast too: the same order as the distances
    without the rounding of |z|^2, which is large beside the differences between codes. Of equally near codes the
    smallest index wins. A code with a NaN never wins; a row of NaN takes index 0 at distance NaN. The distance is that
    of the winner, computed as sum (z - e)^2, and carries gradients to both arguments. The C++ kernel allocates one
    packed copy of the codebook; its answer for a row depends on neither the other rows nor the number of threads.

    Args:
        z: (N, D) floating, N >= 0, any strides.
        codebook: (K, D) floating, K >= 1, any strides.
        backend: "auto", "cpp" (float32 on the CPU) or "reference".

    Returns:
        indices (N,) int64 and distances (N,), float32 or wider.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
        BackendError: the backend asked for cannot run; the message is the reason.
    """
    _check(z, codebook)
    if _choose(backend, z, codebook) == "reference":
        return reference.nearest_code(z, codebook)
    return NearestCode(*_NearestCode.apply(z, codebook))


def vector_quantize(z: Tensor, codebook: Tensor, beta: float = 0.25, *, backend: str = "auto") -> Quantized:
    """Each row replaced by its nearest code, with the loss that draws rows and codes together.

    The vector quantisation of van den Oord et al., "Neural Discrete Representation Learning" (2017): the gradient of
    the codes goes straight through to z, and

        loss = beta * mean (sg(code) - z)^2 + mean (code - sg(z))^2

    trains z towards its code and the code towards its rows; sg stops the gradient. The codebook's gradient is summed
    in the order of the rows whatever the number of threads. Nearest is what `nearest_code` says.

    Args:
        z: (N, D) floating, N >= 0, any strides.
        codebook: (K, D) floating, K >= 1, any strides.
        beta: weight of the first term, the commitment.
        backend: "auto", "cpp" (float32 on the CPU) or "reference".

    Returns:
        codes (N, D) in z's dtype, loss (), indices (N,) int64, and counts (K,) int64, how many rows chose each code.
        The loss of no rows is NaN, as any mean of nothing.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
        BackendError: the backend asked for cannot run; the message is the reason.
    """
    _check(z, codebook)
    if _choose(backend, z, codebook) == "reference":
        return reference.vector_quantize(z, codebook, beta)
    return Quantized(*_VectorQuantize.apply(z, codebook, beta))


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


def _choose(backend: str, z: Tensor, codebook: Tensor) -> str:
    # One core of a Xeon with AVX-512, November 2026, 8192 x (1024, 32) and x (1024, 256): 9.2x and 2.2x.
    return choose(backend, [("cpp", why_not_cpp(z, codebook)), ("reference", None)])


def _check(z: Tensor, codebook: Tensor) -> None:
    if z.dim() != 2 or codebook.dim() != 2 or z.shape[1] != codebook.shape[1] or codebook.shape[0] < 1:
        raise ValueError(f"z {tuple(z.shape)} must be (N, D) and codebook {tuple(codebook.shape)} (K, D), K >= 1")
    if not (z.is_floating_point() and codebook.is_floating_point()):
        raise ValueError(f"z and codebook must be floating point, not {z.dtype} and {codebook.dtype}")


class _NearestCode(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
        indices, distances = torch.ops.cbtalk.nearest_code.default(z, codebook)
        ctx.mark_non_differentiable(indices)
        ctx.save_for_backward(z, codebook, indices)
        return indices, distances

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, _: Tensor, grad_distances: Tensor) -> tuple[Tensor, Tensor]:
        return torch.ops.cbtalk.nearest_code_backward.default(grad_distances, *ctx.saved_tensors)


class _VectorQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, z: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        codes, loss, indices, counts = torch.ops.cbtalk.vector_quantize.default(z, codebook, beta)
        ctx.mark_non_differentiable(indices, counts)
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(z, codebook, indices)
        ctx.beta = beta
        return codes, loss, indices, counts

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_codes: Tensor | None, grad_loss: Tensor | None, *_: Tensor | None
    ) -> tuple[Tensor, Tensor, None]:
        z, codebook, indices = ctx.saved_tensors
        grad_codes = None if grad_codes is None else grad_codes.contiguous()
        grad_loss = z.new_zeros(()) if grad_loss is None else grad_loss
        gradients = torch.ops.cbtalk.vector_quantize_backward.default(
            grad_codes, grad_loss, z, codebook, indices, ctx.beta
        )
        return *gradients, None


def _fake_nearest_code(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    return z.new_empty((z.shape[0],), dtype=torch.int64), z.new_empty((z.shape[0],))


def _fake_nearest_code_backward(
    grad_distances: Tensor, z: Tensor, codebook: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape), codebook.new_empty(codebook.shape)


def _fake_vector_quantize(z: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    indices = z.new_empty((z.shape[0],), dtype=torch.int64)
    counts = z.new_empty((codebook.shape[0],), dtype=torch.int64)
    return z.new_empty(z.shape), z.new_empty(()), indices, counts


def _fake_vector_quantize_backward(
    grad_codes: Tensor | None, grad_loss: Tensor, z: Tensor, codebook: Tensor, indices: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    return z.new_empty(z.shape), codebook.new_empty(codebook.shape)


torch.library.register_fake("cbtalk::nearest_code", _fake_nearest_code)
torch.library.register_fake("cbtalk::nearest_code_backward", _fake_nearest_code_backward)
torch.library.register_fake("cbtalk::vector_quantize", _fake_vector_quantize)
torch.library.register_fake("cbtalk::vector_quantize_backward", _fake_vector_quantize_backward)
