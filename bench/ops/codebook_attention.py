"""codebook_attention and self_attention against scaled_dot_product_attention, forward and with gradients."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from bench import work
from bench.case import BATCHES, Case, Inputs, Judge, Prepare, Setting, Thunk, judge_by, timed
from bench.peers import COMPILED, compiled, sdpa_backends
from cbtalk.ops import codebook_attention, self_attention
from cbtalk.reference import codebook_attention as reference

HEADS = 8
SIZES = (4, 32)  # of a head: the motion and the appearance codes'
TOKENS = CODES = 1024
# batch, queries of each, codes
PAPER = [(1, TOKENS, CODES), (4, TOKENS, CODES)]
SWEEP = [*((B, TOKENS, CODES) for B in BATCHES), (3, 1021, 333)]


def cases(setting: Setting) -> list[Case]:
    """The attention to motion codes (d = 4) and appearance codes (d = 32), then self-attention."""
    sizes = {"fwd": SWEEP if setting.sweep else PAPER, "bwd": SWEEP if setting.sweep else PAPER[:1]}
    across = [_case(setting, size, d, direction) for direction in sizes for d in SIZES for size in sizes[direction]]
    return across + [_self_case(setting, 4, d) for d in SIZES]


def _case(setting: Setting, size: tuple[int, int, int], d: int, direction: str) -> Case:
    batch, tokens, codes = size
    rows, entries = batch * tokens * HEADS * d, codes * HEADS * d
    return Case(
        "codebook_attention", f"{batch} x {tokens} queries x {codes} codes, {HEADS} heads of {d}", direction,
        partial(_inputs, setting, size, d),
        timed(_ours, direction),
        _peers(setting.device, direction),
        partial(_judge, direction),
        work.attention(
            batch * HEADS * tokens, codes, d,
            # queries and result, keys and values; then what arrives, and three gradients
            rows=2 * rows + 2 * entries + (0 if direction == "fwd" else 2 * rows + 2 * entries),
            products=2 if direction == "fwd" else 6,
            dtype=setting.dtype, device=setting.device,
        ),
    )  # fmt: skip


def _inputs(setting: Setting, size: tuple[int, int, int], d: int, generator: torch.Generator) -> Inputs:
    batch, tokens, codes = size
    sizes = (batch, tokens, HEADS * d), (codes, HEADS * d), (codes, HEADS * d)
    return tuple(torch.randn(shape, generator=generator).to(setting.device, setting.dtype) for shape in sizes)


def _split(x: Tensor) -> Tensor:
    """(B, T, heads * d) -> (B, heads, T, d); a codebook gets B = 1."""
    return (x if x.dim() == 3 else x[None]).unflatten(-1, (HEADS, -1)).transpose(1, 2)


def _split_contiguous(x: Tensor) -> Tensor:
    return _split(x).contiguous()


def _peers(device: str, direction: str) -> dict[str, Prepare | str]:
    return {
        "SDPA, its own layout": timed(_sdpa, direction, _split_contiguous),
        "SDPA on (B, T, heads * d)": timed(_sdpa_between_rows, direction),
        "softmax(Q K^T) V": timed(_materialised, direction, _split_contiguous),
        COMPILED: compiled(_sdpa_between_rows, direction),
        **sdpa_backends(_sdpa, direction, _split_contiguous, device),
    }


def _ours(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return codebook_attention(query, key, value, heads=HEADS)


def _sdpa(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    batch = query.shape[0]
    return F.scaled_dot_product_attention(query, key.expand(batch, -1, -1, -1), value.expand(batch, -1, -1, -1))


def _sdpa_between_rows(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return _joined(_sdpa(*(_split(x) for x in (query, key, value))))


def _materialised(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    return (query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5).softmax(-1) @ value


def _joined(x: Tensor) -> Tensor:
    """(B, heads, T, d) -> (B, T, heads * d); what is laid out so already stays."""
    return x.transpose(1, 2).flatten(2) if x.dim() == 4 else x


def _judge(direction: str, inputs: Inputs) -> Judge:
    attention = partial(reference.codebook_attention, heads=HEADS)
    exact = timed(attention, direction)(*(x.double() for x in inputs))()
    return judge_by(exact, inputs[0].dtype, scales=(2, 2, 2, 2), restore=_joined)


def _self_case(setting: Setting, batch: int, d: int) -> Case:
    rows = batch * TOKENS * HEADS * d
    return Case(
        "self_attention", f"{batch} x {TOKENS} x {TOKENS}, {HEADS} heads of {d}", "fwd",
        partial(_self_inputs, setting, batch, d),
        _self,
        {"SDPA, its own layout": _self_sdpa},
        _judge_self,
        work.attention(
            batch * HEADS * TOKENS, TOKENS, d, rows=4 * rows, products=2, dtype=setting.dtype, device=setting.device
        ),
    )  # fmt: skip


def _self_inputs(setting: Setting, batch: int, d: int, generator: torch.Generator) -> Inputs:
    return (torch.randn(batch, TOKENS, 3 * HEADS * d, generator=generator).to(setting.device, setting.dtype),)


def _self(qkv: Tensor) -> Thunk:
    query, key, value = qkv.chunk(3, -1)
    return lambda: self_attention(query, key, value, heads=HEADS)


def _self_sdpa(qkv: Tensor) -> Thunk:
    query, key, value = (_split_contiguous(x) for x in qkv.chunk(3, -1))
    return lambda: F.scaled_dot_product_attention(query, key, value)


def _judge_self(inputs: Inputs) -> Judge:
    query, key, value = inputs[0].double().chunk(3, -1)
    exact = reference.self_attention(query, key, value, heads=HEADS)
    return judge_by(exact, inputs[0].dtype, scales=(2, 2, 2, 2), restore=_joined)
