"""Sums over the rows of each code, always in the same order and without atomics.

The rows of all heads are sorted by code. So that a code which takes most rows does not hold up the others, the sorted
rows are cut into chunks; those that one code fills are summed first, by programs of their own.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

# Sorted rows that are summed together where they all belong to one code.
CHUNK = 64


@triton.jit
def load_tile(rows, columns, stride_d, row_mask, D, WIDEN: tl.constexpr):
    """A tile (R, C): rows (R, 1) point to the starts of rows, columns is (C,); in float32 where WIDEN."""
    tile = tl.load(
        rows + columns.to(tl.int64)[None, :] * stride_d, mask=row_mask[:, None] & (columns < D)[None, :], other=0.0
    )
    if WIDEN:
        tile = tile.to(tl.float32)
    return tile


@triton.jit
def code_keys_kernel(
    indices,  # (H, N) int64, -1 where a row is ignored
    keys,  # (H, N) integer: the code among those of all heads, -1 where a row is ignored
    N,
    K,
    BLOCK: tl.constexpr,
):
    """The keys that the rows are sorted by."""
    head = tl.program_id(1).to(tl.int64)
    n = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    index = tl.load(indices + head * N + n, mask=n < N, other=-1)
    key = tl.where(index < 0, -1, head * K + index)
    tl.store(keys + head * N + n, key.to(keys.dtype.element_ty), mask=n < N)


@triton.jit
def _sum_of_places(
    begin,
    end,
    order,
    first_row,
    columns,
    z,
    rows,
    weight,
    D,
    z_stride_n,
    z_stride_d,
    rows_stride_n,
    rows_stride_d,
    weight_stride_n,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The sum over the places [begin, end) of order, all of rows of one code (BLOCK_D,).

    first_row is the number in order of the first row of the code's head, which z, rows and weight point to.
    """
    total = tl.zeros((BLOCK_D,), tl.float32)
    for start in range(begin, end, BLOCK_N):
        places = start + tl.arange(0, BLOCK_N)
        mask = places < end
        n = tl.load(order + places, mask=mask, other=0) - first_row
        tile = load_tile(z + n[:, None] * z_stride_n, columns, z_stride_d, mask, D, True)
        if rows is not None:
            factor = tl.load(weight + n * weight_stride_n, mask=mask, other=0.0)
            code = load_tile(rows + n[:, None] * rows_stride_n, columns, rows_stride_d, mask, D, True)
            tile = factor[:, None] * (code - tile)
        total += tl.sum(tl.where(mask[:, None], tile, 0.0), axis=0)
    return total


