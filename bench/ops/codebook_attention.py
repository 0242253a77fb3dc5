"""codebook_attention and self_attention against scaled_dot_product_attention, forward and with gradients."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.case import Case, Inputs, Thunk
from cbtalk.ops import codebook_attention, self_attention
from cbtalk.reference import codebook_attention as reference

HEADS = 8
TOKENS = CODES = 1024

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]


def cases() -> list[Case]:
    """The cross-attention to motion codes (d = 4) and appearance codes (d = 32), then self-attention at batch 4."""
    forward = [
        Case(f"{HEADS} heads, {batch} x {TOKENS} queries x {CODES} codes, d = {d}", *_case(batch, d, False))
        for d in (4, 32)
        for batch in (1, 8)
    ]
    training = [
        Case(f"the same, forward + backward, {batch} x {TOKENS} queries, d = {d}", *_case(batch, d, True))
        for d in (4, 32)
        for batch in (1, 4)
    ]
    own = [
        Case(
            f"self-attention, 4 x {TOKENS} x {TOKENS}, d = {d}",
            partial(_self_inputs, d),
            _self,
            {"SDPA, its own layout": _self_sdpa},
            _wrong_self,
        )
        for d in (4, 32)
    ]
    return forward + training + own


def _case(batch: int, d: int, gradients: bool) -> tuple[Any, ...]:
    prepare = partial(_prepare, gradients)
    peers = {
        "SDPA, its own layout": partial(prepare, _sdpa, partial(_split, contiguous=True)),
        "SDPA on (B, T, heads * d)": partial(prepare, _sdpa_between_rows, None),
        "softmax(Q K^T) V": partial(prepare, _materialised, partial(_split, contiguous=True)),
    }
    return partial(_inputs, batch, d), partial(prepare, _ours, None), peers, partial(_wrong, gradients)


def _inputs(batch: int, d: int, generator: torch.Generator) -> Inputs:
    sizes = (batch, TOKENS, HEADS * d), (CODES, HEADS * d), (CODES, HEADS * d)
    query, key, value = (torch.randn(size, generator=generator) for size in sizes)
    return query, key, value


def _prepare(
    gradients: bool,
    attention: Attention,
    layout: Callable[[Tensor], Tensor] | None,
    query: Tensor,
    key: Tensor,
    value: Tensor,
) -> Thunk:
    """The layout is made outside what is timed."""
    leaves = [x if layout is None else layout(x) for x in (query, key, value)]
    if not gradients:
        return lambda: attention(*leaves)
    leaves = [x.detach().requires_grad_() for x in leaves]
    rows = torch.linspace(-1, 2, query.numel(), dtype=query.dtype).sin().view(query.shape)
    grad = rows if layout is None else layout(rows)

    def thunk() -> tuple[Tensor, ...]:
        out = attention(*leaves)
        return out.detach(), *torch.autograd.grad(out, leaves, grad)

    return thunk


def _split(x: Tensor, contiguous: bool) -> Tensor:
    """(B, T, heads * d) -> (B, heads, T, d); a codebook gets B = 1."""
    heads = (x if x.dim() == 3 else x[None]).unflatten(-1, (HEADS, -1)).transpose(1, 2)
    return heads.contiguous() if contiguous else heads


def _ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return codebook_attention(query, key, value, heads=HEADS)


def _sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    batch = query.shape[0]
    return F.scaled_dot_product_attention(query, key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1))


def _sdpa_between_rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    out = _sdpa(*(_split(x, contiguous=False) for x in (query, key, value)))
    return out.transpose(1, 2).flatten(2)


def _materialised(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1) @ value


def _wrong(gradients: bool, inputs: Inputs, result: Any) -> str | None:
    attention = partial(reference.codebook_attention, heads=HEADS)
    exact = _prepare(gradients, attention, None, *(x.double() for x in inputs))()
    return _differs(_tensors(result), _tensors(exact))


def _wrong_self(inputs: Inputs, result: Any) -> str | None:
    query, key, value = inputs[0].double().chunk(3, -1)
    return _differs(_tensors(result), (reference.self_attention(query, key, value, heads=HEADS),))


def _tensors(result: Any) -> tuple[Tensor, ...]:
    return result if isinstance(result, tuple) else (result,)


def _differs(found: tuple[Tensor, ...], exact: tuple[Tensor, ...]) -> str | None:
    """Relative error in the 2-norm, of the output and of each gradient; 2e-6 is ten times the usual one."""
    for name, one, truth in zip(("out", "grad_query", "grad_key", "grad_value"), found, exact, strict=False):
        rows = one.transpose(1, 2).flatten(2) if one.dim() == 4 else one  # from (B, heads, T, d)
        error = (rows.reshape(truth.shape) - truth).norm() / truth.norm()
        if not error < 2e-6:
            return f"{name}: relative error {error:.1e}"
    return None


def _self_inputs(d: int, generator: torch.Generator) -> Inputs:
    return (torch.randn(4, TOKENS, 3 * HEADS * d, generator=generator),)


def _self(qkv: Tensor) -> Thunk:
    query, key, value = qkv.chunk(3, -1)
    return lambda: self_attention(query, key, value, heads=HEADS)


def _self_sdpa(qkv: Tensor) -> Thunk:
    query, key, value = (_split(x, contiguous=True) for x in qkv.chunk(3, -1))
    return lambda: F.scaled_dot_product_attention(query, key, value)
