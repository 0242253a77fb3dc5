"""Multi-head attention over a codebook that the whole batch shares, and the masked self-attention beside it."""

from typing import Any

import torch
from torch import Tensor

from cbtalk import _native, _triton, ranges
from cbtalk.ops.backends import choose
from cbtalk.ops.kernel_op import KernelOp, cast_as_autocast, needs_gradient
from cbtalk.reference import codebook_attention as reference

_ON_GPU = (torch.float32, torch.float16, torch.bfloat16)
_CUDA_HEADS = (4, 8, 16, 32)
_WIDEST_TRITON_HEAD = 128


@ranges.ranged("codebook_attention")
def codebook_attention(query: Tensor, key: Tensor, value: Tensor, *, heads: int, backend: str = "auto") -> Tensor:
    """softmax(Q K^T / sqrt(d)) V per head, with the keys and values of one codebook for every element of the batch.

    The cross-attention to codes of the paper's compensation modules. Nothing is repeated for the batch, forward or
    backward; the gradients of key and value are summed over batch and tokens in a fixed order, whatever the number of
    threads. C++ for float32 and bfloat16 on the CPU, any head size. On a GPU, float32, float16 and bfloat16 with
    float32 sums: CUDA C++ for heads of 4, 8, 16 or 32 columns, Triton for heads of at most 128.
    scaled_dot_product_attention for the rest. Under autocast all three are cast to its dtype. The kernels have first
    derivatives; forward mode and second derivatives are those of scaled_dot_product_attention (backend="reference").

    Args:
        query: (B, T, heads * d); head h owns the columns [h * d, (h + 1) * d). May be a slice of a wider tensor.
        key: (K, heads * d), K >= 1.
        value: (K, heads * d).
        heads: number of heads.
        backend: "auto", "cpp", "cuda", "triton" or "reference".

    Returns:
        (B, T, heads * d), contiguous, in the dtype of query.

    Raises:
        ValueError: shapes that do not fit together, or more than one dtype.
        BackendError: the backend asked for by name cannot run here.
    """
    if key.dim() != 2:
        raise ValueError(f"key must be (K, heads * d), not {tuple(key.shape)}")
    query, key, value = cast_as_autocast(query, key, value)
    keys, values = key.unsqueeze(0), value.unsqueeze(0)
    _check(query, keys, values, heads)
    chosen = choose(backend, WHY_NOT, query, key, value, heads, triton_first=_triton_first(query, heads))
    if chosen == "reference":
        return reference.codebook_attention(query, key, value, heads=heads)
    return _attend(query, keys, values, None, heads, chosen)


@ranges.ranged("self_attention")
def self_attention(
    query: Tensor, key: Tensor, value: Tensor, *, heads: int, key_mask: Tensor | None = None, backend: str = "auto"
) -> Tensor:
    """softmax(Q K^T / sqrt(d)) V per head, each element of the batch with its own keys.

    C++ for float32 and bfloat16 on the CPU, any head size. On a GPU, float32, float16 and bfloat16 with float32 sums:
    CUDA C++ for heads of 4, 8, 16 or 32 columns, Triton for heads of at most 128. scaled_dot_product_attention for the
    rest. All but the last are deterministic. Dtypes under autocast and derivatives: as for `codebook_attention`.

    Args:
        query: (B, T, heads * d); head h owns the columns [h * d, (h + 1) * d). May be a slice of a wider tensor.
        key: (B, S, heads * d), S >= 1.
        value: (B, S, heads * d).
        heads: number of heads.
        key_mask: (B, S) bool, True for a key that is ignored; an element whose keys are all masked attends to all.
        backend: "auto", "cpp", "cuda", "triton" or "reference".

    Returns:
        (B, T, heads * d), contiguous, in the dtype of query.

    Raises:
        ValueError: shapes that do not fit together, more than one dtype, or a mask that is not bool.
        BackendError: the backend asked for by name cannot run here.
    """
    query, key, value = cast_as_autocast(query, key, value)
    _check(query, key, value, heads)
    if key.shape[0] != query.shape[0]:
        raise ValueError(f"key has a batch of {key.shape[0]}, query of {query.shape[0]}")
    if key_mask is not None and (key_mask.dtype != torch.bool or key_mask.shape != key.shape[:2]):
        raise ValueError(f"key_mask must be bool {tuple(key.shape[:2])}, not {key_mask.dtype} {tuple(key_mask.shape)}")
    chosen = choose(backend, WHY_NOT, query, key, value, heads, triton_first=_triton_first(query, heads))
    if chosen == "reference":
        return reference.self_attention(query, key, value, heads=heads, key_mask=key_mask)
    return _attend(query, key, value, key_mask, heads, chosen)


def why_not_cpp(query: Tensor, key: Tensor, value: Tensor, heads: int) -> str | None:
    """The reason why the C++ kernels cannot take these tensors, or None."""
    if reason := _native.why_not_cpp(query, key, value):
        return reason
    if query.dtype not in (torch.float32, torch.bfloat16):
        return "it takes float32 or bfloat16 only"
    return None


def why_not_cuda(query: Tensor, key: Tensor, value: Tensor, heads: int) -> str | None:
    """The reason why the CUDA C++ kernels cannot take these tensors, or None."""
    if reason := _native.why_not_cuda(query, key, value) or _why_not_on_gpu(query, key, value):
        return reason
    if query.shape[-1] // heads not in _CUDA_HEADS:
        return f"it takes heads of {', '.join(map(str, _CUDA_HEADS))} columns only"
    return None