@triton.jit
def sum_chunks_kernel(
    z,  # (H, N, D)
    rows,  # (H, N, D), or None
    weight,  # (H, N) float32, or one value with strides 0; None where rows is
    keys,  # (H * N,) integer: the code of each row among those of all heads, ascending, after -1 for ignored rows
    order,  # (H * N,) int64: the rows in that order, ascending within a code
    code_begin,  # (H * K,) int64, set where a code has rows: its first place in order
    code_end,  # (H * K,) int64, likewise: the place after its last
    partials,  # (chunks, D) float32: sums of those chunks of CHUNK places that belong to one code
    count,  # H * N
    N,
    K,
    D,
    z_stride_h,
    z_stride_n,
    z_stride_d,
    rows_stride_h,
    rows_stride_n,
    rows_stride_d,
    weight_stride_h,
    weight_stride_n,
    CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The begin and end of each code's rows, and the sums of the chunks that one code fills."""
    chunk = tl.program_id(0).to(tl.int64)
    begin = chunk * CHUNK
    if tl.program_id(1) == 0:
        places = begin + tl.arange(0, CHUNK)
        here = tl.load(keys + places, mask=places < count, other=-1).to(tl.int64)
        before = tl.load(keys + places - 1, mask=(places > 0) & (places < count), other=-1).to(tl.int64)
        after = tl.load(keys + places + 1, mask=places + 1 < count, other=-1).to(tl.int64)
        tl.store(code_begin + here, places, mask=(here >= 0) & (here != before))
        tl.store(code_end + here, places + 1, mask=(here >= 0) & (here != after))
    if begin + CHUNK <= count:
        key = tl.load(keys + begin).to(tl.int64)
        if (key >= 0) & (key == tl.load(keys + begin + CHUNK - 1).to(tl.int64)):
            columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
            head = key // K
            z += head * z_stride_h
            if rows is not None:
                rows += head * rows_stride_h
                weight += head * weight_stride_h
            total = _sum_of_places(
                begin, begin + CHUNK, order, head * N, columns, z, rows, weight, D,
                z_stride_n, z_stride_d, rows_stride_n, rows_stride_d, weight_stride_n, BLOCK_N, BLOCK_D,
            )  # fmt: skip
            tl.store(partials + chunk * D + columns, total, mask=columns < D)


@triton.jit
def sum_codes_kernel(
    z,  # (H, N, D)
    rows,  # (H, N, D), or None
    weight,  # (H, N) float32, or one value with strides 0; None where rows is
    order,  # (H * N,) int64
    code_begin,  # (H * K,) int64
    code_end,  # (H * K,) int64, equal to code_begin where a code has no rows
    partials,  # (chunks, D) float32
    sums,  # (H, K, D) contiguous: scale * the sum over its rows of z, or of weight * (rows - z) where there are rows
    N,
    K,
    D,
    z_stride_h,
    z_stride_n,
    z_stride_d,
    rows_stride_h,
    rows_stride_n,
    rows_stride_d,
    weight_stride_h,
    weight_stride_n,
    scale,
    CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The sum of one code over its rows."""
    key = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    head = key // K
    z += head * z_stride_h
    if rows is not None:
        rows += head * rows_stride_h
        weight += head * weight_stride_h
    begin = tl.load(code_begin + key)
    end = tl.load(code_end + key)
    # The rows before the first whole chunk of this code, those chunks, and the rows after them.
    first_chunk = (begin + CHUNK - 1) // CHUNK
    last_chunk = end // CHUNK
    head_end = tl.minimum(end, first_chunk * CHUNK)
    tail_begin = tl.maximum(head_end, last_chunk * CHUNK)
    total = _sum_of_places(
        begin, head_end, order, head * N, columns, z, rows, weight, D,
        z_stride_n, z_stride_d, rows_stride_n, rows_stride_d, weight_stride_n, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    for start in range(first_chunk, last_chunk, BLOCK_N):
        chunks = start + tl.arange(0, BLOCK_N)
        mask = (chunks < last_chunk)[:, None] & (columns < D)[None, :]
        total += tl.sum(tl.load(partials + chunks[:, None] * D + columns[None, :], mask=mask, other=0.0), axis=0)
    total += _sum_of_places(
        tail_begin, end, order, head * N, columns, z, rows, weight, D,
        z_stride_n, z_stride_d, rows_stride_n, rows_stride_d, weight_stride_n, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    tl.store(sums + key * D + columns, (scale * total).to(sums.dtype.element_ty), mask=columns < D)


def backward_config(D: int) -> dict[str, int]:
    """The compile-time choices of the kernels that sum rows, and of that of the rows' gradient."""
    block_d = min(max(triton.next_power_of_2(D), 16), 64)
    return {"BLOCK_N": 1024 // block_d, "BLOCK_D": block_d, "num_warps": 4}


def strides(tensor: Tensor, dims: int) -> tuple[int, ...]:
    """The strides of a tensor for `dims` dimensions: 0 for the leading ones that it lacks."""
    return (0,) * (dims - tensor.dim()) + tensor.stride()


def sum_by_code(
    z: Tensor, rows: Tensor | None, weight: Tensor | None, indices: Tensor, sums: Tensor, scale: float
) -> None:
    """Sums over the rows of each code into sums (..., K, D): scale * z, or scale * weight * (rows - z).

    Args:
        z: (..., N, D), N > 0.
        rows: (..., N, D), or None.
        weight: (..., N) float32 or (); None where rows is.
        indices: (..., N) int64 contiguous; a row of index -1 is left out.
        sums: (..., K, D) contiguous.
        scale: a factor of the sums.
    """
    (N, D), K = z.shape[-2:], sums.shape[-2]
    count, all_codes = indices.numel(), sums.numel() // D
    config = backward_config(D)
    # A radix sort takes a pass for each byte of its keys.
    keys = indices.new_empty(count, dtype=torch.int16 if all_codes <= 2**15 else torch.int32)
    with torch.cuda.device_of(z):
        code_keys_kernel[(triton.cdiv(N, 1024), count // N)](indices, keys, N, K, BLOCK=1024)
    keys, order = keys.sort(stable=True)
    code_begin, code_end = indices.new_zeros(2, all_codes)
    chunks, slices = triton.cdiv(count, CHUNK), triton.cdiv(D, config["BLOCK_D"])
    partials = z.new_empty(chunks, D, dtype=torch.float32)
    sizes = N, K, D, *strides(z, 3)
    if rows is None or weight is None:
        sizes = *sizes, 0, 0, 0, 0, 0
    else:
        sizes = *sizes, *strides(rows, 3), *strides(weight, 2)
    with torch.cuda.device_of(z):
        sum_chunks_kernel[(chunks, slices)](
            z, rows, weight, keys, order, code_begin, code_end, partials, count, *sizes, CHUNK=CHUNK, **config
        )
        sum_codes_kernel[(all_codes, slices)](
            z, rows, weight, order, code_begin, code_end, partials, sums, *sizes, scale, CHUNK=CHUNK, **config
        )
