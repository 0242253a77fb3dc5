"""Nearest codes and vector quantisation: the search, what is made of the winners, and the gradients.

The search is a matrix product whose result stays in registers. The order of |e|^2 - 2 z.e is that of its half with the
sign turned, z.e - |e|^2 / 2, which is what the accumulators hold when they start from -|e|^2 / 2; the largest wins.
Where float32 leaves open which is the largest, float64 decides.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor


@triton.jit
def code_norms_kernel(
    codebook,  # (K, D)
    half_norms,  # (K,) float32: |e|^2 / 2
    counts,  # (K,) int64, set to 0; unused unless QUANTIZE
    K,
    D,
    codebook_stride_k,
    codebook_stride_d,
    QUANTIZE: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Half the squared lengths of the codes."""
    codes = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    rows = codebook + codes.to(tl.int64)[:, None] * codebook_stride_k
    total = tl.zeros((BLOCK_K,), tl.float32)
    for start in range(0, D, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        mask = (codes < K)[:, None] & (columns < D)[None, :]
        e = tl.load(rows + columns.to(tl.int64)[None, :] * codebook_stride_d, mask=mask, other=0.0).to(tl.float32)
        total += tl.sum(e * e, axis=1)
    tl.store(half_norms + codes, 0.5 * total, mask=codes < K)
    if QUANTIZE:
        tl.store(counts + codes, tl.zeros((BLOCK_K,), tl.int64), mask=codes < K)


@triton.jit
def _load_tile(rows, columns, stride_d, row_mask, D, WIDEN: tl.constexpr):
    """A tile (R, C): rows (R, 1) point to the starts of rows, columns is (C,); in float32 where WIDEN."""
    tile = tl.load(
        rows + columns.to(tl.int64)[None, :] * stride_d, mask=row_mask[:, None] & (columns < D)[None, :], other=0.0
    )
    if WIDEN:
        tile = tile.to(tl.float32)
    return tile


@triton.jit
def nearest_code_fwd_kernel(
    z,  # (N, D)
    codebook,  # (K, D)
    half_norms,  # (K,) float32
    indices,  # (N,) int64: of the nearest codes, -1 where float32 leaves open which it is
    N,
    K,
    D,
    z_stride_n,
    z_stride_d,
    codebook_stride_k,
    codebook_stride_d,
    doubt,  # what `doubt` gives
    WHOLE: tl.constexpr,  # BLOCK_D >= D: the rows are loaded once
    WIDEN: tl.constexpr,  # multiply in float32
    PRECISION: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A program searches all codes for BLOCK_N rows."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_mask = rows < N
    lanes = tl.arange(0, BLOCK_K)
    columns = tl.arange(0, BLOCK_D)
    z_rows = z + rows[:, None] * z_stride_n
    # What each lane has seen: the best and the second best of its codes, and the first code of the best one's tile.
    best = tl.full((BLOCK_N, BLOCK_K), float("-inf"), tl.float32)
    second = best
    best_tile = tl.zeros((BLOCK_N, BLOCK_K), tl.int32)
    longest = tl.zeros((BLOCK_K,), tl.float32)  # half the squared length
    if WHOLE:
        z_tile = _load_tile(z_rows, columns, z_stride_d, row_mask, D, WIDEN)
    for first in range(0, K, BLOCK_K):
        code_mask = first + lanes < K
        e_rows = codebook + (first + lanes).to(tl.int64)[:, None] * codebook_stride_k
        # What fills up the last tile is never nearer than anything.
        half_norm = tl.load(half_norms + first + lanes, mask=code_mask, other=float("inf"))
        longest = tl.maximum(longest, tl.where(code_mask, half_norm, 0.0))
        score = tl.broadcast_to(-half_norm[None, :], (BLOCK_N, BLOCK_K))
        if WHOLE:
            e_tile = _load_tile(e_rows, columns, codebook_stride_d, code_mask, D, WIDEN)
            score = tl.dot(z_tile, tl.trans(e_tile), score, input_precision=PRECISION)
        else:
            for start in range(0, D, BLOCK_D):
                z_tile = _load_tile(z_rows, start + columns, z_stride_d, row_mask, D, WIDEN)
                e_tile = _load_tile(e_rows, start + columns, codebook_stride_d, code_mask, D, WIDEN)
                score = tl.dot(z_tile, tl.trans(e_tile), score, input_precision=PRECISION)
        # Tiles come in ascending order, so that strictly better keeps the smallest index of equals. A NaN is not.
        better = score > best
        second = tl.maximum(second, tl.where(better, best, score))
        best = tl.where(better, score, best)
        best_tile = tl.where(better, first, best_tile)
    top = tl.max(best, axis=1)
    index = tl.min(tl.where(best == top[:, None], best_tile + lanes[None, :], 2147483647), axis=1)
    others = tl.where(best_tile + lanes[None, :] == index[:, None], second, best)
    gap = top - tl.max(others, axis=1)
    squared_length = tl.zeros((BLOCK_N,), tl.float32)
    for start in range(0, D, BLOCK_D):
        row = _load_tile(z_rows, start + columns, z_stride_d, row_mask, D, True)
        squared_length += tl.sum(row * row, axis=1)
    z_length = tl.sqrt(squared_length) + 2.0**-40
    e_length = tl.sqrt(2.0 * tl.max(longest, axis=0)) + 2.0**-40
    # An infinity or a NaN leaves the order open.
    decided = gap > doubt * e_length * (z_length + 0.5 * e_length)
    tl.store(indices + rows, tl.where(decided, index, -1).to(tl.int64), mask=row_mask)


@triton.jit
def _search_in_float64(
    z_row,  # pointer to the first of D
    codebook,  # (K, D)
    K,
    D,
    z_stride_d,
    codebook_stride_k,
    codebook_stride_d,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The nearest code of one row."""
    lanes = tl.arange(0, BLOCK_K)
    columns = tl.arange(0, BLOCK_D).to(tl.int64)
    best = tl.full((BLOCK_K,), float("inf"), tl.float64)
    best_tile = tl.zeros((BLOCK_K,), tl.int32)
    for first in range(0, K, BLOCK_K):
        code_mask = first + lanes < K
        e_rows = codebook + (first + lanes).to(tl.int64)[:, None] * codebook_stride_k
        score = tl.zeros((BLOCK_K,), tl.float64)
        for start in range(0, D, BLOCK_D):
            row = tl.load(z_row + (start + columns) * z_stride_d, mask=start + columns < D, other=0.0).to(tl.float64)
            e = _load_tile(e_rows, start + columns, codebook_stride_d, code_mask, D, False).to(tl.float64)
            score += tl.sum(e * (e - 2 * row[None, :]), axis=1)
        better = code_mask & (score < best)
        best = tl.where(better, score, best)
        best_tile = tl.where(better, first, best_tile)
    return tl.min(tl.where(best == tl.min(best, axis=0), best_tile + lanes, 2147483647), axis=0)


@triton.jit
def nearest_code_winners_kernel(
    z,  # (N, D)
    codebook,  # (K, D)
    indices,  # (N,) int64, negative where the row is to be searched again
    distances,  # (N,) float32; unused where QUANTIZE
    codes,  # (N, D) contiguous; this and the rest unused unless QUANTIZE
    partials,  # (programs,) float32: each program's sum of distances
    counts,  # (K,) int64
    N,
    K,
    D,
    z_stride_n,
    z_stride_d,
    codebook_stride_k,
    codebook_stride_d,
    QUANTIZE: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A program settles in float64 what of BLOCK_N rows is open, and reads their winners."""
    program = tl.program_id(0)
    places = tl.arange(0, BLOCK_N)
    rows = program.to(tl.int64) * BLOCK_N + places
    row_mask = rows < N
    columns = tl.arange(0, BLOCK_D)
    z_rows = z + rows[:, None] * z_stride_n
    index = tl.load(indices + rows, mask=row_mask, other=0)
    while tl.min(index, axis=0) < 0:
        place = tl.argmin(index, axis=0)
        z_row = z + (program.to(tl.int64) * BLOCK_N + place) * z_stride_n
        found = _search_in_float64(
            z_row, codebook, K, D, z_stride_d, codebook_stride_k, codebook_stride_d, BLOCK_K, BLOCK_D
        )
        index = tl.where(places == place, found.to(tl.int64), index)
    tl.store(indices + rows, index, mask=row_mask)

    distance = tl.zeros((BLOCK_N,), tl.float32)
    chosen_rows = codebook + index[:, None] * codebook_stride_k
    for start in range(0, D, BLOCK_D):
        row = _load_tile(z_rows, start + columns, z_stride_d, row_mask, D, True)
        chosen = _load_tile(chosen_rows, start + columns, codebook_stride_d, row_mask, D, True)
        difference = row - chosen
        distance += tl.sum(difference * difference, axis=1)
        if QUANTIZE:
            mask = row_mask[:, None] & (start + columns < D)[None, :]
            out = codes + rows[:, None] * D + (start + columns)[None, :]
            tl.store(out, chosen.to(codes.dtype.element_ty), mask=mask)
    if QUANTIZE:
        tl.store(partials + program, tl.sum(tl.where(row_mask, distance, 0.0), axis=0))
        tl.atomic_add(counts + index, tl.full((BLOCK_N,), 1, tl.int64), mask=row_mask, sem="relaxed")
    else:
        tl.store(distances + rows, distance, mask=row_mask)


@triton.jit
def quantization_loss_kernel(
    partials,  # (count,) float32
    loss,  # () float32
    count,
    numel,
    beta,
    BLOCK: tl.constexpr,
):
    """(1 + beta) * mean of the squared differences, summed in a fixed order."""
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, count, BLOCK):
        total += tl.load(partials + start + lanes, mask=start + lanes < count, other=0.0).to(tl.float64)
    # Both terms of the loss have the same value: they differ in where the gradient goes.
    mean = tl.sum(total, axis=0) / numel
    tl.store(loss, (mean + beta * mean).to(tl.float32))


@triton.jit
def nearest_code_bwd_rows_kernel(
    z,  # (N, D)
    codebook,  # (K, D)
    indices,  # (N,) int64
    weight,  # (N,) float32, or one value with stride 0
    grad_codes,  # (N, D) contiguous; unused unless CARRY
    grad_z,  # (N, D) contiguous: grad_codes + scale * weight * (z - code)
    N,
    D,
    z_stride_n,
    z_stride_d,
    codebook_stride_k,
    codebook_stride_d,
    weight_stride,
    scale,
    CARRY: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The gradient of the rows."""
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    row_mask = rows < N
    index = tl.load(indices + rows, mask=row_mask, other=0)
    factor = tl.load(weight + rows * weight_stride, mask=row_mask, other=0.0) * scale
    z_tile = _load_tile(z + rows[:, None] * z_stride_n, columns, z_stride_d, row_mask, D, True)
    chosen = _load_tile(codebook + index[:, None] * codebook_stride_k, columns, codebook_stride_d, row_mask, D, True)
    grad = factor[:, None] * (z_tile - chosen)
    offsets = rows[:, None] * D + columns[None, :]
    mask = row_mask[:, None] & (columns < D)[None, :]
    if CARRY:
        grad += tl.load(grad_codes + offsets, mask=mask, other=0.0).to(tl.float32)
    tl.store(grad_z + offsets, grad.to(grad_z.dtype.element_ty), mask=mask)


@triton.jit
def _pull_of_rows(
    code, begin, end, columns, order, z, weight, D, z_stride_n, z_stride_d, weight_stride, BLOCK_N: tl.constexpr
):
    """The sum of weight * (code - z) over the places [begin, end), all of rows of the one code (BLOCK_D,)."""
    total = tl.zeros_like(code)
    for start in range(begin, end, BLOCK_N):
        places = start + tl.arange(0, BLOCK_N)
        mask = places < end
        rows = tl.load(order + places, mask=mask, other=0)
        factor = tl.load(weight + rows * weight_stride, mask=mask, other=0.0)
        z_tile = _load_tile(z + rows[:, None] * z_stride_n, columns, z_stride_d, mask, D, True)
        pull = factor[:, None] * (code[None, :] - z_tile)
        total += tl.sum(tl.where(mask[:, None], pull, 0.0), axis=0)
    return total


@triton.jit
def nearest_code_bwd_chunks_kernel(
    z,  # (N, D)
    codebook,  # (K, D)
    sorted_codes,  # (N,) integer: the code of each row, ascending
    order,  # (N,) int64: the rows in that order, ascending within a code
    weight,  # (N,) float32, or one value with stride 0
    code_begin,  # (K,) int64, set where a code has rows: its first place in order
    code_end,  # (K,) int64, likewise: the place after its last
    partials,  # (chunks, D) float32: sums of those chunks of CHUNK places that belong to one code
    N,
    D,
    z_stride_n,
    z_stride_d,
    codebook_stride_k,
    codebook_stride_d,
    weight_stride,
    CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Where each code's rows begin and end, and the sums of the chunks that one code fills."""
    chunk = tl.program_id(0).to(tl.int64)
    begin = chunk * CHUNK
    if tl.program_id(1) == 0:
        places = begin + tl.arange(0, CHUNK)
        mask = places < N
        here = tl.load(sorted_codes + places, mask=mask, other=0).to(tl.int64)
        before = tl.load(sorted_codes + places - 1, mask=mask & (places > 0), other=-1).to(tl.int64)
        after = tl.load(sorted_codes + places + 1, mask=places + 1 < N, other=-1).to(tl.int64)
        tl.store(code_begin + here, places, mask=mask & (here != before))
        tl.store(code_end + here, places + 1, mask=mask & (here != after))
    if begin + CHUNK <= N:
        first = tl.load(sorted_codes + begin).to(tl.int64)
        if first == tl.load(sorted_codes + begin + CHUNK - 1).to(tl.int64):
            columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
            code = tl.load(
                codebook + first * codebook_stride_k + columns.to(tl.int64) * codebook_stride_d,
                mask=columns < D,
                other=0.0,
            ).to(tl.float32)
            total = _pull_of_rows(
                code, begin, begin + CHUNK, columns, order, z, weight, D, z_stride_n, z_stride_d, weight_stride, BLOCK_N
            )
            tl.store(partials + chunk * D + columns, total, mask=columns < D)


@triton.jit
def nearest_code_bwd_codes_kernel(
    z,  # (N, D)
    codebook,  # (K, D)
    order,  # (N,) int64
    weight,  # (N,) float32, or one value with stride 0
    code_begin,  # (K,) int64
    code_end,  # (K,) int64, equal to code_begin where a code has no rows
    partials,  # (chunks, D) float32
    grad_codebook,  # (K, D) contiguous: scale * sum over its rows of weight * (code - z)
    D,
    z_stride_n,
    z_stride_d,
    codebook_stride_k,
    codebook_stride_d,
    weight_stride,
    scale,
    CHUNK: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The gradient of one code: the sum over its rows, always in the same order."""
    k = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    code = tl.load(
        codebook + k * codebook_stride_k + columns.to(tl.int64) * codebook_stride_d, mask=columns < D, other=0.0
    ).to(tl.float32)
    begin = tl.load(code_begin + k)
    end = tl.load(code_end + k)
    # The rows before the first whole chunk of this code, those chunks, and the rows after them.
    first_chunk = (begin + CHUNK - 1) // CHUNK
    last_chunk = end // CHUNK
    head_end = tl.minimum(end, first_chunk * CHUNK)
    tail_begin = tl.maximum(head_end, last_chunk * CHUNK)
    total = _pull_of_rows(
        code, begin, head_end, columns, order, z, weight, D, z_stride_n, z_stride_d, weight_stride, BLOCK_N
    )
    for start in range(first_chunk, last_chunk, BLOCK_N):
        chunks = start + tl.arange(0, BLOCK_N)
        mask = (chunks < last_chunk)[:, None] & (columns < D)[None, :]
        total += tl.sum(tl.load(partials + chunks[:, None] * D + columns[None, :], mask=mask, other=0.0), axis=0)
    total += _pull_of_rows(
        code, tail_begin, end, columns, order, z, weight, D, z_stride_n, z_stride_d, weight_stride, BLOCK_N
    )
    grad = (scale * total).to(grad_codebook.dtype.element_ty)
    tl.store(grad_codebook + k * D + columns, grad, mask=columns < D)


# Sorted rows that are summed together where they all belong to one code.
CHUNK = 64


def doubt(D: int, z_dtype: torch.dtype, codebook_dtype: torch.dtype) -> float:
    """What times |e| (|z| + |e| / 2) two scores z.e - |e|^2 / 2 must be apart to be in the right order for certain.

    Twice the error of a score, with u = 2^-24. 3xTF32: 20 u |z| |e| for what the two parts of a number leave out;
    24 u for each of up to four steps of 8 columns that the tensor cores, which truncate to 24 bits of the largest
    addend, take before Triton adds in float32; u for each of those D / 16 additions. Products of two float16 or two
    bfloat16 are exact, but all their sums are the tensor cores': 40 u for each 16 columns. |e|^2 / 2: (D / 64 + 9) u.
    The rest is for products of errors, and for the lengths' own.
    """
    single = torch.float32 in (z_dtype, codebook_dtype) or z_dtype != codebook_dtype
    return 2.0**-23 * (0.15 * D + 125 if single else 2.6 * D + 60)


def search_config(D: int, z_dtype: torch.dtype, codebook_dtype: torch.dtype) -> dict[str, object]:
    """The compile-time choices of `nearest_code_fwd_kernel`, num_warps and num_stages among them."""
    config: dict[str, object] = {"WIDEN": z_dtype != codebook_dtype, "PRECISION": "tf32x3"}
    if D <= 32:
        block_d = 16 if D <= 16 else 32
        return config | {
            "WHOLE": True, "BLOCK_N": 64, "BLOCK_K": 32, "BLOCK_D": block_d, "num_warps": 4, "num_stages": 2
        }  # fmt: skip
    block_d = 32 if z_dtype == codebook_dtype != torch.float32 else 16
    return config | {
        "WHOLE": False, "BLOCK_N": 128, "BLOCK_K": 64, "BLOCK_D": block_d, "num_warps": 8, "num_stages": 3
    }  # fmt: skip


# Of `nearest_code_winners_kernel`: few rows a program, for to search one of them again takes long.
WINNERS_CONFIG = {"BLOCK_N": 32, "BLOCK_K": 64, "BLOCK_D": 32, "num_warps": 8}


def backward_config(D: int) -> dict[str, int]:
    """The compile-time choices of the three kernels of the backward pass."""
    block_d = min(max(triton.next_power_of_2(D), 16), 64)
    return {"BLOCK_N": 1024 // block_d, "BLOCK_D": block_d, "num_warps": 4}


def nearest_code(z: Tensor, codebook: Tensor) -> tuple[Tensor, Tensor]:
    """The search of (N, D) rows among (K, D) codes: indices (N,) int64, distances (N,) float32."""
    indices = z.new_empty(z.shape[0], dtype=torch.int64)
    distances = z.new_empty(z.shape[0], dtype=torch.float32)
    if z.shape[0] > 0:
        _search(z, codebook, indices, distances=distances)
    return indices, distances


def vector_quantize(z: Tensor, codebook: Tensor, beta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Codes (N, D) in z's dtype, loss () float32, indices (N,) int64 and counts (K,) int64."""
    (N, D), K = z.shape, codebook.shape[0]
    indices = z.new_empty(N, dtype=torch.int64)
    codes = z.new_empty(N, D)
    if N == 0:
        return codes, z.new_full((), torch.nan, dtype=torch.float32), indices, indices.new_zeros(K)
    loss = z.new_empty((), dtype=torch.float32)
    counts = z.new_empty(K, dtype=torch.int64)
    partials = _search(z, codebook, indices, codes=codes, counts=counts)
    with torch.cuda.device_of(z):
        quantization_loss_kernel[(1,)](partials, loss, partials.shape[0], N * D, beta, BLOCK=1024)
    return codes, loss, indices, counts


def _search(
    z: Tensor,
    codebook: Tensor,
    indices: Tensor,
    *,
    distances: Tensor | None = None,
    codes: Tensor | None = None,
    counts: Tensor | None = None,
) -> Tensor:
    (N, D), K = z.shape, codebook.shape[0]
    quantize = codes is not None
    search = search_config(D, z.dtype, codebook.dtype)
    programs = triton.cdiv(N, WINNERS_CONFIG["BLOCK_N"])
    half_norms = z.new_empty(K, dtype=torch.float32)
    partials = z.new_empty(programs if quantize else 0, dtype=torch.float32)
    sizes = N, K, D, *z.stride(), *codebook.stride()
    with torch.cuda.device_of(z):
        code_norms_kernel[(triton.cdiv(K, 16),)](
            codebook, half_norms, counts, K, D, *codebook.stride(), QUANTIZE=quantize, BLOCK_K=16, BLOCK_D=64
        )
        nearest_code_fwd_kernel[(triton.cdiv(N, search["BLOCK_N"]),)](
            z, codebook, half_norms, indices, *sizes, doubt(D, z.dtype, codebook.dtype), **search
        )
        nearest_code_winners_kernel[(programs,)](
            z, codebook, indices, distances, codes, partials, counts, *sizes, QUANTIZE=quantize, **WINNERS_CONFIG
        )
    return partials


def nearest_code_backward(
    grad_distances: Tensor, z: Tensor, codebook: Tensor, indices: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of z (N, D) and codebook (K, D) from that of the distances (N,) float32."""
    return _backward(None, grad_distances, z, codebook, indices, 2.0, 2.0)


def vector_quantize_backward(
    grad_codes: Tensor | None, grad_loss: Tensor, z: Tensor, codebook: Tensor, indices: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """Gradients of z (N, D) and codebook (K, D) from those of the codes (N, D), contiguous, and of the loss ()."""
    mean = 2.0 / max(z.numel(), 1)
    return _backward(grad_codes, grad_loss, z, codebook, indices, beta * mean, mean)


def _backward(
    grad_codes: Tensor | None,
    weight: Tensor,
    z: Tensor,
    codebook: Tensor,
    indices: Tensor,
    z_scale: float,
    code_scale: float,
) -> tuple[Tensor, Tensor]:
    (N, D), K = z.shape, codebook.shape[0]
    grad_z, grad_codebook = z.new_empty(N, D), codebook.new_empty(K, D)
    if N == 0:
        return grad_z, grad_codebook.zero_()
    config = backward_config(D)
    strides = (*z.stride(), *codebook.stride(), weight.stride(0) if weight.dim() == 1 else 0)
    # A radix sort takes a pass for each byte of its keys.
    keys = indices.to(torch.int16 if K <= 2**15 else torch.int32)
    sorted_codes, order = keys.sort(stable=True)
    code_begin, code_end = indices.new_zeros(2, K)
    chunks, slices = triton.cdiv(N, CHUNK), triton.cdiv(D, config["BLOCK_D"])
    partials = z.new_empty(chunks, D, dtype=torch.float32)
    with torch.cuda.device_of(z):
        nearest_code_bwd_rows_kernel[(triton.cdiv(N, config["BLOCK_N"]), slices)](
            z, codebook, indices, weight, grad_codes, grad_z, N, D, *strides, z_scale,
            CARRY=grad_codes is not None, **config,
        )  # fmt: skip
        nearest_code_bwd_chunks_kernel[(chunks, slices)](
            z, codebook, sorted_codes, order, weight, code_begin, code_end, partials, N, D, *strides,
            CHUNK=CHUNK, **config,
        )  # fmt: skip
        nearest_code_bwd_codes_kernel[(K, slices)](
            z, codebook, order, weight, code_begin, code_end, partials, grad_codebook, D, *strides, code_scale,
            CHUNK=CHUNK, **config,
        )  # fmt: skip
    return grad_z, grad_codebook
