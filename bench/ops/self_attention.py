"""self_attention against scaled_dot_product_attention."""

from functools import partial

import torch
import torch.nn.functional as F

from bench.case import BATCHES, Case, Inputs, Judge, Setting, Thunk, judge_by
from bench.ops.codebook_attention import SIZES, TOKENS, floor, joined, split_contiguous
from cbtalk.ops.examples import HEADS, named

SWEEP = [*((B, TOKENS) for B in BATCHES), (3, 1021)]  # batch, tokens of each


def cases(setting: Setting) -> list[Case]:
    """With heads of either size, at the batch of training."""
    sizes = SWEEP if setting.sweep else [(4 * setting.batch, TOKENS)]
    return [_case(setting, *size, d) for size in sizes for d in SIZES]


def _case(setting: Setting, batch: int, tokens: int, d: int) -> Case:
    rows, heads = 4 * batch * tokens * HEADS * d, batch * HEADS  # query, key, value and result
    return Case(
        "self_attention", f"{batch} x {tokens} x {tokens}, {HEADS} heads of {d}", "fwd",
        partial(_inputs, setting, batch, tokens, d),
        _ours,
        {"SDPA, its own layout": _sdpa},
        _judge,
        floor(heads * tokens, tokens, d, rows=rows, products=2, dtype=setting.dtype, device=setting.device),
        ("SDPA, its own layout",),
    )  # fmt: skip


def _inputs(setting: Setting, batch: int, tokens: int, d: int, generator: torch.Generator) -> Inputs:
    return named("self_attention").make(generator, setting.dtype, batch=batch, tokens=tokens, head=d)


def _ours(*inputs: torch.Tensor) -> Thunk:
    return lambda: named("self_attention").op(*inputs)


def _sdpa(*inputs: torch.Tensor) -> Thunk:
    query, key, value = (split_contiguous(x) for x in inputs)
    return lambda: F.scaled_dot_product_attention(query, key, value)


def _judge(inputs: Inputs) -> Judge:
    exact = named("self_attention").reference(*(x.double() for x in inputs))
    return judge_by(exact, inputs[0].dtype, scales=(2, 2, 2, 2), restore=joined)
