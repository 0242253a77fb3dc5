"""Attention over a codebook that the whole batch shares, and the masked self-attention beside it.

Per head, with E = exp((q.k - maximum) / sqrt(d)) and P = E / total:
  forward    out = P V; maximum and total are outputs too where a backward pass will read them
  backward   delta = sum_j grad_out_j out_j,  dS = P * (grad_out V^T - delta),
             grad_query = dS K / sqrt(d),  grad_key = dS^T Q / sqrt(d),  grad_value = P^T grad_out

The B * T rows of queries are divided evenly over the G key sets (one codebook, or one set for each element), in order.
grad_query is local to its rows. grad_key and grad_value are summed over chunks of rows, whose number only the shapes
decide, and then over the chunks in order: the same bits every time, and nothing is repeated for the batch.

Two families of kernels. Heads of at most 8 columns are too narrow for tensor cores (tl.dot needs 16): there a thread
holds whole queries (or keys, for their gradients), and the other side passes by as broadcasts. Wider heads use tl.dot:
float16 and bfloat16 are multiplied as they are with float32 sums, P and dS are rounded to them for the second product,
as scaled_dot_product_attention does; float32 is multiplied in float32.
"""

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

NARROW_HEAD = 8

# The products of float32. "tf32x3" runs on tensor cores and errs by some 2^-22 of |q||k|: several roundings of float32.
FLOAT32_PRECISION = "ieee"
# Rows of a product of float32: with 64 and more, Triton 3.6 and 3.7 take "ieee" for TF32 on sm_100.
FLOAT32_ROWS = 32

# About so many programs sum key gradients, where the rows suffice: chunks of rows make up for few keys and heads. Not a
# function of the GPU: the chunks decide the order of the sums.
KEY_GRADIENT_PROGRAMS = 256
SHORTEST_CHUNK = 256  # rows
# Of the memory of a backward pass's inputs and outputs, what the float32 sums of the chunks may take. Where that leaves
# few chunks, as at batch 1, a GPU is left half empty or more.
MEMORY_SHARE = 0.1


class Tiling(NamedTuple):
    """Rows of queries and keys of a tile, and the threads that share it."""

    block_t: int
    block_k: int
    num_warps: int
    num_stages: int


