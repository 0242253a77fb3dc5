"""Triton kernels of group_norm over channels_last images: statistics and arithmetic in float32, no atomics.

A group small enough to stay in the registers of one program takes one pass; otherwise the pixels are cut into chunks,
and what the chunks found is joined in a fixed order. The chunks do not depend on the batch, so neither does the result.
"""

import torch
import triton
import triton.language as tl
from torch import Tensor

_TILE = 2048  # elements of a tile: 16 a thread
_ON_CHIP = 16384  # elements of x that the forward pass keeps in the registers of one program: 32 a thread


def tiling(pixels: int, channels: int) -> dict[str, int]:
    """The cut into chunks: a chunk is TILES tiles of TILE_P pixels by TILE_C channels, one after the other."""
    tile_c = min(64, triton.next_power_of_2(channels))
    return {"C": channels, "TILE_P": _TILE // tile_c, "TILE_C": tile_c, "TILES": 4 if pixels <= 4096 else 16}


def chunks_of(pixels: int, tile: dict[str, int]) -> int:
    """Chunks of one image."""
    return triton.cdiv(pixels, tile["TILE_P"] * tile["TILES"])


def on_chip(pixels: int, channels: int, groups: int, element_size: int, backward: bool) -> dict[str, int] | None:
    """The slab (whole groups of one image) that one program keeps in registers, or None where it must be cut."""
    width = channels // groups
    # Fewer than 32 contiguous bytes a pixel would waste part of every sector that is read. The backward pass keeps
    # grad_y as well: for 16 bits it shares sectors with the next program rather than read both images twice.
    slab = max(width, (16 if backward and element_size == 2 else 32) // element_size)
    tile_p = triton.next_power_of_2(pixels)
    limit = _ON_CHIP // 2 if backward else _ON_CHIP
    if width != triton.next_power_of_2(width) or channels % slab or tile_p * slab > limit:
        return None
    return {"C": channels, "WIDTH": width, "SLAB": slab, "TILE_P": tile_p}


def warps_on_chip(slab: dict[str, int]) -> int:
    """Warps of a program that keeps a slab."""
    return max(4, slab["TILE_P"] * slab["SLAB"] // 1024)


def aligned(*images: Tensor) -> bool:
    """Whether every pixel of these channels_last images begins at a multiple of 16 bytes."""
    return all((image.data_ptr() | image.shape[1] * image.element_size()) % 16 == 0 for image in images)


@triton.jit
def _at(image, first, offsets, ALIGNED: tl.constexpr):
    """Pointers to a tile, `offsets` (P, C) from element `first` on."""
    pointers = image + first + offsets
    if ALIGNED:  # 16-byte loads, whatever the compiler knows of the pointer
        pointers = tl.multiple_of(pointers, (1, 16))
    return pointers


@triton.jit
def _divided(x, y, EXACT: tl.constexpr):
    # The approximate division errs by two units in the last place of float32: too much for a float32 result, and for
    # sums of many, as it always errs the same way.
    result = tl.div_rn(x, y) if EXACT else x / y
    return result


@triton.jit
def _sigmoid(x, EXACT: tl.constexpr):
    return _divided(tl.full(x.shape, 1.0, tl.float32), 1.0 + tl.exp(-x), EXACT)


@triton.jit
def _silu(x, EXACT: tl.constexpr):
    return _divided(x, 1.0 + tl.exp(-x), EXACT)


@triton.jit
def _inner_gradient(grad_y, centred, scale, bias, SILU: tl.constexpr, EXACT: tl.constexpr):
    """The gradient ahead of the SiLU."""
    if SILU:
        normalised = tl.fma(centred, scale, bias)
        s = _sigmoid(normalised, EXACT)
        grad_y = grad_y * s * tl.fma(normalised, 1.0 - s, tl.full(s.shape, 1.0, tl.float32))
    return grad_y


@triton.jit
def _place(pixels, chunks, C: tl.constexpr, TILE_P: tl.constexpr, TILE_C: tl.constexpr, TILES: tl.constexpr):
    """The part that a program of the chunked passes works on: (image, chunk) item, image, first pixel, channels."""
    blocks: tl.constexpr = (C + TILE_C - 1) // TILE_C
    program = tl.program_id(0)
    item = program // blocks
    c = program % blocks * TILE_C + tl.arange(0, TILE_C)
    return item.to(tl.int64), (item // chunks).to(tl.int64), item % chunks * (TILES * TILE_P), c


@triton.jit
def _channel_coefficients(weight, bias, mean, rstd, image, c, C: tl.constexpr, WIDTH: tl.constexpr):
    """(TILE_C) each: weight * rstd, bias, mean, rstd."""
    group = image * (C // WIDTH) + c // WIDTH
    r = tl.load(rstd + group, mask=c < C, other=0.0)
    m = tl.load(mean + group, mask=c < C, other=0.0)
    w = tl.load(weight + c, mask=c < C, other=0.0)
    return w * r, tl.load(bias + c, mask=c < C, other=0.0), m, r


@triton.jit(do_not_specialize=["pixels", "chunks"])
def group_norm_moments_fwd_kernel(
    x,  # (B, H * W, C)
    partial,  # (B, chunks, 2, C): mean, and sum of squared distances from it
    pixels,
    chunks,
    C: tl.constexpr,
    TILE_P: tl.constexpr,
    TILE_C: tl.constexpr,
    TILES: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Moments of each channel over each chunk."""
    item, image, first, c = _place(pixels, chunks, C, TILE_P, TILE_C, TILES)
    offsets = tl.arange(0, TILE_P)[:, None] * C + c[None, :]
    # Of each element of the tile over the tiles, by Welford's update: nothing crosses threads before the end.
    mean = tl.zeros((TILE_P, TILE_C), tl.float32)
    squares = tl.zeros((TILE_P, TILE_C), tl.float32)
    for tile in range(TILES):
        start = first + tile * TILE_P
        inside = (start + tl.arange(0, TILE_P) < pixels)[:, None] & (c < C)[None, :]
        value = tl.load(_at(x, (image * pixels + start) * C, offsets, ALIGNED), mask=inside, other=0.0).to(tl.float32)
        distance = tl.where(inside, value - mean, 0.0)
        share = 1.0 / (tile + 1.0)
        mean = tl.fma(distance, tl.zeros_like(distance) + share, mean)
        squares = tl.fma(distance * distance, tl.zeros_like(distance) + (1.0 - share), squares)
    # Chan's join of the pixels of the tile, each with as many tiles as it was inside.
    counts = tl.cdiv(tl.maximum(pixels - first - tl.arange(0, TILE_P), 0), TILE_P)
    counts = tl.minimum(counts, TILES).to(tl.float32)[:, None]
    total = tl.minimum(tl.maximum(pixels - first, 1), TILES * TILE_P).to(tl.float32)
    joined = tl.sum(counts * mean, axis=0) / total
    distance = mean - joined[None, :]
    squares = tl.sum(squares + counts * distance * distance, axis=0)
    tl.store(partial + item * 2 * C + c, joined, mask=c < C)
    tl.store(partial + (item * 2 + 1) * C + c, squares, mask=c < C)


@triton.jit(do_not_specialize=["pixels", "chunks"])
def group_norm_join_fwd_kernel(
    partial,  # (B, chunks, 2, C)
    mean,  # (B, G)
    rstd,  # (B, G)
    pixels,
    chunks,
    eps,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    CHUNK: tl.constexpr,
    TILE_K: tl.constexpr,
    TILE_W: tl.constexpr,
):
    """Chan's join over all chunks and channels of one group at once, in float64."""
    program = tl.program_id(0)
    groups: tl.constexpr = C // WIDTH
    k = tl.arange(0, TILE_K)[:, None]
    w = tl.arange(0, TILE_W)[None, :]
    part = partial + (program // groups).to(tl.int64) * chunks * 2 * C + program % groups * WIDTH + w
    count = pixels.to(tl.float64) * WIDTH
    total = tl.zeros((TILE_K, TILE_W), tl.float64)
    for start in range(0, chunks, TILE_K):
        inside = (start + k < chunks) & (w < WIDTH)
        n = tl.minimum(pixels - (start + k) * CHUNK, CHUNK).to(tl.float64)
        total += n * tl.load(part + (start + k).to(tl.int64) * 2 * C, mask=inside, other=0.0).to(tl.float64)
    joined = tl.sum(tl.sum(total, axis=1), axis=0) / count
    total = tl.zeros((TILE_K, TILE_W), tl.float64)
    for start in range(0, chunks, TILE_K):
        inside = (start + k < chunks) & (w < WIDTH)
        n = tl.minimum(pixels - (start + k) * CHUNK, CHUNK).to(tl.float64)
        row = part + (start + k).to(tl.int64) * 2 * C
        distance = tl.load(row, mask=inside, other=0.0).to(tl.float64) - joined
        squares = tl.load(row + C, mask=inside, other=0.0).to(tl.float64)
        total += tl.where(inside, squares + n * distance * distance, 0.0)
    variance = tl.sum(tl.sum(total, axis=1), axis=0) / count
    tl.store(mean + program, joined.to(tl.float32))
    tl.store(rstd + program, (1.0 / tl.sqrt(variance + eps)).to(tl.float32))


@triton.jit(do_not_specialize=["pixels", "chunks"])
def group_norm_apply_fwd_kernel(
    x,  # (B, H * W, C)
    weight,  # (C)
    bias,  # (C)
    mean,  # (B, G)
    rstd,  # (B, G)
    y,  # (B, H * W, C)
    pixels,
    chunks,
    SILU: tl.constexpr,
    WIDTH: tl.constexpr,
    C: tl.constexpr,
    TILE_P: tl.constexpr,
    TILE_C: tl.constexpr,
    TILES: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """y of each chunk."""
    _, image, first, c = _place(pixels, chunks, C, TILE_P, TILE_C, TILES)
    offsets = tl.arange(0, TILE_P)[:, None] * C + c[None, :]
    scale, shift, centre, _ = _channel_coefficients(weight, bias, mean, rstd, image, c, C, WIDTH)
    for tile in range(TILES):
        start = first + tile * TILE_P
        inside = (start + tl.arange(0, TILE_P) < pixels)[:, None] & (c < C)[None, :]
        base = (image * pixels + start) * C
        value = tl.load(_at(x, base, offsets, ALIGNED), mask=inside, other=0.0).to(tl.float32)
        # The mean is taken off first: folded into the shift, a mean far from 0 would cost the digits of y.
        value = tl.fma(value - centre[None, :], scale[None, :], shift[None, :])
        if SILU:
            value = _silu(value, y.dtype.element_ty == tl.float32)
        tl.store(_at(y, base, offsets, ALIGNED), value.to(y.dtype.element_ty), mask=inside)


@triton.jit
def _over_groups(channel, WIDTH: tl.constexpr, SLAB: tl.constexpr):
    """(SLAB) sums of channels -> (SLAB) sums of the group of each channel."""
    return _to_channels(tl.sum(tl.reshape(channel, (SLAB // WIDTH, WIDTH)), axis=1), WIDTH, SLAB)


@triton.jit
def _to_channels(group, WIDTH: tl.constexpr, SLAB: tl.constexpr):
    """(SLAB / WIDTH) values of groups -> (SLAB)."""
    return tl.reshape(tl.broadcast_to(group[:, None], (SLAB // WIDTH, WIDTH)), (SLAB,))


@triton.jit
def _sum_of_groups(value, WIDTH: tl.constexpr, SLAB: tl.constexpr, TILE_P: tl.constexpr):
    """(TILE_P, SLAB) -> (SLAB) sums of the group of each channel; over channels first, which lie within a thread."""
    rows = tl.sum(tl.reshape(value, (TILE_P, SLAB // WIDTH, WIDTH)), axis=2)
    return _to_channels(tl.sum(rows, axis=0), WIDTH, SLAB)


@triton.jit(do_not_specialize=["pixels"])
def group_norm_fwd_kernel(
    x,  # (B, H * W, C)
    weight,  # (C)
    bias,  # (C)
    y,  # (B, H * W, C)
    mean,  # (B, G)
    rstd,  # (B, G)
    pixels,
    eps,
    SILU: tl.constexpr,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    SLAB: tl.constexpr,
    TILE_P: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Whole groups of one image, read once and kept in registers."""
    program = tl.program_id(0)
    image = (program // (C // SLAB)).to(tl.int64)
    c = program % (C // SLAB) * SLAB + tl.arange(0, SLAB)
    p = tl.arange(0, TILE_P)[:, None]
    inside = (p < pixels) & (c < C)[None, :]
    base, offsets = image * pixels * C, p * C + c[None, :]
    value = tl.load(_at(x, base, offsets, ALIGNED), mask=inside, other=0.0).to(tl.float32)
    count = pixels.to(tl.float32) * WIDTH
    centre = _sum_of_groups(value, WIDTH, SLAB, TILE_P) / count
    value = tl.where(inside, value - centre[None, :], 0.0)
    variance = _sum_of_groups(value * value, WIDTH, SLAB, TILE_P) / count
    r = tl.div_rn(tl.full((SLAB,), 1.0, tl.float32), tl.sqrt_rn(variance + eps))
    group = image * (C // WIDTH) + c // WIDTH
    tl.store(mean + group, centre, mask=c % WIDTH == 0)
    tl.store(rstd + group, r, mask=c % WIDTH == 0)
    scale = tl.load(weight + c) * r
    value = tl.fma(value, scale[None, :], tl.load(bias + c)[None, :])
    if SILU:
        value = _silu(value, y.dtype.element_ty == tl.float32)
    tl.store(_at(y, base, offsets, ALIGNED), value.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["pixels", "chunks"])
def group_norm_sums_bwd_kernel(
    grad_y,  # (B, H * W, C)
    x,  # (B, H * W, C)
    weight,  # (C)
    bias,  # (C)
    mean,  # (B, G)
    rstd,  # (B, G)
    partial,  # (B, chunks, 2, C): sums of g and of g * normalised x
    pixels,
    chunks,
    SILU: tl.constexpr,
    WIDTH: tl.constexpr,
    C: tl.constexpr,
    TILE_P: tl.constexpr,
    TILE_C: tl.constexpr,
    TILES: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Sums over each chunk, with g the gradient ahead of the SiLU."""
    item, image, first, c = _place(pixels, chunks, C, TILE_P, TILE_C, TILES)
    offsets = tl.arange(0, TILE_P)[:, None] * C + c[None, :]
    scale, shift, centre, r = _channel_coefficients(weight, bias, mean, rstd, image, c, C, WIDTH)
    total = tl.zeros((TILE_P, TILE_C), tl.float32)
    product = tl.zeros((TILE_P, TILE_C), tl.float32)
    for tile in range(TILES):
        start = first + tile * TILE_P
        inside = (start + tl.arange(0, TILE_P) < pixels)[:, None] & (c < C)[None, :]
        base = (image * pixels + start) * C
        value = tl.load(_at(x, base, offsets, ALIGNED), mask=inside, other=0.0).to(tl.float32) - centre[None, :]
        gradient = tl.load(_at(grad_y, base, offsets, ALIGNED), mask=inside, other=0.0).to(tl.float32)
        gradient = _inner_gradient(gradient, value, scale[None, :], shift[None, :], SILU, True)
        # Outside, the gradient is 0 but a mean that is not finite would make it NaN.
        total += tl.where(inside, gradient, 0.0)
        product += tl.where(inside, gradient * (value * r[None, :]), 0.0)
    tl.store(partial + item * 2 * C + c, tl.sum(total, axis=0), mask=c < C)
    tl.store(partial + (item * 2 + 1) * C + c, tl.sum(product, axis=0), mask=c < C)


@triton.jit(do_not_specialize=["pixels", "chunks"])
def group_norm_join_bwd_kernel(
    partial,  # (B, chunks, 2, C)
    weight,  # (C)
    rstd,  # (B, G)
    sums,  # (B, 2, C): the partial sums joined
    coefficients,  # (B, G, 2): slope and offset of grad_x
    pixels,
    chunks,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    TILE_K: tl.constexpr,
    TILE_W: tl.constexpr,
):
    """The sums of all chunks of one group, in float64, and what they mean for grad_x."""
    program = tl.program_id(0)
    groups: tl.constexpr = C // WIDTH
    image = (program // groups).to(tl.int64)
    w = tl.arange(0, TILE_W)
    c = program % groups * WIDTH + w
    k = tl.arange(0, TILE_K)[:, None]
    total = tl.zeros((TILE_K, TILE_W), tl.float64)
    product = tl.zeros((TILE_K, TILE_W), tl.float64)
    for start in range(0, chunks, TILE_K):
        inside = (start + k < chunks) & (w < WIDTH)[None, :]
        row = partial + (image * chunks + start + k) * 2 * C + c[None, :]
        total += tl.load(row, mask=inside, other=0.0).to(tl.float64)
        product += tl.load(row + C, mask=inside, other=0.0).to(tl.float64)
    channel_total = tl.sum(total, axis=0)
    channel_product = tl.sum(product, axis=0)
    tl.store(sums + image * 2 * C + c, channel_total.to(tl.float32), mask=w < WIDTH)
    tl.store(sums + (image * 2 + 1) * C + c, channel_product.to(tl.float32), mask=w < WIDTH)
    # grad_x = scale g - rstd (mean of w g) - rstd x^ (mean of w g x^), with x^ = (x - mean) rstd
    factor = tl.load(weight + c, mask=w < WIDTH, other=0.0).to(tl.float64)
    r = tl.load(rstd + program).to(tl.float64)
    count = pixels.to(tl.float64) * WIDTH
    slope = -r * r * tl.sum(factor * channel_product, axis=0) / count
    offset = -r * tl.sum(factor * channel_total, axis=0) / count
    tl.store(coefficients + program * 2, slope.to(tl.float32))
    tl.store(coefficients + program * 2 + 1, offset.to(tl.float32))


@triton.jit(do_not_specialize=["batch"])
def group_norm_parameters_bwd_kernel(
    sums,  # (B, 2, C)
    grad_weight,  # (C)
    grad_bias,  # (C)
    batch,
    C: tl.constexpr,
    TILE_B: tl.constexpr,
    TILE_C: tl.constexpr,
):
    """The sums of all images, in float64."""
    c = tl.program_id(0) * TILE_C + tl.arange(0, TILE_C)[None, :]
    b = tl.arange(0, TILE_B)[:, None]
    total = tl.zeros((TILE_B, TILE_C), tl.float64)
    product = tl.zeros((TILE_B, TILE_C), tl.float64)
    for start in range(0, batch, TILE_B):
        inside = (start + b < batch) & (c < C)
        row = sums + (start + b).to(tl.int64) * 2 * C + c
        total += tl.load(row, mask=inside, other=0.0).to(tl.float64)
        product += tl.load(row + C, mask=inside, other=0.0).to(tl.float64)
    c = tl.program_id(0) * TILE_C + tl.arange(0, TILE_C)
    tl.store(grad_bias + c, tl.sum(total, axis=0).to(tl.float32), mask=c < C)
    tl.store(grad_weight + c, tl.sum(product, axis=0).to(tl.float32), mask=c < C)


@triton.jit(do_not_specialize=["pixels", "chunks"])
def group_norm_input_bwd_kernel(
    grad_y,  # (B, H * W, C)
    x,  # (B, H * W, C)
    weight,  # (C)
    bias,  # (C)
    mean,  # (B, G)
    rstd,  # (B, G)
    coefficients,  # (B, G, 2)
    grad_x,  # (B, H * W, C)
    pixels,
    chunks,
    SILU: tl.constexpr,
    WIDTH: tl.constexpr,
    C: tl.constexpr,
    TILE_P: tl.constexpr,
    TILE_C: tl.constexpr,
    TILES: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """grad_x of each chunk."""
    _, image, first, c = _place(pixels, chunks, C, TILE_P, TILE_C, TILES)
    offsets = tl.arange(0, TILE_P)[:, None] * C + c[None, :]
    scale, shift, centre, _ = _channel_coefficients(weight, bias, mean, rstd, image, c, C, WIDTH)
    group = (image * (C // WIDTH) + c // WIDTH) * 2
    slope = tl.load(coefficients + group, mask=c < C, other=0.0)
    offset = tl.load(coefficients + group + 1, mask=c < C, other=0.0)
    for tile in range(TILES):
        start = first + tile * TILE_P
        inside = (start + tl.arange(0, TILE_P) < pixels)[:, None] & (c < C)[None, :]
        base = (image * pixels + start) * C
        value = tl.load(_at(x, base, offsets, ALIGNED), mask=inside, other=0.0).to(tl.float32) - centre[None, :]
        gradient = tl.load(_at(grad_y, base, offsets, ALIGNED), mask=inside, other=0.0).to(tl.float32)
        exact: tl.constexpr = grad_x.dtype.element_ty == tl.float32
        gradient = _inner_gradient(gradient, value, scale[None, :], shift[None, :], SILU, exact)
        result = tl.fma(gradient, scale[None, :], tl.fma(value, slope[None, :], offset[None, :]))
        tl.store(_at(grad_x, base, offsets, ALIGNED), result.to(grad_x.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["pixels"])
def group_norm_bwd_kernel(
    grad_y,  # (B, H * W, C)
    x,  # (B, H * W, C)
    weight,  # (C)
    bias,  # (C)
    mean,  # (B, G)
    rstd,  # (B, G)
    sums,  # (B, 2, C): sums of g and of g * normalised x
    grad_x,  # (B, H * W, C)
    pixels,
    SILU: tl.constexpr,
    C: tl.constexpr,
    WIDTH: tl.constexpr,
    SLAB: tl.constexpr,
    TILE_P: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Whole groups of one image, read once and kept in registers."""
    program = tl.program_id(0)
    image = (program // (C // SLAB)).to(tl.int64)
    c = program % (C // SLAB) * SLAB + tl.arange(0, SLAB)
    p = tl.arange(0, TILE_P)[:, None]
    inside = (p < pixels) & (c < C)[None, :]
    base, offsets = image * pixels * C, p * C + c[None, :]
    scale, shift, centre, r = _channel_coefficients(weight, bias, mean, rstd, image, c, C, WIDTH)
    value = tl.load(_at(x, base, offsets, ALIGNED), mask=inside, other=0.0).to(tl.float32) - centre[None, :]
    gradient = tl.load(_at(grad_y, base, offsets, ALIGNED), mask=inside, other=0.0).to(tl.float32)
    gradient = _inner_gradient(gradient, value, scale[None, :], shift[None, :], SILU, True)
    total = tl.sum(tl.where(inside, gradient, 0.0), axis=0)
    product = tl.sum(tl.where(inside, gradient * (value * r[None, :]), 0.0), axis=0)
    tl.store(sums + image * 2 * C + c, total)
    tl.store(sums + (image * 2 + 1) * C + c, product)
    count = pixels.to(tl.float32) * WIDTH
    slope = -r * _over_groups(scale * product, WIDTH, SLAB) / count
    offset = -_over_groups(scale * total, WIDTH, SLAB) / count
    result = tl.fma(gradient, scale[None, :], tl.fma(value, slope[None, :], offset[None, :]))
    tl.store(_at(grad_x, base, offsets, ALIGNED), result.to(grad_x.dtype.element_ty), mask=inside)


def joining(pixels: int, channels: int, groups: int, tile: dict[str, int]) -> dict[str, int]:
    """The tile of the kernels that join the chunks of one group."""
    width = channels // groups
    tile_w = triton.next_power_of_2(width)
    tile_k = min(triton.next_power_of_2(chunks_of(pixels, tile)), max(1, 1024 // tile_w))
    return {"C": channels, "WIDTH": width, "TILE_K": tile_k, "TILE_W": tile_w}


def _programs(x: Tensor, tile: dict[str, int], chunks: int) -> tuple[int]:
    return (x.shape[0] * chunks * triton.cdiv(x.shape[1], tile["TILE_C"]),)


def group_norm(
    x: Tensor, weight: Tensor, bias: Tensor, groups: int, eps: float, silu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """The op cbtalk::group_norm_triton.

    Args:
        x: (B, C, H, W), channels_last, float32, float16 or bfloat16.
        weight: (C,) float32, contiguous.
        bias: (C,) float32, contiguous.
        groups: number of groups; it divides C.
        eps: added to the variance.
        silu: y * sigmoid(y) of the normalised y.

    Returns:
        y like x, and mean and rstd (B, groups) in float32.
    """
    B, C, H, W = x.shape
    y = torch.empty_like(x)
    mean = torch.empty((B, groups), dtype=torch.float32, device=x.device)
    rstd = torch.empty_like(mean)
    if x.numel() == 0:
        return y, mean.zero_(), rstd.zero_()
    vectors = aligned(x, y)
    with torch.cuda.device_of(x):
        if slab := on_chip(H * W, C, groups, x.element_size(), backward=False):
            group_norm_fwd_kernel[(B * (C // slab["SLAB"]),)](
                x,
                weight,
                bias,
                y,
                mean,
                rstd,
                H * W,
                eps,
                SILU=silu,
                num_warps=warps_on_chip(slab),
                **slab,
                ALIGNED=vectors,
            )
            return y, mean, rstd
        tile = tiling(H * W, C)
        chunks = chunks_of(H * W, tile)
        partial = torch.empty((B, chunks, 2, C), dtype=torch.float32, device=x.device)
        programs = _programs(x, tile, chunks)
        group_norm_moments_fwd_kernel[programs](x, partial, H * W, chunks, **tile, ALIGNED=vectors)
        join, chunk = joining(H * W, C, groups, tile), tile["TILE_P"] * tile["TILES"]
        group_norm_join_fwd_kernel[(B * groups,)](partial, mean, rstd, H * W, chunks, eps, CHUNK=chunk, **join)
        group_norm_apply_fwd_kernel[programs](
            x, weight, bias, mean, rstd, y, H * W, chunks, SILU=silu, WIDTH=C // groups, **tile, ALIGNED=vectors
        )
    return y, mean, rstd


def group_norm_backward(
    grad_y: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mean: Tensor,
    rstd: Tensor,
    groups: int,
    silu: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The op cbtalk::group_norm_backward_triton.

    Args:
        grad_y: like x.
        x: (B, C, H, W), channels_last.
        weight: (C,) float32, contiguous.
        bias: (C,) float32, contiguous.
        mean: (B, groups) float32, of the forward pass.
        rstd: (B, groups) float32, of the forward pass.
        groups: number of groups.
        silu: as in the forward pass.

    Returns:
        grad_x like x, grad_weight and grad_bias (C,) in float32.
    """
    B, C, H, W = x.shape
    grad_x = torch.empty_like(x)
    if x.numel() == 0:
        return grad_x, torch.zeros_like(weight), torch.zeros_like(bias)
    grad_weight, grad_bias = torch.empty_like(weight), torch.empty_like(bias)
    sums = torch.empty((B, 2, C), dtype=torch.float32, device=x.device)
    tensors, vectors = (grad_y, x, weight, bias, mean, rstd), aligned(grad_y, x, grad_x)
    with torch.cuda.device_of(x):
        if slab := on_chip(H * W, C, groups, x.element_size(), backward=True):
            group_norm_bwd_kernel[(B * (C // slab["SLAB"]),)](
                *tensors, sums, grad_x, H * W, SILU=silu, num_warps=warps_on_chip(slab), **slab, ALIGNED=vectors
            )
        else:
            tile = tiling(H * W, C)
            chunks = chunks_of(H * W, tile)
            partial = torch.empty((B, chunks, 2, C), dtype=torch.float32, device=x.device)
            coefficients = torch.empty((B, groups, 2), dtype=torch.float32, device=x.device)
            programs, kinds = (
                _programs(x, tile, chunks),
                {"SILU": silu, "WIDTH": C // groups, **tile, "ALIGNED": vectors},
            )
            group_norm_sums_bwd_kernel[programs](*tensors, partial, H * W, chunks, **kinds)
            group_norm_join_bwd_kernel[(B * groups,)](
                partial, weight, rstd, sums, coefficients, H * W, chunks, **joining(H * W, C, groups, tile)
            )
            group_norm_input_bwd_kernel[programs](*tensors, coefficients, grad_x, H * W, chunks, **kinds)
        group_norm_parameters_bwd_kernel[(triton.cdiv(C, 64),)](
            sums, grad_weight, grad_bias, B, C=C, TILE_B=16, TILE_C=64
        )
    return grad_x, grad_weight, grad_bias