def why_not_triton(query: Tensor, key: Tensor, value: Tensor, heads: int) -> str | None:
    """The reason why the Triton kernels cannot take these tensors, or None."""
    if reason := _triton.why_not_triton(query, key, value) or _why_not_on_gpu(query, key, value):
        return reason
    if query.shape[-1] // heads > _WIDEST_TRITON_HEAD:
        return f"it takes heads of at most {_WIDEST_TRITON_HEAD} columns"
    return None


def _triton_first(query: Tensor, heads: int) -> bool:
    """Whether the products are wide and of 16 bits: Triton's wgmma then takes fewer instructions."""
    return query.dtype != torch.float32 and query.shape[-1] >= 32 * heads


def _why_not_on_gpu(query: Tensor, key: Tensor, value: Tensor) -> str | None:
    if query.dtype not in _ON_GPU:
        return "it takes float32, float16 and bfloat16 only"
    return None


def _check(query: Tensor, key: Tensor, value: Tensor, heads: int) -> None:
    if query.dim() != 3 or key.dim() != 3:
        raise ValueError(f"query {tuple(query.shape)} and key {tuple(key.shape)} must be rows of heads * d columns")
    width = query.shape[-1]
    if heads < 1 or width < heads or width % heads:
        raise ValueError(f"query's {width} columns do not divide into {heads} heads")
    if key.shape[-1] != width or value.shape != key.shape:
        raise ValueError(f"key {tuple(key.shape)} and value {tuple(value.shape)} must match, with {width} columns")
    if key.shape[1] < 1:
        raise ValueError("there must be at least one key")
    if not query.dtype == key.dtype == value.dtype:
        raise ValueError(f"query, key and value must have one dtype, not {query.dtype}, {key.dtype} and {value.dtype}")


def _adjacent(x: Tensor) -> Tensor:
    """The kernels take rows at any stride, but the columns of a row side by side."""
    return x if x.stride(-1) == 1 else x.contiguous()


def _attend(query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, heads: int, backend: str) -> Tensor:
    if backend == "cpp" and query.dtype == torch.bfloat16:
        # The C++ kernels compute in float32; with the casts they are still faster than torch in bfloat16.
        return _attend(query.float(), key.float(), value.float(), key_mask, heads, backend).to(query.dtype)
    query, key, value = _adjacent(query), _adjacent(key), _adjacent(value)
    key_mask = None if key_mask is None else key_mask.contiguous()
    out, _, _ = _OP(backend, query, key, value, key_mask, heads, needs_gradient(query, key, value))
    return out


def _fake_forward(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, heads: int, statistics: bool
) -> tuple[Tensor, Tensor, Tensor]:
    statistic = query.new_empty((heads if statistics else 0, *query.shape[:2]), dtype=torch.float32)
    return query.new_empty(query.shape), statistic, torch.empty_like(statistic)


def _fake_backward(
    grad_out: Tensor,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    key_mask: Tensor | None,
    heads: int,
    out: Tensor,
    maximum: Tensor,
    total: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    return query.new_empty(query.shape), key.new_empty(key.shape), value.new_empty(value.shape)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    query, key, value, key_mask, heads, ctx.statistics = inputs
    out, maximum, total = output
    ctx.mark_non_differentiable(maximum, total)
    ctx.save_for_backward(query, key, value, key_mask, out, maximum, total)
    ctx.heads = heads


def _backward(ctx: Any, grad_out: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    if not ctx.statistics:
        raise RuntimeError("codebook_attention was traced without gradients: trace it with inputs that require them")
    query, key, value, key_mask, out, maximum, total = ctx.saved_tensors
    gradients = _BACKWARD_OP(
        ctx.backend, _adjacent(grad_out), query, key, value, key_mask, ctx.heads, out, maximum, total
    )
    return *gradients, None, None, None


WHY_NOT = {"cpp": why_not_cpp, "cuda": why_not_cuda, "triton": why_not_triton}
# key and value are (G, K, heads * d): G = 1 is shared by the batch, G = B is one set of keys for each element.
# maximum and total (heads, B, T) are the log-sum-exp in two parts: the largest q.k, and the sum over the keys of
# exp((q.k - maximum) / sqrt(d)). In one float32, its rounding would be an error of every weight of the backward pass.
# They are float32 whatever the dtype of the data. With `statistics`, they are outputs of the forward pass that the
# backward pass reads; without, (0, B, T): beside the rest, they take a quarter of the memory at d = 4.
_OP = KernelOp(
    "codebook_attention",
    "(Tensor query, Tensor key, Tensor value, Tensor? key_mask, int heads, bool statistics)"
    " -> (Tensor out, Tensor maximum, Tensor total)",
    _fake_forward,
    module="codebook_attention",
    save=_save,
    backward=_backward,
)
_BACKWARD_OP = KernelOp(
    "codebook_attention_backward",
    "(Tensor grad_out, Tensor query, Tensor key, Tensor value, Tensor? key_mask, int heads, Tensor out,"
    " Tensor maximum, Tensor total) -> (Tensor grad_query, Tensor grad_key, Tensor grad_value)",
    _fake_backward,
    module="codebook_attention",
)
