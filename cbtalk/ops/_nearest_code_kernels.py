"""The ops of nearest_code that kernels implement: schemas, fake outputs and derivatives."""

from typing import Any

import torch
from torch import Tensor

from cbtalk.ops.kernel_op import KernelOp
from cbtalk.reference import nearest_code as reference


def _nothing(like: Tensor, dtype: torch.dtype) -> Tensor:
    """Stands for an output that is not asked for."""
    return like.new_empty((0,), dtype=dtype)


def _fake_nearest_code(
    z: Tensor, codebook: Tensor, ignored: Tensor | None, keep_rows: bool
) -> tuple[Tensor, Tensor, Tensor]:
    indices = z.new_empty(z.shape[:-1], dtype=torch.int64)
    distances = z.new_empty(z.shape[:-1], dtype=reference.wide(z, codebook))
    rows = z.new_empty(z.shape, dtype=codebook.dtype) if keep_rows else _nothing(z, codebook.dtype)
    return indices, distances, rows


def _fake_vector_quantize(
    z: Tensor,
    codebook: Tensor,
    ignored: Tensor | None,
    beta: float,
    gamma: float,
    keep_sums: bool,
    keep_rows: bool,
) -> tuple[Tensor, ...]:
    dtype = reference.wide(z, codebook)
    indices, _, rows = _fake_nearest_code(z, codebook, ignored, keep_rows)
    counts = z.new_empty(codebook.shape[:-1], dtype=torch.int64)
    sums = z.new_empty(codebook.shape, dtype=dtype) if keep_sums else _nothing(z, dtype)
    return z.new_empty(z.shape), z.new_empty((), dtype=dtype), indices, counts, sums, rows


def _fake_gradients(
    grad_codes: Tensor | None,
    weight: Tensor,
    z: Tensor,
    rows: Tensor,
    indices: Tensor,
    codes: int,
    z_scale: float,
    code_scale: float,
    need_z: bool,
    need_codebook: bool,
) -> tuple[Tensor, Tensor]:
    shape = (*z.shape[:-2], codes, z.shape[-1])
    return (
        z.new_empty(z.shape) if need_z else _nothing(z, z.dtype),
        rows.new_empty(shape) if need_codebook else _nothing(z, rows.dtype),
    )