@triton.jit
def _locate(tiles, heads):
    """Tile, head and what remains (key set, chunk) of this program."""
    program = tl.program_id(0)
    rest = program // tiles
    return program % tiles, (rest % heads).to(tl.int64), (rest // heads).to(tl.int64)


@triton.jit
def _row_offsets(row, tokens, batch_stride, row_stride):
    """Offsets of rows of a (B, T, heads * d) tensor; row counts over B and T, int32: its division is the cheap one."""
    return (row // tokens).to(tl.int64) * batch_stride + (row % tokens).to(tl.int64) * row_stride


@triton.jit
def _kept_keys(ignored_ptr, key_set, key, keys):
    """The keys that exist and are not masked."""
    kept = key < keys
    if ignored_ptr is not None:
        kept &= tl.load(ignored_ptr + key_set * keys + key, mask=kept, other=1) == 0
    return kept


@triton.jit
def _inner(a, b):
    """(M, D), (D, N) -> (M, N) sums over D, each within one thread."""
    # With the factors the other way round, Triton 3.6 and 3.7 make it a tl.dot: in TF32, and of too few columns.
    return tl.sum(b[None, :, :] * a[:, :, None], axis=1)


@triton.jit
def _weighted(weights, a):
    """(M, N), (M, D) -> (D, N) sums over M, each within one thread."""
    return tl.sum(weights[:, None, :] * a[:, :, None], axis=0)


@triton.jit
def _raise_maximum(maximum, largest, SCALE: tl.constexpr):
    """The new maximum, the same without -inf (no key yet), and what sums under the old one are worth under the new."""
    raised = tl.maximum(maximum, largest)
    finite = tl.where(raised == float("-inf"), 0.0, raised)
    return raised, finite, tl.exp2((maximum - finite) * SCALE)


@triton.jit
def narrow_fwd_kernel(
    query_ptr,  # (B, T, heads * d)
    key_ptr,  # (G, K, heads * d)
    value_ptr,  # (G, K, heads * d)
    ignored_ptr,  # (G, K) uint8, 1 = ignore; or None
    out_ptr,  # (B, T, heads * d) contiguous
    maximum_ptr,  # (heads, B, T) contiguous; or None
    total_ptr,  # (heads, B, T) contiguous; or None
    query_batch_stride,
    query_row_stride,
    key_set_stride,
    key_row_stride,
    value_set_stride,
    value_row_stride,
    tokens,
    all_rows,  # B * T
    rows,  # of one key set
    keys,
    heads,
    tiles,
    HEAD_SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALE: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A program owns BLOCK_T rows of one head and walks the keys."""
    tile, head, key_set = _locate(tiles, heads)
    local = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = local < rows
    row = (key_set * rows).to(tl.int32) + local
    column = tl.arange(0, COLUMNS)
    has_column = column < HEAD_SIZE
    columns = head * HEAD_SIZE + column
    # Tiles are (keys, rows): the rows lie on neighbouring threads, and reductions over keys stay within a thread.
    offsets = _row_offsets(row, tokens, query_batch_stride, query_row_stride)
    rows_mask = has_column[:, None] & inside[None, :]
    query = tl.load(query_ptr + offsets[None, :] + columns[:, None], mask=rows_mask, other=0.0).to(tl.float32)
    maximum = tl.full((BLOCK_T,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_T,), tl.float32)
    out = tl.zeros((COLUMNS, BLOCK_T), tl.float32)
    key_base = key_ptr + key_set * key_set_stride + columns[None, :]
    value_base = value_ptr + key_set * value_set_stride + columns[None, :]
    for first in range(0, keys, BLOCK_K):
        key = first + tl.arange(0, BLOCK_K).to(tl.int64)
        kept = _kept_keys(ignored_ptr, key_set, key, keys)
        mask = kept[:, None] & has_column[None, :]
        k = tl.load(key_base + key[:, None] * key_row_stride, mask=mask, other=0.0).to(tl.float32)
        v = tl.load(value_base + key[:, None] * value_row_stride, mask=mask, other=0.0).to(tl.float32)
        scores = tl.where(kept[:, None], _inner(k, query), float("-inf"))
        maximum, finite, fade = _raise_maximum(maximum, tl.max(scores, axis=0), SCALE)
        weights = tl.exp2((scores - finite[None, :]) * SCALE)
        total = total * fade + tl.sum(weights, axis=0)
        out = out * fade[None, :] + _weighted(weights, v)
    target = out_ptr + row[None, :].to(tl.int64) * (heads * HEAD_SIZE) + columns[:, None]
    tl.store(target, out / total[None, :], mask=rows_mask)
    if maximum_ptr is not None:
        tl.store(maximum_ptr + head * all_rows + row, maximum, mask=inside)
        tl.store(total_ptr + head * all_rows + row, total, mask=inside)


@triton.jit
def wide_fwd_kernel(
    query_ptr,  # (B, T, heads * d)
    key_ptr,  # (G, K, heads * d)
    value_ptr,  # (G, K, heads * d)
    ignored_ptr,  # (G, K) uint8, 1 = ignore; or None
    out_ptr,  # (B, T, heads * d) contiguous
    maximum_ptr,  # (heads, B, T) contiguous; or None
    total_ptr,  # (heads, B, T) contiguous; or None
    query_batch_stride,
    query_row_stride,
    key_set_stride,
    key_row_stride,
    value_set_stride,
    value_row_stride,
    tokens,
    all_rows,  # B * T
    rows,  # of one key set
    keys,
    heads,
    tiles,
    HEAD_SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALE: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """A program owns BLOCK_T rows of one head and walks the keys."""
    tile, head, key_set = _locate(tiles, heads)
    local = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = local < rows
    row = (key_set * rows).to(tl.int32) + local
    column = tl.arange(0, COLUMNS)
    has_column = column < HEAD_SIZE
    columns = head * HEAD_SIZE + column
    offsets = _row_offsets(row, tokens, query_batch_stride, query_row_stride)
    rows_mask = inside[:, None] & has_column[None, :]
    query = tl.load(query_ptr + offsets[:, None] + columns[None, :], mask=rows_mask, other=0.0)
    maximum = tl.full((BLOCK_T,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_T,), tl.float32)
    out = tl.zeros((BLOCK_T, COLUMNS), tl.float32)
    key_base = key_ptr + key_set * key_set_stride + columns[None, :]
    value_base = value_ptr + key_set * value_set_stride + columns[None, :]
    for first in range(0, keys, BLOCK_K):
        key = first + tl.arange(0, BLOCK_K).to(tl.int64)
        kept = _kept_keys(ignored_ptr, key_set, key, keys)
        mask = kept[:, None] & has_column[None, :]
        k = tl.load(key_base + key[:, None] * key_row_stride, mask=mask, other=0.0)
        v = tl.load(value_base + key[:, None] * value_row_stride, mask=mask, other=0.0)
        scores = tl.dot(query, tl.trans(k), input_precision=PRECISION)
        scores = tl.where(kept[None, :], scores, float("-inf"))
        maximum, finite, fade = _raise_maximum(maximum, tl.max(scores, axis=1), SCALE)
        weights = tl.exp2((scores - finite[:, None]) * SCALE)
        total = total * fade + tl.sum(weights, axis=1)
        out = tl.dot(weights.to(v.dtype), v, out * fade[:, None], input_precision=PRECISION)
    target = out_ptr + row[:, None].to(tl.int64) * (heads * HEAD_SIZE) + columns[None, :]
    tl.store(target, out / total[:, None], mask=rows_mask)
    if maximum_ptr is not None:
        tl.store(maximum_ptr + head * all_rows + row, maximum, mask=inside)
        tl.store(total_ptr + head * all_rows + row, total, mask=inside)


@triton.jit
def narrow_query_bwd_kernel(
    grad_out_ptr,  # (B, T, heads * d)
    query_ptr,  # (B, T, heads * d)
    key_ptr,  # (G, K, heads * d)
    value_ptr,  # (G, K, heads * d)
    ignored_ptr,  # (G, K) uint8, 1 = ignore; or None
    out_ptr,  # (B, T, heads * d) contiguous
    maximum_ptr,  # (heads, B, T) contiguous
    total_ptr,  # (heads, B, T) contiguous
    grad_query_ptr,  # (B, T, heads * d) contiguous, written
    grad_out_batch_stride,
    grad_out_row_stride,
    query_batch_stride,
    query_row_stride,
    key_set_stride,
    key_row_stride,
    value_set_stride,
    value_row_stride,
    tokens,
    all_rows,  # B * T
    rows,  # of one key set
    keys,
    heads,
    tiles,
    HEAD_SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALE: tl.constexpr,
    INVERSE_ROOT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """grad_query of BLOCK_T rows of one head."""
    tile, head, key_set = _locate(tiles, heads)
    local = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = local < rows
    row = (key_set * rows).to(tl.int32) + local
    column = tl.arange(0, COLUMNS)
    has_column = column < HEAD_SIZE
    columns = head * HEAD_SIZE + column
    rows_mask = has_column[:, None] & inside[None, :]
    offsets = _row_offsets(row, tokens, query_batch_stride, query_row_stride)
    query = tl.load(query_ptr + offsets[None, :] + columns[:, None], mask=rows_mask, other=0.0).to(tl.float32)
    offsets = _row_offsets(row, tokens, grad_out_batch_stride, grad_out_row_stride)
    grad_out = tl.load(grad_out_ptr + offsets[None, :] + columns[:, None], mask=rows_mask, other=0.0).to(tl.float32)
    place = row[None, :].to(tl.int64) * (heads * HEAD_SIZE) + columns[:, None]
    out = tl.load(out_ptr + place, mask=rows_mask, other=0.0).to(tl.float32)
    maximum = tl.load(maximum_ptr + head * all_rows + row, mask=inside, other=0.0)
    total = tl.load(total_ptr + head * all_rows + row, mask=inside, other=1.0)
    delta = tl.sum(grad_out * out, axis=0)
    grad_query = tl.zeros((COLUMNS, BLOCK_T), tl.float32)
    key_base = key_ptr + key_set * key_set_stride + columns[None, :]
    value_base = value_ptr + key_set * value_set_stride + columns[None, :]
    for first in range(0, keys, BLOCK_K):
        key = first + tl.arange(0, BLOCK_K).to(tl.int64)
        kept = _kept_keys(ignored_ptr, key_set, key, keys)
        mask = kept[:, None] & has_column[None, :]
        # The row of a key that is left out is zero: whatever its weight, it adds nothing to grad_query.
        k = tl.load(key_base + key[:, None] * key_row_stride, mask=mask, other=0.0).to(tl.float32)
        v = tl.load(value_base + key[:, None] * value_row_stride, mask=mask, other=0.0).to(tl.float32)
        scores = tl.where(kept[:, None], _inner(k, query), float("-inf"))
        weights = tl.exp2((scores - maximum[None, :]) * SCALE)
        grad_query += _weighted(weights * (_inner(v, grad_out) - delta[None, :]), k)
    tl.store(grad_query_ptr + place, grad_query * (INVERSE_ROOT / total)[None, :], mask=rows_mask)


@triton.jit
def wide_query_bwd_kernel(
    grad_out_ptr,  # (B, T, heads * d)
    query_ptr,  # (B, T, heads * d)
    key_ptr,  # (G, K, heads * d)
    value_ptr,  # (G, K, heads * d)
    ignored_ptr,  # (G, K) uint8, 1 = ignore; or None
    out_ptr,  # (B, T, heads * d) contiguous
    maximum_ptr,  # (heads, B, T) contiguous
    total_ptr,  # (heads, B, T) contiguous
    grad_query_ptr,  # (B, T, heads * d) contiguous, written
    grad_out_batch_stride,
    grad_out_row_stride,
    query_batch_stride,
    query_row_stride,
    key_set_stride,
    key_row_stride,
    value_set_stride,
    value_row_stride,
    tokens,
    all_rows,  # B * T
    rows,  # of one key set
    keys,
    heads,
    tiles,
    HEAD_SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALE: tl.constexpr,
    INVERSE_ROOT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """grad_query of BLOCK_T rows of one head."""
    tile, head, key_set = _locate(tiles, heads)
    local = tile * BLOCK_T + tl.arange(0, BLOCK_T)
    inside = local < rows
    row = (key_set * rows).to(tl.int32) + local
    column = tl.arange(0, COLUMNS)
    has_column = column < HEAD_SIZE
    columns = head * HEAD_SIZE + column
    rows_mask = inside[:, None] & has_column[None, :]
    offsets = _row_offsets(row, tokens, query_batch_stride, query_row_stride)
    query = tl.load(query_ptr + offsets[:, None] + columns[None, :], mask=rows_mask, other=0.0)
    offsets = _row_offsets(row, tokens, grad_out_batch_stride, grad_out_row_stride)
    grad_out = tl.load(grad_out_ptr + offsets[:, None] + columns[None, :], mask=rows_mask, other=0.0)
    place = row[:, None].to(tl.int64) * (heads * HEAD_SIZE) + columns[None, :]
    out = tl.load(out_ptr + place, mask=rows_mask, other=0.0)
    maximum = tl.load(maximum_ptr + head * all_rows + row, mask=inside, other=0.0)
    weight = 1.0 / tl.load(total_ptr + head * all_rows + row, mask=inside, other=1.0)
    delta = tl.sum(grad_out.to(tl.float32) * out.to(tl.float32), axis=1)
    grad_query = tl.zeros((BLOCK_T, COLUMNS), tl.float32)
    key_base = key_ptr + key_set * key_set_stride + columns[None, :]
    value_base = value_ptr + key_set * value_set_stride + columns[None, :]
    for first in range(0, keys, BLOCK_K):
        key = first + tl.arange(0, BLOCK_K).to(tl.int64)
        kept = _kept_keys(ignored_ptr, key_set, key, keys)
        mask = kept[:, None] & has_column[None, :]
        k = tl.load(key_base + key[:, None] * key_row_stride, mask=mask, other=0.0)
        v = tl.load(value_base + key[:, None] * value_row_stride, mask=mask, other=0.0)
        scores = tl.dot(query, tl.trans(k), input_precision=PRECISION)
        scores = tl.where(kept[None, :], scores, float("-inf"))
        weights = tl.exp2((scores - maximum[:, None]) * SCALE) * weight[:, None]
        grad_weights = tl.dot(grad_out, tl.trans(v), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - delta[:, None])
        grad_query = tl.dot(grad_scores.to(k.dtype), k, grad_query, input_precision=PRECISION)
    tl.store(grad_query_ptr + place, grad_query * INVERSE_ROOT, mask=rows_mask)


@triton.jit
def narrow_key_bwd_kernel(
    grad_out_ptr,  # (B, T, heads * d)
    query_ptr,  # (B, T, heads * d)
    key_ptr,  # (G, K, heads * d)
    value_ptr,  # (G, K, heads * d)
    ignored_ptr,  # (G, K) uint8, 1 = ignore; or None
    out_ptr,  # (B, T, heads * d) contiguous
    maximum_ptr,  # (heads, B, T) contiguous
    total_ptr,  # (heads, B, T) contiguous
    grad_key_ptr,  # (chunks, G, K, heads * d) contiguous, written
    grad_value_ptr,  # (chunks, G, K, heads * d) contiguous, written
    grad_out_batch_stride,
    grad_out_row_stride,
    query_batch_stride,
    query_row_stride,
    key_set_stride,
    key_row_stride,
    value_set_stride,
    value_row_stride,
    tokens,
    all_rows,  # B * T
    rows,  # of one key set
    chunk_rows,  # a multiple of BLOCK_T
    keys,
    key_sets,
    heads,
    tiles,
    HEAD_SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALE: tl.constexpr,
    INVERSE_ROOT: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The part of one chunk of rows in the gradients of BLOCK_K keys of one head, and of their values."""
    tile, head, part = _locate(tiles, heads)
    key_set, chunk = part % key_sets, part // key_sets
    key = tile * BLOCK_K + tl.arange(0, BLOCK_K).to(tl.int64)
    kept = _kept_keys(ignored_ptr, key_set, key, keys)
    column = tl.arange(0, COLUMNS)
    has_column = column < HEAD_SIZE
    columns = head * HEAD_SIZE + column
    # Tiles are (rows, keys): the keys lie on neighbouring threads, and sums over rows stay within a thread.
    mask = has_column[:, None] & kept[None, :]
    key_offsets = key_set * key_set_stride + key * key_row_stride
    k = tl.load(key_ptr + key_offsets[None, :] + columns[:, None], mask=mask, other=0.0).to(tl.float32)
    value_offsets = key_set * value_set_stride + key * value_row_stride
    v = tl.load(value_ptr + value_offsets[None, :] + columns[:, None], mask=mask, other=0.0).to(tl.float32)
    grad_key = tl.zeros((COLUMNS, BLOCK_K), tl.float32)
    grad_value = tl.zeros((COLUMNS, BLOCK_K), tl.float32)
    begin = (chunk * chunk_rows).to(tl.int32)
    for first in range(begin, tl.minimum(begin + chunk_rows, rows), BLOCK_T):
        local = first + tl.arange(0, BLOCK_T)
        inside = local < rows
        row = (key_set * rows).to(tl.int32) + local
        rows_mask = inside[:, None] & has_column[None, :]
        offsets = _row_offsets(row, tokens, query_batch_stride, query_row_stride)
        query = tl.load(query_ptr + offsets[:, None] + columns[None, :], mask=rows_mask, other=0.0).to(tl.float32)
        offsets = _row_offsets(row, tokens, grad_out_batch_stride, grad_out_row_stride)
        # A row past the end has no gradient: whatever its weights, it adds nothing.
        grad_out = tl.load(grad_out_ptr + offsets[:, None] + columns[None, :], mask=rows_mask, other=0.0)
        grad_out = grad_out.to(tl.float32)
        place = row[:, None].to(tl.int64) * (heads * HEAD_SIZE) + columns[None, :]
        out = tl.load(out_ptr + place, mask=rows_mask, other=0.0)
        maximum = tl.load(maximum_ptr + head * all_rows + row, mask=inside, other=0.0)
        weight = 1.0 / tl.load(total_ptr + head * all_rows + row, mask=inside, other=1.0)
        delta = tl.sum(grad_out.to(tl.float32) * out.to(tl.float32), axis=1)
        weights = tl.exp2((_inner(query, k) - maximum[:, None]) * SCALE) * weight[:, None]
        grad_value += _weighted(weights, grad_out)
        grad_key += _weighted(weights * (_inner(grad_out, v) - delta[:, None]), query)
    place = (part * keys + key)[None, :] * (heads * HEAD_SIZE) + columns[:, None]
    written = has_column[:, None] & (key < keys)[None, :]
    tl.store(grad_key_ptr + place, tl.where(mask, grad_key * INVERSE_ROOT, 0.0), mask=written)
    tl.store(grad_value_ptr + place, tl.where(mask, grad_value, 0.0), mask=written)


@triton.jit
def wide_key_bwd_kernel(
    grad_out_ptr,  # (B, T, heads * d)
    query_ptr,  # (B, T, heads * d)
    key_ptr,  # (G, K, heads * d)
    value_ptr,  # (G, K, heads * d)
    ignored_ptr,  # (G, K) uint8, 1 = ignore; or None
    out_ptr,  # (B, T, heads * d) contiguous
    maximum_ptr,  # (heads, B, T) contiguous
    total_ptr,  # (heads, B, T) contiguous
    grad_key_ptr,  # (chunks, G, K, heads * d) contiguous, written
    grad_value_ptr,  # (chunks, G, K, heads * d) contiguous, written
    grad_out_batch_stride,
    grad_out_row_stride,
    query_batch_stride,
    query_row_stride,
    key_set_stride,
    key_row_stride,
    value_set_stride,
    value_row_stride,
    tokens,
    all_rows,  # B * T
    rows,  # of one key set
    chunk_rows,  # a multiple of BLOCK_T
    keys,
    key_sets,
    heads,
    tiles,
    HEAD_SIZE: tl.constexpr,
    COLUMNS: tl.constexpr,
    SCALE: tl.constexpr,
    INVERSE_ROOT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The part of one chunk of rows in the gradients of BLOCK_K keys of one head, and of their values."""
    tile, head, part = _locate(tiles, heads)
    key_set, chunk = part % key_sets, part // key_sets
    key = tile * BLOCK_K + tl.arange(0, BLOCK_K).to(tl.int64)
    kept = _kept_keys(ignored_ptr, key_set, key, keys)
    column = tl.arange(0, COLUMNS)
    has_column = column < HEAD_SIZE
    columns = head * HEAD_SIZE + column
    mask = kept[:, None] & has_column[None, :]
    key_offsets = key_set * key_set_stride + key * key_row_stride
    k = tl.load(key_ptr + key_offsets[:, None] + columns[None, :], mask=mask, other=0.0)
    value_offsets = key_set * value_set_stride + key * value_row_stride
    v = tl.load(value_ptr + value_offsets[:, None] + columns[None, :], mask=mask, other=0.0)
    grad_key = tl.zeros((BLOCK_K, COLUMNS), tl.float32)
    grad_value = tl.zeros((BLOCK_K, COLUMNS), tl.float32)
    begin = (chunk * chunk_rows).to(tl.int32)
    for first in range(begin, tl.minimum(begin + chunk_rows, rows), BLOCK_T):
        local = first + tl.arange(0, BLOCK_T)
        inside = local < rows
        row = (key_set * rows).to(tl.int32) + local
        rows_mask = inside[:, None] & has_column[None, :]
        offsets = _row_offsets(row, tokens, query_batch_stride, query_row_stride)
        query = tl.load(query_ptr + offsets[:, None] + columns[None, :], mask=rows_mask, other=0.0)
        offsets = _row_offsets(row, tokens, grad_out_batch_stride, grad_out_row_stride)
        # A row past the end has no gradient: whatever its weights, it adds nothing.
        grad_out = tl.load(grad_out_ptr + offsets[:, None] + columns[None, :], mask=rows_mask, other=0.0)
        place = row[:, None].to(tl.int64) * (heads * HEAD_SIZE) + columns[None, :]
        out = tl.load(out_ptr + place, mask=rows_mask, other=0.0)
        maximum = tl.load(maximum_ptr + head * all_rows + row, mask=inside, other=0.0)
        weight = 1.0 / tl.load(total_ptr + head * all_rows + row, mask=inside, other=1.0)
        delta = tl.sum(grad_out.to(tl.float32) * out.to(tl.float32), axis=1)
        scores = tl.dot(k, tl.trans(query), input_precision=PRECISION)  # (BLOCK_K, BLOCK_T)
        weights = tl.exp2((scores - maximum[None, :]) * SCALE) * weight[None, :]
        grad_value = tl.dot(weights.to(v.dtype), grad_out, grad_value, input_precision=PRECISION)
        grad_weights = tl.dot(v, tl.trans(grad_out), input_precision=PRECISION)
        grad_scores = weights * (grad_weights - delta[None, :])
        grad_key = tl.dot(grad_scores.to(k.dtype), query, grad_key, input_precision=PRECISION)
    place = (part * keys + key)[:, None] * (heads * HEAD_SIZE) + columns[None, :]
    written = (key < keys)[:, None] & has_column[None, :]
    tl.store(grad_key_ptr + place, tl.where(mask, grad_key * INVERSE_ROOT, 0.0), mask=written)
    tl.store(grad_value_ptr + place, tl.where(mask, grad_value, 0.0), mask=written)


@triton.jit
def add_chunks_bwd_kernel(
    key_parts_ptr,  # (chunks, size)
    value_parts_ptr,  # (chunks, size)
    grad_key_ptr,  # (size), written
    grad_value_ptr,  # (size), written
    chunks,
    size,
    BLOCK: tl.constexpr,
):
    """Sums over the chunks, in order."""
    index = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = index < size
    grad_key = tl.zeros((BLOCK,), tl.float32)
    grad_value = tl.zeros((BLOCK,), tl.float32)
    for _ in range(chunks):
        grad_key += tl.load(key_parts_ptr + index, mask=mask, other=0.0)
        grad_value += tl.load(value_parts_ptr + index, mask=mask, other=0.0)
        key_parts_ptr += size
        value_parts_ptr += size
    tl.store(grad_key_ptr + index, grad_key, mask=mask)
    tl.store(grad_value_ptr + index, grad_value, mask=mask)


def is_narrow(head_size: int) -> bool:
    """Whether heads are too narrow for tensor cores."""
    return head_size <= NARROW_HEAD


def padded_columns(head_size: int) -> int:
    """Columns of a tile: a power of two, and what tl.dot needs at least."""
    return triton.next_power_of_2(head_size) if is_narrow(head_size) else max(16, triton.next_power_of_2(head_size))


def row_tiling(dtype: torch.dtype, head_size: int, *, backward: bool) -> Tiling:
    """For the kernels whose programs own rows of queries and walk the keys."""
    if is_narrow(head_size):  # a second stage has nothing to fetch ahead, and spills on sm_80
        return Tiling(256, 8 if backward and head_size > 4 else 16, 4, 1)
    if dtype == torch.float32:
        return Tiling(FLOAT32_ROWS, 64 if head_size <= 64 else 32, 8, 2)
    return Tiling(64, 64, 4 if head_size <= 32 else 8, 2) if backward or head_size > 64 else Tiling(128, 64, 8, 2)


def key_tiling(dtype: torch.dtype, head_size: int) -> Tiling:
    """For the kernels whose programs own keys and walk the rows of queries."""
    if is_narrow(head_size):
        return Tiling(8 if head_size <= 4 else 4, 128, 4, 2)
    if dtype == torch.float32:
        return Tiling(32 if head_size <= 32 else 16, FLOAT32_ROWS, 8, 2)
    return Tiling(32, 64, 4 if head_size <= 32 else 8, 2)


def constants(head_size: int, *, backward: bool) -> dict[str, int | float | str]:
    """The compile-time arguments that only the head size decides."""
    root = math.sqrt(head_size)
    found: dict[str, int | float | str] = {
        "HEAD_SIZE": head_size,
        "COLUMNS": padded_columns(head_size),
        "SCALE": math.log2(math.e) / root,
    }
    if backward:
        found["INVERSE_ROOT"] = 1 / root
    if not is_narrow(head_size):
        found["PRECISION"] = FLOAT32_PRECISION
    return found


def options(tiling: Tiling) -> dict[str, int]:
    """The launch options of a tiling."""
    # Triton 3.10 turns the fusing of a * b + c off where nothing is said.
    return {"num_warps": tiling.num_warps, "num_stages": tiling.num_stages, "enable_fp_fusion": True}


def blocks(tiling: Tiling) -> dict[str, int]:
    """The compile-time arguments of a tiling."""
    return {"BLOCK_T": tiling.block_t, "BLOCK_K": tiling.block_k}


def query_chunks(query: Tensor, key: Tensor, heads: int, block_k: int) -> int:
    """Into how many chunks the rows of a key set are divided for the gradients of its keys."""
    key_sets, keys, _ = key.shape
    rows = query.shape[0] * query.shape[1]
    programs = triton.cdiv(keys, block_k) * key_sets * heads
    # query, out and their gradients, maximum and total; key, value and their gradients.
    passed = 4 * (query.numel() + key.numel()) * query.element_size() + 8 * heads * rows
    affordable = int(MEMORY_SHARE * passed) // (2 * 4 * key.numel())
    return max(1, min(KEY_GRADIENT_PROGRAMS // programs, rows // key_sets // SHORTEST_CHUNK, affordable))


def _ignored(key_mask: Tensor | None) -> Tensor | None:
    """(G, K) uint8, 1 for a key that is left out; a set whose keys are all masked leaves out none."""
    if key_mask is None:
        return None
    return (key_mask & ~key_mask.all(1, keepdim=True)).view(torch.uint8)


def _outer_strides(*tensors: Tensor) -> list[int]:
    return [stride for tensor in tensors for stride in tensor.stride()[:2]]


def codebook_attention(
    query: Tensor, key: Tensor, value: Tensor, key_mask: Tensor | None, heads: int, statistics: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """softmax(Q K^T / sqrt(d)) V per head.

    Args:
        query: (B, T, heads * d), d at most 128; float32, float16 or bfloat16, adjacent columns.
        key: (G, K, heads * d), K >= 1, G = 1 or B; as query.
        value: (G, K, heads * d), as query.
        key_mask: (G, K) bool, contiguous, True = ignore; or None.
        heads: number of heads.
        statistics: whether maximum and total are wanted, for a backward pass.

    Returns:
        out (B, T, heads * d) in query's dtype, and in float32 maximum and total, (heads, B, T) or empty.
    """
    batch, tokens, width = query.shape
    key_sets, keys, _ = key.shape
    head_size, all_rows = width // heads, batch * tokens
    out = torch.empty_like(query, memory_format=torch.contiguous_format)
    maximum = query.new_empty((heads if statistics else 0, batch, tokens), dtype=torch.float32)
    total = torch.empty_like(maximum)
    if all_rows == 0:
        return out, maximum, total
    rows = all_rows // key_sets
    tiling = row_tiling(query.dtype, head_size, backward=False)
    tiles = triton.cdiv(rows, tiling.block_t)
    kernel = narrow_fwd_kernel if is_narrow(head_size) else wide_fwd_kernel
    with torch.cuda.device_of(query):
        kernel[(tiles * heads * key_sets,)](
            query, key, value, _ignored(key_mask), out, *((maximum, total) if statistics else (None, None)),
            *_outer_strides(query, key, value),
            tokens, all_rows, rows, keys, heads, tiles,
            **constants(head_size, backward=False), **blocks(tiling), **options(tiling),
        )  # fmt: skip
    return out, maximum, total


def codebook_attention_backward(
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
    """Gradients of query, key and value, in their dtype and contiguous; deterministic.

    Args as for codebook_attention, its results, and grad_out (B, T, heads * d) with adjacent columns.
    """
    batch, tokens, width = query.shape
    key_sets, keys, _ = key.shape
    head_size, all_rows = width // heads, batch * tokens
    grad_query = torch.empty_like(query, memory_format=torch.contiguous_format)
    if all_rows == 0:
        return grad_query, key.new_zeros(key.shape), value.new_zeros(value.shape)
    grad_key, grad_value = key.new_empty(key.shape), value.new_empty(value.shape)
    rows = all_rows // key_sets
    ignored = _ignored(key_mask)
    strides = _outer_strides(grad_out, query, key, value)
    narrow = is_narrow(head_size)
    with torch.cuda.device_of(query):
        tiling = row_tiling(query.dtype, head_size, backward=True)
        tiles = triton.cdiv(rows, tiling.block_t)
        kernel = narrow_query_bwd_kernel if narrow else wide_query_bwd_kernel
        kernel[(tiles * heads * key_sets,)](
            grad_out, query, key, value, ignored, out, maximum, total, grad_query, *strides,
            tokens, all_rows, rows, keys, heads, tiles,
            **constants(head_size, backward=True), **blocks(tiling), **options(tiling),
        )  # fmt: skip

        tiling = key_tiling(query.dtype, head_size)
        tiles = triton.cdiv(keys, tiling.block_k)
        chunks = query_chunks(query, key, heads, tiling.block_k)
        chunk_rows = triton.cdiv(triton.cdiv(rows, chunks), tiling.block_t) * tiling.block_t
        key_parts, value_parts = grad_key, grad_value
        if chunks > 1:
            key_parts, value_parts = key.new_empty((2, chunks, *key.shape), dtype=torch.float32).unbind()
        kernel = narrow_key_bwd_kernel if narrow else wide_key_bwd_kernel
        kernel[(tiles * heads * key_sets * chunks,)](
            grad_out, query, key, value, ignored, out, maximum, total, key_parts, value_parts, *strides,
            tokens, all_rows, rows, chunk_rows, keys, key_sets, heads, tiles,
            **constants(head_size, backward=True), **blocks(tiling), **options(tiling),
        )  # fmt: skip
        if chunks > 1:
            size, block = grad_key.numel(), 256
            add_chunks_bwd_kernel[(triton.cdiv(size, block),)](
                key_parts, value_parts, grad_key, grad_value, chunks, size, BLOCK=block, num_warps=4
            )
    return grad_query, grad_key, grad_value
