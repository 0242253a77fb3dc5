"""codebook_attention against scaled_dot_product_attention, forward and with gradients."""

from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.flop_counter import register_flop_formula

from bench.case import BATCHES, Case, Inputs, Judge, Prepare, Setting, judge_by, timed
from bench.peers import COMPILED, compiled, sdpa_backends
from bench.work import Work, product_rate
from cbtalk.ops.examples import HEADS, named

SIZES = (4, 32)  # of a head: the motion and the appearance codes'
TOKENS = CODES = 1024
# batch, queries of each, codes
SWEEP = [*((B, TOKENS, CODES) for B in BATCHES), (3, 1021, 333)]


def cases(setting: Setting) -> list[Case]:
    """The attention to motion codes (d = 4) and appearance codes (d = 32)."""
    paper = [(B, TOKENS, CODES) for B in (setting.batch, 4 * setting.batch)]
    sizes = {"fwd": SWEEP if setting.sweep else paper, "bwd": SWEEP if setting.sweep else paper[:1]}
    return [_case(setting, size, d, direction) for direction in sizes for d in SIZES for size in sizes[direction]]


def floor(queries: int, codes: int, d: int, *, rows: float, products: int, dtype: torch.dtype, device: str) -> Work:
    """Attention of `queries` (batch and heads counted) to `codes` codes of size d.

    Args:
        rows: elements of all tensors read or written.
        products: of queries x codes x d. 2 forward (scores, values); backward 4 (for the values, the weights, the
            queries, the keys) where what was computed ahead is kept.
    """
    rate, times = product_rate(dtype, device)
    if d < 16 and device == "cuda":
        rate, times = "float32", 1  # its sums over rows and keys are multiplied and added
    pairs = queries * codes
    return Work(rows * dtype.itemsize, 2.0 * products * d * pairs * times, rate, pairs)


@register_flop_formula([torch.ops.cbtalk.codebook_attention, torch.ops.cbtalk.codebook_attention_triton])
def _operations(query: Any, key: Any, *_: Any, **__: Any) -> float:
    """query (B, T, heads * d), key (G, K, heads * d): shapes, as torch's counter gives them."""
    return 4 * query[0] * query[1] * key[-2] * query[2]


def _case(setting: Setting, size: tuple[int, int, int], d: int, direction: str) -> Case:
    batch, tokens, codes = size
    rows, entries = batch * tokens * HEADS * d, codes * HEADS * d
    return Case(
        "codebook_attention", f"{batch} x {tokens} queries x {codes} codes, {HEADS} heads of {d}", direction,
        partial(_inputs, setting, size, d),
        timed(named("codebook_attention").op, direction),
        _peers(setting.device, direction),
        partial(_judge, direction),
        floor(
            batch * HEADS * tokens, codes, d,
            # queries and result, keys and values; then what arrives, and three gradients
            rows=2 * rows + 2 * entries + (0 if direction == "fwd" else 2 * rows + 2 * entries),
            products=2 if direction == "fwd" else 6,
            dtype=setting.dtype, device=setting.device,
        ),
        ("SDPA, its own layout",) if batch == setting.batch and direction == "fwd" else (),
    )  # fmt: skip


def _inputs(setting: Setting, size: tuple[int, int, int], d: int, generator: torch.Generator) -> Inputs:
    batch, tokens, codes = size
    make = named("codebook_attention").make
    return make(generator, setting.dtype, batch=batch, tokens=tokens, codes=codes, head=d)


def _split(x: Tensor) -> Tensor:
    """(B, T, heads * d) -> (B, heads, T, d); a codebook gets B = 1."""
    return (x if x.dim() == 3 else x[None]).unflatten(-1, (HEADS, -1)).transpose(1, 2)


def split_contiguous(x: Tensor) -> Tensor:
    """As `_split`, in the layout of scaled_dot_product_attention's own."""
    return _split(x).contiguous()


def _peers(device: str, direction: str) -> dict[str, Prepare | str]:
    return {
        "SDPA, its own layout": timed(_sdpa, direction, split_contiguous),
        "SDPA on (B, T, heads * d)": timed(_sdpa_between_rows, direction),
        "softmax(Q K^T) V": timed(_materialised, direction, split_contiguous),
        COMPILED: compiled(_sdpa_between_rows, direction),
        **sdpa_backends(_sdpa, direction, split_contiguous, device),
    }


def _sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    batch = query.shape[0]
    return F.scaled_dot_product_attention(query, key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1))


def _sdpa_between_rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return joined(_sdpa(*(_split(x) for x in (query, key, value))))


def _materialised(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1) @ value


def joined(x: Tensor) -> Tensor:
    """(B, heads, T, d) -> (B, T, heads * d); what is laid out so already stays."""
    return x.transpose(1, 2).flatten(2) if x.dim() == 4 else x


def _judge(direction: str, inputs: Inputs) -> Judge:
    exact = timed(named("codebook_attention").reference, direction)(*(x.double() for x in inputs))()
    return judge_by(exact, inputs[0].dtype, scales=(2, 2, 2, 2), restore=joined)