def _save_search(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    z, codebook, _, ctx.has_rows = inputs
    indices, _, rows = output
    ctx.mark_non_differentiable(indices)
    ctx.set_materialize_grads(False)
    # The rows are an output, and so known to autograd as a function of the codebook, for second derivatives.
    ctx.save_for_backward(z, indices, rows)
    ctx.codes = codebook.shape[-2]


def _backward_search(
    ctx: Any, _: Tensor | None, grad_distances: Tensor | None, grad_rows: Tensor | None
) -> tuple[Tensor | None, ...]:
    z, indices, rows = _saved(ctx)
    need_z, need_codebook, *_ = ctx.needs_input_grad
    grad_z = grad_codebook = None
    if grad_distances is not None:
        gradients = _GRADIENTS(
            ctx.backend, None, grad_distances, z, rows, indices, ctx.codes, 2.0, 2.0, need_z, need_codebook
        )
        grad_z, grad_codebook = gradients[0] if need_z else None, gradients[1] if need_codebook else None
    return grad_z, _with_rows(ctx, grad_codebook, grad_rows, indices), None, None


def _save_quantize(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    z, codebook, ignored, ctx.beta, ctx.gamma, _, ctx.has_rows = inputs
    _, _, indices, counts, sums, rows = output
    ctx.mark_non_differentiable(indices, counts, sums)
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(z, indices, rows)
    ctx.ignored = ignored is not None
    ctx.codes = codebook.shape[-2]


def _backward_quantize(
    ctx: Any,
    grad_codes: Tensor | None,
    grad_loss: Tensor | None,
    _indices: Tensor | None,
    _counts: Tensor | None,
    _sums: Tensor | None,
    grad_rows: Tensor | None,
) -> tuple[Tensor | None, ...]:
    z, indices, rows = _saved(ctx)
    grad_z = grad_codebook = None
    if grad_loss is not None:
        # Tensors over sizes, not numbers: sizes may be symbols of a compiler, and counting must not wait for a GPU.
        counted = (indices >= 0).sum() * z.shape[-1] if ctx.ignored else z.numel()
        weight = grad_loss / counted
        carried = None if grad_codes is None else grad_codes.contiguous()
        grad_z, grad_codebook = _gradients_of_terms(ctx, carried, weight, z, rows, indices)
    elif ctx.needs_input_grad[0] and grad_codes is not None:
        grad_z = _without_ignored(grad_codes, indices) if ctx.ignored else grad_codes
    return grad_z, _with_rows(ctx, grad_codebook, grad_rows, indices), *(None,) * 5


def _gradients_of_terms(
    ctx: Any, carried: Tensor | None, weight: Tensor, z: Tensor, rows: Tensor, indices: Tensor
) -> tuple[Tensor | None, Tensor | None]:
    """Gradients of the commitment to z and of the codebook's term to the codebook, where they are needed."""
    need_z, need_codebook = ctx.needs_input_grad[0], ctx.needs_input_grad[1] and ctx.gamma != 0

    def gradients(z: Tensor, rows: Tensor, need_z: bool, need_codebook: bool) -> tuple[Tensor, Tensor]:
        scales = 2 * ctx.beta, 2 * ctx.gamma
        found: tuple[Tensor, Tensor] = _GRADIENTS(
            ctx.backend, carried, weight, z, rows, indices, ctx.codes, *scales, need_z, need_codebook
        )
        return found

    if not torch.is_grad_enabled():
        grad_z, grad_codebook = gradients(z, rows, need_z, need_codebook)
        return grad_z if need_z else None, grad_codebook if need_codebook else None
    # One by one for second derivatives, for sg: to the gradient of one argument, the other is a constant.
    return (
        gradients(z, rows.detach(), True, False)[0] if need_z else None,
        gradients(z.detach(), rows, False, True)[1] if need_codebook else None,
    )


def _saved(ctx: Any) -> tuple[Tensor, Tensor, Tensor]:
    if not ctx.has_rows:
        raise RuntimeError("nearest_code was traced without gradients: trace it with inputs that require them")
    z, indices, rows = ctx.saved_tensors
    return z, indices, rows


def _with_rows(ctx: Any, grad_codebook: Tensor | None, grad_rows: Tensor | None, indices: Tensor) -> Tensor | None:
    """The codebook's gradient with what comes through the rows that the backward pass has used."""
    if grad_rows is None or not ctx.needs_input_grad[1]:
        return grad_codebook
    wide = torch.promote_types(grad_rows.dtype, torch.float32)
    through_rows = reference.sum_by_code(_without_ignored(grad_rows.to(wide), indices), indices, ctx.codes)
    if grad_codebook is not None:
        through_rows = grad_codebook + through_rows
    return through_rows.to(grad_rows.dtype)


def _without_ignored(rows: Tensor, indices: Tensor) -> Tensor:
    return rows.masked_fill((indices < 0)[..., None], 0.0)


def _save_gradients(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
    _, weight, z, rows, indices, _, ctx.z_scale, ctx.code_scale, ctx.has_z, ctx.has_codebook = inputs
    ctx.set_materialize_grads(False)
    ctx.save_for_backward(weight, z, rows, indices)


def _backward_gradients(
    ctx: Any, grad_grad_z: Tensor | None, grad_grad_codebook: Tensor | None
) -> tuple[Tensor | None, ...]:
    """Second derivatives, in plain torch, which has the third.

    grad_z and grad_codebook are linear in weight * (z - rows): `pull` is what arrives at it, row by row.
    """
    weight, z, rows, indices = ctx.saved_tensors
    dtype = reference.wide(z, rows)
    # A compiler sends zeros, of the shape (0,), to what was not needed.
    grad_grad_z = grad_grad_z if ctx.has_z else None
    grad_grad_codebook = grad_grad_codebook if ctx.has_codebook else None
    pull = None
    if grad_grad_z is not None:
        grad_grad_z = _without_ignored(grad_grad_z, indices)
        pull = ctx.z_scale * grad_grad_z.to(dtype)
    if grad_grad_codebook is not None:
        chosen = reference.chosen_rows(grad_grad_codebook, indices).to(dtype)
        from_codebook = ctx.code_scale * _without_ignored(chosen, indices)
        pull = -from_codebook if pull is None else pull - from_codebook
    if pull is None:
        return (None,) * 10
    difference = _without_ignored(z.to(dtype) - rows.to(dtype), indices)
    grad_weight = (pull * difference).sum(-1).sum_to_size(weight.shape)
    grad_difference = weight[..., None] * pull
    grad_grad_codes = grad_grad_z if ctx.needs_input_grad[0] else None
    return grad_grad_codes, grad_weight, grad_difference.to(z.dtype), -grad_difference.to(rows.dtype), *(None,) * 6


# Every tensor but a () has H in front where there are H codebooks, and lacks it where there is one.
# ignored (N,) bool. rows (N, D): the chosen codes as they were, for the backward pass; with the sums (K, D), (0,) where
# they are not asked for.
SEARCH = KernelOp(
    "nearest_code",
    "(Tensor z, Tensor codebook, Tensor? ignored, bool keep_rows) -> (Tensor indices, Tensor distances, Tensor rows)",
    _fake_nearest_code,
    module="nearest_code",
    save=_save_search,
    backward=_backward_search,
)
QUANTIZE = KernelOp(
    "vector_quantize",
    "(Tensor z, Tensor codebook, Tensor? ignored, float beta, float gamma, bool keep_sums, bool keep_rows)"
    " -> (Tensor codes, Tensor loss, Tensor indices, Tensor counts, Tensor sums, Tensor rows)",
    _fake_vector_quantize,
    module="nearest_code",
    save=_save_quantize,
    backward=_backward_quantize,
)
# grad_z = grad_codes + z_scale * weight * (z - rows); grad_codebook = code_scale * sum over the rows of each code of
# weight * (rows - z). weight is (N,), or () for all rows; a row of index -1 has no part. What is not needed is (0,).
_GRADIENTS = KernelOp(
    "nearest_code_backward",
    "(Tensor? grad_codes, Tensor weight, Tensor z, Tensor rows, Tensor indices, SymInt codes, float z_scale,"
    " float code_scale, bool need_z, bool need_codebook) -> (Tensor grad_z, Tensor grad_codebook)",
    _fake_gradients,
    module="nearest_code",
    save=_save_gradients,
    backward=_backward_gradients,
)
