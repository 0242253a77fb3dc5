"""Nearest codes and vector quantisation: the search, what is made of the winners, and the gradients.

The search is a matrix product whose result stays in registers. The order of |e|^2 - 2 z.e is that of its half with the
sign turned, z.e - |e|^2 / 2, which is what the accumulators hold when they start from -|e|^2 / 2; the largest wins.
Where float32 leaves open which is the largest, float64 decides.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

from cbtalk.kernels.nearest_code_sums import backward_config, load_tile, strides, sum_by_code


@triton.jit
def _hash(elements, columns):
    """Mixes float32 elements with their columns (MurmurHash3's last step); equal numbers, 0 and -0 too, mix alike."""
    bits = (elements + 0.0).to(tl.uint32, bitcast=True) ^ (columns.to(tl.uint32) * 0x9E3779B9)
    bits = (bits ^ (bits >> 16)) * 0x85EBCA6B
    bits = (bits ^ (bits >> 13)) * 0xC2B2AE35
    return bits ^ (bits >> 16)


@triton.jit
def _meet_in_table(table, slots, hashes, codes, active):
    """Enters codes into a hash table, which keeps the first code of each hash.

    Of two hashes that meet in a slot the larger stays and the other goes on to the next slot. So the table depends on
    what is entered alone, not on the order, and the codes of one hash meet in one slot.

    Returns:
        first, later: two codes of one hash that have met; -1 for a lane that saw no such meeting.
    """
    last_code = 0x7FFFFFFF
    entry = (hashes.to(tl.int64) << 32) | (last_code - codes).to(tl.int64)
    slot = hashes.to(tl.int64) & (slots - 1)
    first = tl.full(codes.shape, -1, tl.int64)
    later = first
    while tl.max(active.to(tl.int32), axis=0) > 0:
        found = tl.atomic_max(table + slot, entry, mask=active, sem="relaxed")
        active = active & (found != 0)
        meets = active & (found >> 32 == entry >> 32)
        first = tl.where(meets, last_code - (tl.maximum(found, entry) & last_code), first)
        later = tl.where(meets, last_code - (tl.minimum(found, entry) & last_code), later)
        active = active & (found >> 32 != entry >> 32)
        entry = tl.where(active, tl.minimum(found, entry), entry)
        slot = (slot + 1) & (slots - 1)
    return first, later


@triton.jit
def code_norms_kernel(
    codebook,  # (H, K, D)
    table,  # (H, slots) int64, zeros: a hash table
    half_norms,  # (H, K) int32, zeros: the bits of |e|^2 / 2 in float32, of a NaN for a code that equals an earlier one
    counts,  # (H, K) int64, set to 0; or None
    K,
    D,
    slots,  # a power of two, at least 2 K
    codebook_stride_h,
    codebook_stride_k,
    codebook_stride_d,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """Half the squared lengths of the codes, and which of them cannot win, for an earlier code is the same.

    Codes that tie with their copies would have every row between them searched again.
    """
    head = tl.program_id(1).to(tl.int64)
    codes = tl.program_id(0) * BLOCK_K + tl.arange(0, BLOCK_K)
    mask = codes < K
    codebook += head * codebook_stride_h
    half_norms += head * K
    code_rows = codebook + codes.to(tl.int64)[:, None] * codebook_stride_k
    total = tl.zeros((BLOCK_K,), tl.float32)
    hashes = tl.zeros((BLOCK_K,), tl.uint32)
    for start in range(0, D, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        e = load_tile(code_rows, columns, codebook_stride_d, mask, D, True)
        total += tl.sum(e * e, axis=1)
        hashes += tl.sum(tl.where((columns < D)[None, :], _hash(e, columns[None, :]), 0), axis=1)
    not_a_number = 0x7FC00000
    # The bits of floats that are not negative have their order, and those of a NaN come last: no matter who is first.
    bits = tl.where(total == total, (0.5 * total).to(tl.int32, bitcast=True), not_a_number)
    tl.atomic_max(half_norms + codes, bits, mask=mask, sem="relaxed")
    if counts is not None:
        tl.store(counts + head * K + codes, tl.zeros((BLOCK_K,), tl.int64), mask=mask)

    first, later = _meet_in_table(table + head * slots, slots, hashes & 0x7FFFFFFF, codes, mask)
    met = later >= 0
    if tl.max(later, axis=0) >= 0:
        differences = tl.zeros((BLOCK_K,), tl.int32)
        for start in range(0, D, BLOCK_D):
            columns = start + tl.arange(0, BLOCK_D)
            one = load_tile(codebook + first[:, None] * codebook_stride_k, columns, codebook_stride_d, met, D, True)
            other = load_tile(codebook + later[:, None] * codebook_stride_k, columns, codebook_stride_d, met, D, True)
            differences += tl.sum((one != other).to(tl.int32), axis=1)
        same = met & (differences == 0)
        tl.atomic_max(half_norms + later, tl.full((BLOCK_K,), not_a_number, tl.int32), mask=same, sem="relaxed")


@triton.jit
def nearest_code_fwd_kernel(
    z,  # (H, N, D)
    codebook,  # (H, K, D)
    half_norms,  # (H, K) float32, NaN for a code that is not to win
    indices,  # (H, N) int64: of the nearest codes, -1 where float32 leaves open which it is
    N,
    K,
    D,
    z_stride_h,
    z_stride_n,
    z_stride_d,
    codebook_stride_h,
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
    head = tl.program_id(1).to(tl.int64)
    z += head * z_stride_h
    codebook += head * codebook_stride_h
    half_norms += head * K
    rows = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    row_mask = rows < N
    lanes = tl.arange(0, BLOCK_K)
    columns = tl.arange(0, BLOCK_D)
    z_rows = z + rows[:, None] * z_stride_n
    # Seen by each lane so far: the best and the second best of its codes, and the first code of the best one's tile.
    best = tl.full((BLOCK_N, BLOCK_K), float("-inf"), tl.float32)
    second = best
    best_tile = tl.zeros((BLOCK_N, BLOCK_K), tl.int32)
    longest = tl.zeros((BLOCK_K,), tl.float32)  # half the squared length
    if WHOLE:
        z_tile = load_tile(z_rows, columns, z_stride_d, row_mask, D, WIDEN)
    for first in range(0, K, BLOCK_K):
        code_mask = first + lanes < K
        e_rows = codebook + (first + lanes).to(tl.int64)[:, None] * codebook_stride_k
        # The padding of the last tile is never nearer than anything.
        half_norm = tl.load(half_norms + first + lanes, mask=code_mask, other=float("inf"))
        longest = tl.maximum(longest, tl.where(code_mask, half_norm, 0.0))
        score = tl.broadcast_to(-half_norm[None, :], (BLOCK_N, BLOCK_K))
        if WHOLE:
            e_tile = load_tile(e_rows, columns, codebook_stride_d, code_mask, D, WIDEN)
            score = tl.dot(z_tile, tl.trans(e_tile), score, input_precision=PRECISION)
        else:
            for start in range(0, D, BLOCK_D):
                z_tile = load_tile(z_rows, start + columns, z_stride_d, row_mask, D, WIDEN)
                e_tile = load_tile(e_rows, start + columns, codebook_stride_d, code_mask, D, WIDEN)
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
        row = load_tile(z_rows, start + columns, z_stride_d, row_mask, D, True)
        squared_length += tl.sum(row * row, axis=1)
    z_length = tl.sqrt(squared_length) + 2.0**-40
    e_length = tl.sqrt(2.0 * tl.max(longest, axis=0)) + 2.0**-40
    # An infinity or a NaN leaves the order open.
    decided = gap > doubt * e_length * (z_length + 0.5 * e_length)
    tl.store(indices + head * N + rows, tl.where(decided, index, -1).to(tl.int64), mask=row_mask)


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
            e = load_tile(e_rows, start + columns, codebook_stride_d, code_mask, D, False).to(tl.float64)
            score += tl.sum(e * (e - 2 * row[None, :]), axis=1)
        better = code_mask & (score < best)
        best = tl.where(better, score, best)
        best_tile = tl.where(better, first, best_tile)
    return tl.min(tl.where(best == tl.min(best, axis=0), best_tile + lanes, 2147483647), axis=0)


@triton.jit
def nearest_code_winners_kernel(
    z,  # (H, N, D)
    codebook,  # (H, K, D)
    ignored,  # (H, N) bool, or None
    indices,  # (H, N) int64, negative where the row is to be searched again; then -1 where it is ignored
    distances,  # (H, N) float32, or None
    rows,  # (H, N, D) contiguous, the chosen codes as they are; or None
    codes,  # (H, N, D) contiguous, the chosen codes in z's dtype; or None, as then are the two that follow
    partials,  # (2, programs) float32: each program's sum of distances, and how many rows count
    counts,  # (H, K) int64
    N,
    K,
    D,
    z_stride_h,
    z_stride_n,
    z_stride_d,
    codebook_stride_h,
    codebook_stride_k,
    codebook_stride_d,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """A program settles in float64 what of BLOCK_N rows is open, and reads their winners."""
    head = tl.program_id(1).to(tl.int64)
    z += head * z_stride_h
    codebook += head * codebook_stride_h
    first = tl.program_id(0).to(tl.int64) * BLOCK_N
    places = tl.arange(0, BLOCK_N)
    inside = first + places < N
    outputs = head * N + first + places
    kept = inside
    if ignored is not None:
        kept &= tl.load(ignored + outputs, mask=inside, other=1) == 0
    # Beyond all codes where a row does not count.
    index = tl.load(indices + outputs, mask=kept, other=K)
    while tl.min(index, axis=0) < 0:
        place = tl.argmin(index, axis=0)
        z_row = z + (first + place) * z_stride_n
        found = _search_in_float64(
            z_row, codebook, K, D, z_stride_d, codebook_stride_k, codebook_stride_d, BLOCK_K, BLOCK_D
        )
        index = tl.where(places == place, found.to(tl.int64), index)
    kept = index < K
    tl.store(indices + outputs, tl.where(kept, index, -1), mask=inside)

    distance = tl.zeros((BLOCK_N,), tl.float32)
    z_rows = z + (first + places)[:, None] * z_stride_n
    chosen_rows = codebook + index[:, None] * codebook_stride_k
    for start in range(0, D, BLOCK_D):
        columns = start + tl.arange(0, BLOCK_D)
        row = load_tile(z_rows, columns, z_stride_d, kept, D, True)
        chosen = load_tile(chosen_rows, columns, codebook_stride_d, kept, D, True)
        difference = row - chosen
        distance += tl.sum(difference * difference, axis=1)
        elements = outputs[:, None] * D + columns[None, :]
        mask = inside[:, None] & (columns < D)[None, :]
        if rows is not None:
            tl.store(rows + elements, chosen.to(rows.dtype.element_ty), mask=mask)
        if codes is not None:
            tl.store(codes + elements, chosen.to(codes.dtype.element_ty), mask=mask)
    if distances is not None:
        tl.store(distances + outputs, distance, mask=inside)
    if codes is not None:
        program = tl.program_id(0) + tl.program_id(1) * tl.num_programs(0)
        programs = tl.num_programs(0) * tl.num_programs(1)
        tl.store(partials + program, tl.sum(distance, axis=0))
        tl.store(partials + programs + program, tl.sum(kept.to(tl.float32), axis=0))
        tl.atomic_add(counts + head * K + index, tl.full((BLOCK_N,), 1, tl.int64), mask=kept, sem="relaxed")


@triton.jit
def quantization_loss_kernel(
    partials,  # (2, count) float32: sums of squared differences, and of how many rows
    loss,  # () float32
    count,
    D,
    beta,
    gamma,
    BLOCK: tl.constexpr,
):
    """(beta + gamma) * mean of the squared differences, summed in a fixed order; NaN where no row counts."""
    lanes = tl.arange(0, BLOCK)
    total = tl.zeros((BLOCK,), tl.float64)
    rows = tl.zeros((BLOCK,), tl.float64)
    for start in range(0, count, BLOCK):
        mask = start + lanes < count
        total += tl.load(partials + start + lanes, mask=mask, other=0.0).to(tl.float64)
        rows += tl.load(partials + count + start + lanes, mask=mask, other=0.0).to(tl.float64)
    # Both terms of the loss have the same value: they differ in where the gradient goes.
    mean = tl.sum(total, axis=0) / (tl.sum(rows, axis=0) * D)
    weight = tl.full((), 0.0, tl.float64) + beta + gamma
    tl.store(loss, (weight * mean).to(tl.float32))


@triton.jit
def nearest_code_bwd_rows_kernel(
    z,  # (H, N, D)
    rows,  # (H, N, D): the chosen codes
    indices,  # (H, N) int64, -1 where a row is ignored
    weight,  # (H, N) float32, or one value with strides 0
    grad_codes,  # (H, N, D) contiguous, or None
    grad_z,  # (H, N, D) contiguous: grad_codes + scale * weight * (z - rows), 0 for ignored rows
    N,
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
    BLOCK_N: tl.constexpr,
    BLOCK_D: tl.constexpr,
):
    """The gradient of the rows."""
    head = tl.program_id(2).to(tl.int64)
    n = tl.program_id(0).to(tl.int64) * BLOCK_N + tl.arange(0, BLOCK_N)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    inside = n < N
    kept = inside & (tl.load(indices + head * N + n, mask=inside, other=-1) >= 0)
    factor = tl.load(weight + head * weight_stride_h + n * weight_stride_n, mask=kept, other=0.0) * scale
    z_tile = load_tile(z + head * z_stride_h + n[:, None] * z_stride_n, columns, z_stride_d, kept, D, True)
    chosen = load_tile(rows + head * rows_stride_h + n[:, None] * rows_stride_n, columns, rows_stride_d, kept, D, True)
    grad = factor[:, None] * (z_tile - chosen)
    elements = (head * N + n)[:, None] * D + columns[None, :]
    column_mask = (columns < D)[None, :]
    if grad_codes is not None:
        grad += tl.load(grad_codes + elements, mask=kept[:, None] & column_mask, other=0.0).to(tl.float32)
    tl.store(grad_z + elements, grad.to(grad_z.dtype.element_ty), mask=inside[:, None] & column_mask)


def doubt(D: int, z_dtype: torch.dtype, codebook_dtype: torch.dtype) -> float:
    """The factor of |e| (|z| + |e| / 2) by which two scores z.e - |e|^2 / 2 must be apart to be in the right order.

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


def nearest_code(z: Tensor, codebook: Tensor, ignored: Tensor | None, keep_rows: bool) -> tuple[Tensor, Tensor, Tensor]:
    """The search of (N, D) rows among (K, D) codes, or of (H, N, D) among (H, K, D).

    Returns:
        indices (..., N) int64, distances (..., N) float32 and the chosen codes (..., N, D) if keep_rows, else (0,).
    """
    indices = z.new_empty(z.shape[:-1], dtype=torch.int64)
    distances = z.new_empty(z.shape[:-1], dtype=torch.float32)
    rows = codebook.new_empty(z.shape if keep_rows else 0)
    if indices.numel() > 0:
        _search(z, codebook, ignored, indices, distances=distances, rows=rows if keep_rows else None)
    return indices, distances, rows


def vector_quantize(
    z: Tensor, codebook: Tensor, ignored: Tensor | None, beta: float, gamma: float, keep_sums: bool, keep_rows: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Quantisation of (N, D) rows by (K, D) codes, or of (H, N, D) by (H, K, D).

    Returns:
        codes (..., N, D) in z's dtype, loss () float32, indices (..., N) and counts (..., K) int64, sums of the rows by
        code (..., K, D) float32 if keep_sums, else (0,), and the chosen codes (..., N, D) if keep_rows, else (0,).
    """
    indices = z.new_empty(z.shape[:-1], dtype=torch.int64)
    codes = z.new_empty(z.shape)
    loss = z.new_empty((), dtype=torch.float32)
    counts = indices.new_empty(codebook.shape[:-1])
    sums = loss.new_empty(codebook.shape if keep_sums else 0)
    rows = codebook.new_empty(z.shape if keep_rows else 0)
    if indices.numel() == 0:
        return codes, loss.fill_(torch.nan), indices, counts.zero_(), sums.zero_(), rows
    partials = _search(z, codebook, ignored, indices, codes=codes, counts=counts, rows=rows if keep_rows else None)
    with torch.cuda.device_of(z):
        count = partials.shape[1]
        quantization_loss_kernel[(1,)](partials, loss, count, z.shape[-1], beta, gamma, BLOCK=1024)
    if keep_sums:
        sum_by_code(z, None, None, indices, sums, 1.0)
    return codes, loss, indices, counts, sums, rows


def _search(
    z: Tensor,
    codebook: Tensor,
    ignored: Tensor | None,
    indices: Tensor,
    *,
    distances: Tensor | None = None,
    codes: Tensor | None = None,
    counts: Tensor | None = None,
    rows: Tensor | None = None,
) -> Tensor:
    (N, D), K = z.shape[-2:], codebook.shape[-2]
    H = indices.numel() // N
    search = search_config(D, z.dtype, codebook.dtype)
    programs, slots = triton.cdiv(N, WINNERS_CONFIG["BLOCK_N"]), triton.next_power_of_2(2 * K)
    zeros = z.new_zeros(H * (2 * slots + K), dtype=torch.int32)
    table, half_norms = zeros[: 2 * H * slots].view(torch.int64), zeros[2 * H * slots :]
    partials = z.new_empty(2, 0 if codes is None else H * programs, dtype=torch.float32)
    code_strides = strides(codebook, 3)
    sizes = N, K, D, *strides(z, 3), *code_strides
    with torch.cuda.device_of(z):
        code_norms_kernel[(triton.cdiv(K, 16), H)](
            codebook, table, half_norms, counts, K, D, slots, *code_strides, BLOCK_K=16, BLOCK_D=64
        )
        nearest_code_fwd_kernel[(triton.cdiv(N, search["BLOCK_N"]), H)](
            z, codebook, half_norms.view(torch.float32), indices, *sizes, doubt(D, z.dtype, codebook.dtype), **search
        )
        nearest_code_winners_kernel[(programs, H)](
            z, codebook, ignored, indices, distances, rows, codes, partials, counts, *sizes, **WINNERS_CONFIG
        )
    return partials


def nearest_code_backward(
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
    """Gradients of z (..., N, D) and of the codebook (..., codes, D); (0,) for what is not needed.

    Args:
        grad_codes: (..., N, D) contiguous, added to the gradient of z; or None.
        weight: (..., N) float32, or ().
        z: (..., N, D).
        rows: (..., N, D), the chosen codes.
        indices: (..., N) int64 contiguous, -1 for a row that does not count.
        codes: K.
        z_scale: grad_z = grad_codes + z_scale * weight * (z - rows).
        code_scale: grad_codebook = code_scale * the sum over its rows of weight * (rows - z).
        need_z: whether there is a gradient of z.
        need_codebook: whether there is a gradient of the codebook.
    """
    N, D = z.shape[-2:]
    grad_z = z.new_empty(z.shape if need_z else 0)
    grad_codebook = rows.new_empty((*z.shape[:-2], codes, D) if need_codebook else 0)
    if indices.numel() == 0:
        return grad_z, grad_codebook.zero_()
    if need_z:
        config = backward_config(D)
        grid = triton.cdiv(N, config["BLOCK_N"]), triton.cdiv(D, config["BLOCK_D"]), indices.numel() // N
        with torch.cuda.device_of(z):
            nearest_code_bwd_rows_kernel[grid](
                z, rows, indices, weight, grad_codes, grad_z, N, D,
                *strides(z, 3), *strides(rows, 3), *strides(weight, 2), z_scale, **config,
            )  # fmt: skip
    if need_codebook:
        sum_by_code(z, rows, weight, indices, grad_codebook, code_scale)
    return grad_z, grad_codebook
