"""flow_warp in Triton: output = sample(feature, resize(flow)) * resize(occlusion), and its gradients.

The formulas are those of csrc/include/cbtalk/geometry.h; coordinates and sums are float32 whatever the dtype of the
feature. One kernel serves both layouts: its tile is (pixels, channels) for channels_last and (channels, pixels) for
NCHW, so that neighbouring threads touch neighbouring elements.
"""

from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

# Modes of padding: 0 is zeros. As in aten.
ZEROS = tl.constexpr(0)
REFLECTION = tl.constexpr(2)

# Sizes and strides, the same in each kernel; not specialised, so that a kernel is compiled once for all of them.
_SIZES = [
    *("N", "H", "W", "Ho", "Wo", "stride_b", "stride_c", "stride_y", "stride_x"),
    *("flow_h", "flow_w", "flow_stride_b", "flow_stride_n", "flow_stride_y", "flow_stride_x", "flow_stride_xy"),
    *("occlusion_h", "occlusion_w", "occlusion_stride_b", "occlusion_stride_y", "occlusion_stride_x"),
]


@triton.jit
def _resize_scale(source_size, target_size):
    """Corner-aligned bilinear resizing along one axis: target pixel t reads source position t * scale."""
    last = tl.maximum(target_size - 1, 1).to(tl.float32)
    return tl.where(target_size > 1, tl.div_rn((source_size - 1).to(tl.float32), last), 0.0)


@triton.jit
def _resize_taps(target, scale, size):
    """(low, high, weight of high) of target positions along one axis."""
    position = target.to(tl.float32) * scale
    low = position.to(tl.int32)
    weight = position - low.to(tl.float32)
    return tl.minimum(low, size - 1), tl.minimum(low + 1, size - 1), weight


@triton.jit
def _weight_read(target, source, scale, size):
    """The weight with which resizing along one axis has target read source."""
    low, high, weight = _resize_taps(target, scale, size)
    return tl.where(low == source, 1.0 - weight, 0.0) + tl.where(high == source, weight, 0.0)


@triton.jit
def _resize_readers(source, scale, target_size):
    """The first and the last target that may read a source pixel: with a margin for the rounding of the division."""
    inverse = tl.where(scale > 0, tl.div_rn(1.0, tl.where(scale > 0, scale, 1.0)), 0.0)
    first = ((source - 1).to(tl.float32) * inverse).to(tl.int32) - 1
    last = ((source + 1).to(tl.float32) * inverse).to(tl.int32) + 2
    last = tl.where(scale > 0, tl.minimum(last, target_size - 1), target_size - 1)
    return tl.where(scale > 0, tl.maximum(first, 0), 0), last


@triton.jit
def _read_map(data, stride_y, stride_x, height, width, Ho, Wo, y, x, mask, SAME_SIZE: tl.constexpr):
    """A map (height, width) resized to (Ho, Wo), at output pixels (y, x)."""
    if SAME_SIZE:
        value = tl.load(data + y.to(tl.int64) * stride_y + x.to(tl.int64) * stride_x, mask=mask, other=0.0)
    else:
        low_y, high_y, weight_y = _resize_taps(y, _resize_scale(height, Ho), height)
        low_x, high_x, weight_x = _resize_taps(x, _resize_scale(width, Wo), width)
        top = data + low_y.to(tl.int64) * stride_y
        bottom = data + high_y.to(tl.int64) * stride_y
        left = low_x.to(tl.int64) * stride_x
        right = high_x.to(tl.int64) * stride_x
        low = tl.load(top + left, mask=mask, other=0.0) * (1.0 - weight_y)
        low = tl.fma(tl.load(bottom + left, mask=mask, other=0.0), weight_y, low)
        high = tl.load(top + right, mask=mask, other=0.0) * (1.0 - weight_y)
        high = tl.fma(tl.load(bottom + right, mask=mask, other=0.0), weight_y, high)
        value = tl.fma(high, weight_x, low * (1.0 - weight_x))
    return value


@triton.jit
def _axis_scale(size, ALIGN_CORNERS: tl.constexpr):
    """Pixels a unit of a coordinate in [-1, 1]."""
    scale = 0.5 * (size - 1).to(tl.float32) if ALIGN_CORNERS else 0.5 * size.to(tl.float32)
    return scale


@triton.jit
def _mirror(coordinate):
    """A finite coordinate mirrored at -1 and 1 until it lies between them, and the slope of that; nothing rounds."""
    magnitude = tl.abs(coordinate)
    quarter = 0.25 * magnitude
    repeats = tl.where(quarter < 8388608.0, (quarter + 8388608.0) - 8388608.0, quarter)  # 2^23: no fraction bits left
    rest = magnitude - 4.0 * repeats  # in [-2, 2]
    mirrored = tl.where(rest > 1.0, 2.0 - rest, tl.where(rest < -1.0, -2.0 - rest, rest))
    return tl.where(coordinate < 0.0, -mirrored, mirrored), tl.where(tl.abs(rest) > 1.0, -1.0, 1.0)


@triton.jit
def _padded_position(coordinate, size, ALIGN_CORNERS: tl.constexpr, PADDING: tl.constexpr):
    """The position at which a coordinate is read, in pixels, and its derivative in units of the axis' scale."""
    finite = tl.abs(coordinate) < float("inf")
    slope = tl.full(coordinate.shape, 1.0, tl.float32)
    if PADDING != ZEROS:
        coordinate = tl.where(finite, coordinate, 0.0)
    if PADDING == REFLECTION:
        coordinate, slope = _mirror(coordinate)
    last = (size - 1).to(tl.float32)
    position = coordinate * _axis_scale(size, ALIGN_CORNERS) + 0.5 * last
    if PADDING != ZEROS:
        slope = tl.where((position > 0.0) & (position < last), slope, 0.0)
        position = tl.where(finite, tl.minimum(tl.maximum(position, 0.0), last), -2.0)
    return position, slope


@triton.jit
def _sample_taps(coordinate, size, ALIGN_CORNERS: tl.constexpr, PADDING: tl.constexpr):
    """Bilinear sampling along one axis: base, weights of base and base + 1, and their slopes."""
    position, slope = _padded_position(coordinate, size, ALIGN_CORNERS, PADDING)
    # A NaN and what is far outside become positions without a tap.
    position = tl.where(position > -2.0, position, -2.0)
    position = tl.minimum(position, size.to(tl.float32) + 1.0)
    floor = tl.floor(position)
    fraction = position - floor
    low = floor.to(tl.int32)
    both = (low >= 0) & (low <= size - 2)
    first = low == -1
    second = low == size - 1
    base = tl.minimum(tl.maximum(low, 0), tl.maximum(size - 2, 0))
    weight0 = tl.where(both, 1.0 - fraction, tl.where(first, fraction, 0.0))
    weight1 = tl.where(both, fraction, tl.where(second, 1.0 - fraction, 0.0))
    slope0 = tl.where(both, -slope, tl.where(first, slope, 0.0))
    slope1 = tl.where(both, slope, tl.where(second, -slope, 0.0))
    return base, weight0, weight1, slope0, slope1


@triton.jit
def _pixels(tile, height, width, TILE_P: tl.constexpr, TILE_W: tl.constexpr):
    """The image of a tile, its output pixels (TILE_P,) as rows and columns, and which of them exist."""
    TILE_H: tl.constexpr = TILE_P // TILE_W
    tiles_x = tl.cdiv(width, TILE_W)
    tiles = tl.cdiv(height, TILE_H) * tiles_x
    within = tile % tiles
    pixel = tl.arange(0, TILE_P)
    y = within // tiles_x * TILE_H + pixel // TILE_W
    x = within % tiles_x * TILE_W + pixel % TILE_W
    return (tile // tiles).to(tl.int64), y, x, (y < height) & (x < width)


@triton.jit
def _read_flow(flow, stride_b, stride_n, stride_y, stride_x, stride_xy, height, width, N, Ho, Wo, image, y, x, mask,
               SAME_SIZE: tl.constexpr):  # fmt: skip
    """The (x, y) coordinates in [-1, 1] that output pixels read."""
    field = flow + image // N * stride_b + image % N * stride_n
    flow_x = _read_map(field, stride_y, stride_x, height, width, Ho, Wo, y, x, mask, SAME_SIZE)
    flow_y = _read_map(field + stride_xy, stride_y, stride_x, height, width, Ho, Wo, y, x, mask, SAME_SIZE)
    return flow_x, flow_y


@triton.jit
def _over_pixels(values, CHANNELS_LAST: tl.constexpr):
    """(TILE_P,) -> (TILE_P, 1) or (1, TILE_P)."""
    result = values[:, None] if CHANNELS_LAST else values[None, :]
    return result


@triton.jit
def _channels(first, TILE_C: tl.constexpr, CHANNELS_LAST: tl.constexpr):
    """(1, TILE_C) or (TILE_C, 1)."""
    result = (first + tl.arange(0, TILE_C))[None, :] if CHANNELS_LAST else (first + tl.arange(0, TILE_C))[:, None]
    return result


@triton.jit
def _offsets(image, pixel, channel, C, plane, CHANNELS_LAST: tl.constexpr):
    """Of elements of a dense (images, C, plane) tensor in its memory format; image and pixel are int64."""
    offsets = (image * plane + pixel) * C + channel if CHANNELS_LAST else (image * C + channel) * plane + pixel
    return offsets


@triton.jit(do_not_specialize=_SIZES)
def flow_warp_fwd_kernel(
    feature,  # (B, C, H, W)
    flow,  # (B, N, h, w, 2) float32
    occlusion,  # (B, 1, h', w') float32
    output,  # (B*N, C, Ho, Wo), dense in its memory format
    N, H, W, Ho, Wo, stride_b, stride_c, stride_y, stride_x,
    flow_h, flow_w, flow_stride_b, flow_stride_n, flow_stride_y, flow_stride_x, flow_stride_xy,
    occlusion_h, occlusion_w, occlusion_stride_b, occlusion_stride_y, occlusion_stride_x,
    C: tl.constexpr, ALIGN_CORNERS: tl.constexpr, PADDING: tl.constexpr, SAME_FLOW: tl.constexpr,
    SAME_OCCLUSION: tl.constexpr, HAS_OCCLUSION: tl.constexpr, CHANNELS_LAST: tl.constexpr, VECTOR: tl.constexpr,
    TILE_P: tl.constexpr, TILE_W: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """A program: TILE_P output pixels, all channels."""
    image, y, x, exists = _pixels(tl.program_id(0), Ho, Wo, TILE_P, TILE_W)
    b = image // N
    flow_x, flow_y = _read_flow(flow, flow_stride_b, flow_stride_n, flow_stride_y, flow_stride_x, flow_stride_xy,
                                flow_h, flow_w, N, Ho, Wo, image, y, x, exists, SAME_FLOW)  # fmt: skip
    base_y, top, bottom, _, _ = _sample_taps(flow_y, H, ALIGN_CORNERS, PADDING)
    base_x, left, right, _, _ = _sample_taps(flow_x, W, ALIGN_CORNERS, PADDING)
    inside = _over_pixels(exists & (top + bottom > 0) & (left + right > 0), CHANNELS_LAST)
    if HAS_OCCLUSION:
        occluded = _read_map(occlusion + b * occlusion_stride_b, occlusion_stride_y, occlusion_stride_x, occlusion_h,
                             occlusion_w, Ho, Wo, y, x, exists, SAME_OCCLUSION)  # fmt: skip
        top *= occluded
        bottom *= occluded

    weight00 = _over_pixels(top * left, CHANNELS_LAST)
    weight01 = _over_pixels(top * right, CHANNELS_LAST)
    weight10 = _over_pixels(bottom * left, CHANNELS_LAST)
    weight11 = _over_pixels(bottom * right, CHANNELS_LAST)
    step_x = tl.where(W > 1, stride_x, 0)
    step_y = tl.where(H > 1, stride_y, 0)
    taps00 = feature + b * stride_b + _over_pixels(base_y * stride_y + base_x * stride_x, CHANNELS_LAST)
    pixel = _over_pixels(y.to(tl.int64) * Wo + x, CHANNELS_LAST)
    exists = _over_pixels(exists, CHANNELS_LAST)
    for first in range(0, C, TILE_C):
        channel = _channels(first, TILE_C, CHANNELS_LAST)
        taps = taps00 + channel if CHANNELS_LAST else taps00 + channel * stride_c
        taps01, taps10, taps11 = taps + step_x, taps + step_y, taps + step_y + step_x
        target = output + _offsets(image, pixel, channel, C, Ho.to(tl.int64) * Wo, CHANNELS_LAST)
        if VECTOR:  # not in a function: what it says of its argument would be lost
            taps, taps01 = tl.multiple_of(taps, (1, 16)), tl.multiple_of(taps01, (1, 16))
            taps10, taps11 = tl.multiple_of(taps10, (1, 16)), tl.multiple_of(taps11, (1, 16))
            target = tl.multiple_of(target, (1, 16))
        mask = inside & (channel < C)
        value = tl.load(taps, mask=mask, other=0.0).to(tl.float32) * weight00
        value += tl.load(taps01, mask=mask, other=0.0).to(tl.float32) * weight01
        value += tl.load(taps10, mask=mask, other=0.0).to(tl.float32) * weight10
        value += tl.load(taps11, mask=mask, other=0.0).to(tl.float32) * weight11
        value = tl.where(inside, value, 0.0)  # an occlusion that is not finite has no say outside
        tl.store(target, value.to(output.dtype.element_ty), mask=exists & (channel < C))


@triton.jit(do_not_specialize=_SIZES)
def flow_warp_bwd_kernel(
    grad_output,  # (B*N, C, Ho, Wo), dense in its memory format
    feature,  # (B, C, H, W)
    flow,  # (B, N, h, w, 2) float32
    occlusion,  # (B, 1, h', w') float32
    grad_feature,  # (B, C, H, W) float32, dense in the memory format of feature, zeros
    grad_flow_pixels,  # (B*N, Ho, Wo, 2) float32, of the resized flow
    grad_occlusion_pixels,  # (B*N, Ho, Wo) float32, of the resized occlusion
    N, H, W, Ho, Wo, stride_b, stride_c, stride_y, stride_x,
    flow_h, flow_w, flow_stride_b, flow_stride_n, flow_stride_y, flow_stride_x, flow_stride_xy,
    occlusion_h, occlusion_w, occlusion_stride_b, occlusion_stride_y, occlusion_stride_x,
    C: tl.constexpr, ALIGN_CORNERS: tl.constexpr, PADDING: tl.constexpr, SAME_FLOW: tl.constexpr,
    SAME_OCCLUSION: tl.constexpr, HAS_OCCLUSION: tl.constexpr, CHANNELS_LAST: tl.constexpr, VECTOR: tl.constexpr,
    NEED_FEATURE: tl.constexpr, NEED_FLOW: tl.constexpr, NEED_OCCLUSION: tl.constexpr,
    TILE_P: tl.constexpr, TILE_W: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """A program: TILE_P output pixels, all channels. The order of the atomic additions to grad_feature is free."""
    image, y, x, exists = _pixels(tl.program_id(0), Ho, Wo, TILE_P, TILE_W)
    b = image // N
    flow_x, flow_y = _read_flow(flow, flow_stride_b, flow_stride_n, flow_stride_y, flow_stride_x, flow_stride_xy,
                                flow_h, flow_w, N, Ho, Wo, image, y, x, exists, SAME_FLOW)  # fmt: skip
    base_y, top, bottom, top_slope, bottom_slope = _sample_taps(flow_y, H, ALIGN_CORNERS, PADDING)
    base_x, left, right, left_slope, right_slope = _sample_taps(flow_x, W, ALIGN_CORNERS, PADDING)
    inside = _over_pixels(exists & (top + bottom > 0) & (left + right > 0), CHANNELS_LAST)
    occluded = tl.full((TILE_P,), 1.0, tl.float32)
    if HAS_OCCLUSION:
        occluded = _read_map(occlusion + b * occlusion_stride_b, occlusion_stride_y, occlusion_stride_x, occlusion_h,
                             occlusion_w, Ho, Wo, y, x, exists, SAME_OCCLUSION)  # fmt: skip

    weight00 = _over_pixels(top * left * occluded, CHANNELS_LAST)
    weight01 = _over_pixels(top * right * occluded, CHANNELS_LAST)
    weight10 = _over_pixels(bottom * left * occluded, CHANNELS_LAST)
    weight11 = _over_pixels(bottom * right * occluded, CHANNELS_LAST)
    step_x = tl.where(W > 1, stride_x, 0)
    step_y = tl.where(H > 1, stride_y, 0)
    taps00 = feature + b * stride_b + _over_pixels(base_y * stride_y + base_x * stride_x, CHANNELS_LAST)
    right_pixel = tl.where(W > 1, 1, 0)
    lower_pixel = tl.where(H > 1, W, 0)
    base = _over_pixels(base_y.to(tl.int64) * W + base_x, CHANNELS_LAST)
    pixel = y.to(tl.int64) * Wo + x
    C_AXIS: tl.constexpr = 1 if CHANNELS_LAST else 0
    dot00 = tl.zeros((TILE_P,), tl.float32)
    dot01 = tl.zeros((TILE_P,), tl.float32)
    dot10 = tl.zeros((TILE_P,), tl.float32)
    dot11 = tl.zeros((TILE_P,), tl.float32)
    for first in range(0, C, TILE_C):
        channel = _channels(first, TILE_C, CHANNELS_LAST)
        mask = inside & (channel < C)
        plane = Ho.to(tl.int64) * Wo
        source = grad_output + _offsets(image, _over_pixels(pixel, CHANNELS_LAST), channel, C, plane, CHANNELS_LAST)
        if VECTOR:
            source = tl.multiple_of(source, (1, 16))
        grad = tl.load(source, mask=mask, other=0.0).to(tl.float32)
        if NEED_FLOW or NEED_OCCLUSION:
            taps = taps00 + channel if CHANNELS_LAST else taps00 + channel * stride_c
            taps01, taps10, taps11 = taps + step_x, taps + step_y, taps + step_y + step_x
            if VECTOR:
                taps, taps01 = tl.multiple_of(taps, (1, 16)), tl.multiple_of(taps01, (1, 16))
                taps10, taps11 = tl.multiple_of(taps10, (1, 16)), tl.multiple_of(taps11, (1, 16))
            dot00 += tl.sum(grad * tl.load(taps, mask=mask, other=0.0).to(tl.float32), C_AXIS)
            dot01 += tl.sum(grad * tl.load(taps01, mask=mask, other=0.0).to(tl.float32), C_AXIS)
            dot10 += tl.sum(grad * tl.load(taps10, mask=mask, other=0.0).to(tl.float32), C_AXIS)
            dot11 += tl.sum(grad * tl.load(taps11, mask=mask, other=0.0).to(tl.float32), C_AXIS)
        if NEED_FEATURE:
            plane = H.to(tl.int64) * W
            to00 = grad_feature + _offsets(b, base, channel, C, plane, CHANNELS_LAST)
            to01 = grad_feature + _offsets(b, base + right_pixel, channel, C, plane, CHANNELS_LAST)
            to10 = grad_feature + _offsets(b, base + lower_pixel, channel, C, plane, CHANNELS_LAST)
            to11 = grad_feature + _offsets(b, base + lower_pixel + right_pixel, channel, C, plane, CHANNELS_LAST)
            if VECTOR:
                to00, to01 = tl.multiple_of(to00, (1, 16)), tl.multiple_of(to01, (1, 16))
                to10, to11 = tl.multiple_of(to10, (1, 16)), tl.multiple_of(to11, (1, 16))
            tl.atomic_add(to00, grad * weight00, mask=mask, sem="relaxed")
            tl.atomic_add(to01, grad * weight01, mask=mask, sem="relaxed")
            tl.atomic_add(to10, grad * weight10, mask=mask, sem="relaxed")
            tl.atomic_add(to11, grad * weight11, mask=mask, sem="relaxed")

    upper = left * dot00 + right * dot01
    lower = left * dot10 + right * dot11
    at = image * Ho * Wo + pixel
    if NEED_FLOW:
        along_x = top * (left_slope * dot00 + right_slope * dot01) + bottom * (left_slope * dot10 + right_slope * dot11)
        along_y = top_slope * upper + bottom_slope * lower
        tl.store(grad_flow_pixels + at * 2, along_x * _axis_scale(W, ALIGN_CORNERS) * occluded, mask=exists)
        tl.store(grad_flow_pixels + at * 2 + 1, along_y * _axis_scale(H, ALIGN_CORNERS) * occluded, mask=exists)
    if NEED_OCCLUSION:
        tl.store(grad_occlusion_pixels + at, top * upper + bottom * lower, mask=exists)


@triton.jit(do_not_specialize=["images", "Ho", "Wo", "h", "w"])
def flow_warp_bwd_map_kernel(
    pixels,  # (targets * images, Ho, Wo, PARTS) float32, gradients at the size of the output
    grad,  # (targets, h, w, PARTS) float32
    images, Ho, Wo, h, w,
    PARTS: tl.constexpr, TILE_X: tl.constexpr, SPAN: tl.constexpr,
):  # fmt: skip
    """A program: TILE_X elements of one row of grad; each sums over the output pixels that read it."""
    tiles = tl.cdiv(w * PARTS, TILE_X)
    row = tl.program_id(0) // tiles % h
    target = (tl.program_id(0) // tiles // h).to(tl.int64)
    element = tl.program_id(0) % tiles * TILE_X + tl.arange(0, TILE_X)
    column, part = (element // PARTS)[:, None], (element % PARTS)[:, None]
    scale_y = _resize_scale(h, Ho)
    scale_x = _resize_scale(w, Wo)
    first_y, last_y = _resize_readers(row, scale_y, Ho)
    first_x, last_x = _resize_readers(column, scale_x, Wo)
    steps = tl.cdiv(tl.max(tl.max(last_x - first_x, 1), 0) + 1, SPAN)
    sums = tl.zeros((TILE_X, SPAN), tl.float32)
    for step in range(0, steps):
        x = first_x + step * SPAN + tl.arange(0, SPAN)[None, :]
        weight_x = _weight_read(x, column, scale_x, w)
        for line in range(0, (last_y - first_y + 1) * images):
            image = line % images
            y = first_y + line // images
            weight = _weight_read(y, row, scale_y, h) * weight_x
            mask = (x < Wo) & (weight != 0) & (column < w)
            at = ((target * images + image) * Ho + y) * Wo + x
            sums += weight * tl.load(pixels + at * PARTS + part, mask=mask, other=0.0)
    at = (target * h + row) * w * PARTS + element
    tl.store(grad + at, tl.sum(sums, 1), mask=element < w * PARTS)


@triton.jit(do_not_specialize=_SIZES)
def flow_warp_bwd_keys_kernel(
    flow,  # (B, N, h, w, 2) float32
    occlusion,  # (B, 1, h', w') float32
    keys,  # (B*N, Ho, Wo) int64: the feature's pixel b*H*W + y*W + x of the top left tap; `nowhere` without any
    weights,  # (B*N, Ho, Wo, 4) float32 of the four taps, times the occlusion
    nowhere,
    N, H, W, Ho, Wo,
    flow_h, flow_w, flow_stride_b, flow_stride_n, flow_stride_y, flow_stride_x, flow_stride_xy,
    occlusion_h, occlusion_w, occlusion_stride_b, occlusion_stride_y, occlusion_stride_x,
    ALIGN_CORNERS: tl.constexpr, PADDING: tl.constexpr, SAME_FLOW: tl.constexpr, SAME_OCCLUSION: tl.constexpr,
    HAS_OCCLUSION: tl.constexpr, TILE_P: tl.constexpr, TILE_W: tl.constexpr,
):  # fmt: skip
    """The place that each output pixel reads. A program: TILE_P output pixels."""
    image, y, x, exists = _pixels(tl.program_id(0), Ho, Wo, TILE_P, TILE_W)
    b = image // N
    flow_x, flow_y = _read_flow(flow, flow_stride_b, flow_stride_n, flow_stride_y, flow_stride_x, flow_stride_xy,
                                flow_h, flow_w, N, Ho, Wo, image, y, x, exists, SAME_FLOW)  # fmt: skip
    base_y, top, bottom, _, _ = _sample_taps(flow_y, H, ALIGN_CORNERS, PADDING)
    base_x, left, right, _, _ = _sample_taps(flow_x, W, ALIGN_CORNERS, PADDING)
    inside = (top + bottom > 0) & (left + right > 0)
    if HAS_OCCLUSION:
        occluded = _read_map(occlusion + b * occlusion_stride_b, occlusion_stride_y, occlusion_stride_x, occlusion_h,
                             occlusion_w, Ho, Wo, y, x, exists, SAME_OCCLUSION)  # fmt: skip
        top *= occluded
        bottom *= occluded
    at = image * Ho * Wo + y.to(tl.int64) * Wo + x
    tl.store(keys + at, tl.where(inside, (b * H + base_y) * W + base_x, nowhere), mask=exists)
    tl.store(weights + at * 4, top * left, mask=exists)
    tl.store(weights + at * 4 + 1, top * right, mask=exists)
    tl.store(weights + at * 4 + 2, bottom * left, mask=exists)
    tl.store(weights + at * 4 + 3, bottom * right, mask=exists)


@triton.jit(do_not_specialize=["sources", "H", "W", "out_plane"])
def flow_warp_bwd_gather_kernel(
    grad_output,  # (B*N, C, Ho, Wo), dense in its memory format
    order,  # (B*N*Ho*Wo,) int64: the output pixels sorted by their keys, stable
    starts,  # (B*H*W + 1,) int64: where each key's run begins in `order`
    weights,  # (B*N*Ho*Wo, 4) float32
    grad_feature,  # (B, C, H, W) float32, dense in the memory format of feature
    sources, H, W, out_plane,
    C: tl.constexpr, CHANNELS_LAST: tl.constexpr, TILE_S: tl.constexpr, TILE_C: tl.constexpr,
):  # fmt: skip
    """A program: TILE_S pixels of the feature, TILE_C channels. Each sums over the pixels that read it, in order."""
    CHANNEL_TILES: tl.constexpr = (C + TILE_C - 1) // TILE_C
    first = tl.program_id(0) % CHANNEL_TILES * TILE_C
    channel = _channels(first, TILE_C, CHANNELS_LAST)
    source = (tl.program_id(0) // CHANNEL_TILES).to(tl.int64) * TILE_S + tl.arange(0, TILE_S)
    exists = source < sources
    plane = H.to(tl.int64) * W
    y = source % plane // W
    x = source % W
    sums = _over_pixels(tl.zeros((TILE_S,), tl.float32), CHANNELS_LAST) + tl.zeros(channel.shape, tl.float32)
    for tap in tl.static_range(4):
        # The base whose tap a pixel is; along an axis of one pixel both taps are the base itself.
        base_y = y - tl.where(H > 1, tap // 2, 0)
        base_x = x - tl.where(W > 1, tap % 2, 0)
        is_base = (base_y >= 0) & (base_y <= tl.maximum(H - 2, 0)) & (base_x >= 0) & (base_x <= tl.maximum(W - 2, 0))
        base = source - y * W - x + base_y * W + base_x
        begin = tl.load(starts + base, mask=is_base & exists, other=0)
        end = tl.load(starts + base + 1, mask=is_base & exists, other=0)
        for i in range(0, tl.max(end - begin, 0)):
            here = begin + i < end
            pixel = tl.load(order + begin + i, mask=here, other=0)
            weight = _over_pixels(tl.load(weights + pixel * 4 + tap, mask=here, other=0.0), CHANNELS_LAST)
            here, pixel = _over_pixels(here, CHANNELS_LAST), _over_pixels(pixel, CHANNELS_LAST)
            at = _offsets(pixel // out_plane, pixel % out_plane, channel, C, out_plane, CHANNELS_LAST)
            sums += weight * tl.load(grad_output + at, mask=here & (channel < C), other=0.0).to(tl.float32)
    source = _over_pixels(source, CHANNELS_LAST)
    at = _offsets(source // plane, source % plane, channel, C, plane, CHANNELS_LAST)
    tl.store(grad_feature + at, sums, mask=_over_pixels(exists, CHANNELS_LAST) & (channel < C))


class Tile(NamedTuple):
    """The work of a program: TILE_P pixels, TILE_W of them a row, TILE_C channels at a time."""

    TILE_P: int
    TILE_W: int
    TILE_C: int


def tile_of(channels: int, element_size: int, channels_last: bool, backward: bool) -> Tile:
    """The tile of a shape class; four warps work on it. Not tuned on a GPU yet."""
    if channels_last:
        tile_c = min(triton.next_power_of_2(channels), 256 // element_size)
        return Tile(min((1024 if backward else 2048) // tile_c, 128), 8, tile_c)
    return Tile(128, 32, min(triton.next_power_of_2(channels), 4 if backward else 8))


def gather_tile(channels: int) -> dict[str, int]:
    """TILE_S and TILE_C of flow_warp_bwd_gather_kernel, on four warps."""
    tile_c = min(triton.next_power_of_2(channels), 64)
    return {"TILE_S": min(1024 // tile_c, 128), "TILE_C": tile_c}


# Of flow_warp_bwd_keys_kernel, on four warps.
KEYS_TILE = Tile(128, 32, 1)

# Of flow_warp_bwd_map_kernel: elements of a row of the map, columns of the output at a time; on one warp.
MAP_TILE = {"TILE_X": 16, "SPAN": 16}


def flow_warp(
    feature: Tensor, flow: Tensor, occlusion: Tensor | None, height: int, width: int, align_corners: bool, padding: int
) -> Tensor:
    """feature (B, C, H, W), flow (B, N, h, w, 2) and occlusion (B, 1, h', w') float32 -> (B*N, C, height, width)."""
    channels_last = _is_channels_last(feature)
    output = torch.empty(
        (flow.shape[0] * flow.shape[1], feature.shape[1], height, width),
        dtype=feature.dtype,
        device=feature.device,
        memory_format=_memory_format(channels_last),
    )
    if output.numel() == 0:
        return output
    tile = tile_of(feature.shape[1], feature.element_size(), channels_last, backward=False)
    with torch.cuda.device_of(feature):
        flow_warp_fwd_kernel[_grid(output, tile)](
            feature,
            flow,
            flow if occlusion is None else occlusion,
            output,
            **_feature_sizes(feature, flow, height, width),
            **_map_sizes(flow, occlusion),
            **_map_switches(flow, occlusion, height, width, align_corners, padding),
            C=feature.shape[1],
            CHANNELS_LAST=channels_last,
            VECTOR=channels_last and _fills_vectors(feature, output),
            **tile._asdict(),
            num_warps=4,
        )
    return output


def flow_warp_backward(
    grad_output: Tensor,
    feature: Tensor,
    flow: Tensor,
    occlusion: Tensor | None,
    align_corners: bool,
    padding: int,
    need_feature: bool,
    need_flow: bool,
    need_occlusion: bool,
    deterministic: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """Float32 gradients of feature, flow and occlusion; those not needed have no elements.

    grad_output (B*N, C, Ho, Wo) is dense in the memory format of feature. With `deterministic`, grad_feature is summed
    in a fixed order too, by sorting the output pixels by where they read; the others always are.
    """
    B, N, h, w = flow.shape[:4]
    Ho, Wo = grad_output.shape[2:]
    empty = lambda *shape: torch.empty(shape, dtype=torch.float32, device=feature.device)  # noqa: E731
    grad_feature, grad_flow, grad_occlusion = empty(0), empty(0), empty(0)
    if need_feature:
        grad_feature = torch.zeros_like(
            feature, dtype=torch.float32, memory_format=_memory_format(_is_channels_last(feature))
        )
    if need_flow:
        grad_flow = empty(*flow.shape)
    if need_occlusion:
        assert occlusion is not None
        grad_occlusion = empty(*occlusion.shape)
    if grad_output.numel() == 0:
        return grad_feature, grad_flow.zero_(), grad_occlusion.zero_()

    with torch.cuda.device_of(feature):
        if need_feature and deterministic:
            _gather_feature(grad_output, feature, flow, occlusion, align_corners, padding, grad_feature)
        # With nothing resized or summed, the gradient of the resized map is the gradient itself.
        whole_flow = not need_flow or (h, w) == (Ho, Wo)
        whole_occlusion = not need_occlusion or (N == 1 and occlusion.shape[2:] == (Ho, Wo))
        flow_pixels = grad_flow if whole_flow else empty(B * N, Ho, Wo, 2)
        occlusion_pixels = grad_occlusion if whole_occlusion else empty(B * N, Ho, Wo)
        scatter = need_feature and not deterministic
        if scatter or need_flow or need_occlusion:
            _scatter(grad_output, feature, flow, occlusion, align_corners, padding, grad_feature, flow_pixels,
                     occlusion_pixels, scatter, need_flow, need_occlusion)  # fmt: skip
        if not whole_flow:
            _sum_over_readers(flow_pixels, grad_flow, B * N, 1, (Ho, Wo), (h, w), 2)
        if not whole_occlusion:
            _sum_over_readers(occlusion_pixels, grad_occlusion, B, N, (Ho, Wo), occlusion.shape[2:], 1)
    return grad_feature, grad_flow, grad_occlusion


def _scatter(
    grad_output: Tensor,
    feature: Tensor,
    flow: Tensor,
    occlusion: Tensor | None,
    align_corners: bool,
    padding: int,
    grad_feature: Tensor,
    flow_pixels: Tensor,
    occlusion_pixels: Tensor,
    need_feature: bool,
    need_flow: bool,
    need_occlusion: bool,
) -> None:
    channels_last = _is_channels_last(feature)
    height, width = grad_output.shape[2:]
    tile = tile_of(feature.shape[1], feature.element_size(), channels_last, backward=True)
    flow_warp_bwd_kernel[_grid(grad_output, tile)](
        grad_output,
        feature,
        flow,
        flow if occlusion is None else occlusion,
        grad_feature,
        flow_pixels,
        occlusion_pixels,
        **_feature_sizes(feature, flow, height, width),
        **_map_sizes(flow, occlusion),
        **_map_switches(flow, occlusion, height, width, align_corners, padding),
        C=feature.shape[1],
        CHANNELS_LAST=channels_last,
        VECTOR=channels_last and _fills_vectors(feature, grad_output),
        NEED_FEATURE=need_feature,
        NEED_FLOW=need_flow,
        NEED_OCCLUSION=need_occlusion,
        **tile._asdict(),
        num_warps=4,
    )


def _gather_feature(
    grad_output: Tensor,
    feature: Tensor,
    flow: Tensor,
    occlusion: Tensor | None,
    align_corners: bool,
    padding: int,
    grad_feature: Tensor,
) -> None:
    B, C, H, W = feature.shape
    images, _, height, width = grad_output.shape
    keys = torch.empty(images * height * width, dtype=torch.int64, device=feature.device)
    weights = torch.empty((keys.numel(), 4), dtype=torch.float32, device=feature.device)
    sizes = _feature_sizes(feature, flow, height, width)
    flow_warp_bwd_keys_kernel[_grid(grad_output, KEYS_TILE)](
        flow,
        flow if occlusion is None else occlusion,
        keys,
        weights,
        B * H * W,
        **{name: sizes[name] for name in ("N", "H", "W", "Ho", "Wo")},
        **_map_sizes(flow, occlusion),
        **_map_switches(flow, occlusion, height, width, align_corners, padding),
        TILE_P=KEYS_TILE.TILE_P,
        TILE_W=KEYS_TILE.TILE_W,
        num_warps=4,
    )
    keys, order = torch.sort(keys, stable=True)
    starts = torch.searchsorted(keys, torch.arange(B * H * W + 1, device=feature.device))
    tile = gather_tile(C)
    grid = triton.cdiv(B * H * W, tile["TILE_S"]) * triton.cdiv(C, tile["TILE_C"])
    flow_warp_bwd_gather_kernel[(grid,)](
        grad_output,
        order,
        starts,
        weights,
        grad_feature,
        B * H * W,
        H,
        W,
        height * width,
        C=C,
        CHANNELS_LAST=_is_channels_last(feature),
        **tile,
        num_warps=4,
    )


def _sum_over_readers(
    pixels: Tensor,
    grad: Tensor,
    targets: int,
    images: int,
    out_size: tuple[int, int],
    size: tuple[int, int],
    parts: int,
) -> None:
    grid = targets * size[0] * triton.cdiv(size[1] * parts, MAP_TILE["TILE_X"])
    flow_warp_bwd_map_kernel[(grid,)](pixels, grad, images, *out_size, *size, PARTS=parts, **MAP_TILE, num_warps=1)


def _grid(output: Tensor, tile: Tile) -> tuple[int]:
    images, _, height, width = output.shape
    return (images * triton.cdiv(height, tile.TILE_P // tile.TILE_W) * triton.cdiv(width, tile.TILE_W),)


def _feature_sizes(feature: Tensor, flow: Tensor, height: int, width: int) -> dict[str, int]:
    sizes = {"N": flow.shape[1], "H": feature.shape[2], "W": feature.shape[3], "Ho": height, "Wo": width}
    return sizes | dict(zip(("stride_b", "stride_c", "stride_y", "stride_x"), feature.stride(), strict=True))


def _map_sizes(flow: Tensor, occlusion: Tensor | None) -> dict[str, int]:
    stride = (0, 0, 0, 0) if occlusion is None else occlusion.stride()
    return {
        "flow_h": flow.shape[2],
        "flow_w": flow.shape[3],
        "flow_stride_b": flow.stride(0),
        "flow_stride_n": flow.stride(1),
        "flow_stride_y": flow.stride(2),
        "flow_stride_x": flow.stride(3),
        "flow_stride_xy": flow.stride(4),
        "occlusion_h": 1 if occlusion is None else occlusion.shape[2],
        "occlusion_w": 1 if occlusion is None else occlusion.shape[3],
        "occlusion_stride_b": stride[0],
        "occlusion_stride_y": stride[2],
        "occlusion_stride_x": stride[3],
    }


def _map_switches(
    flow: Tensor, occlusion: Tensor | None, height: int, width: int, align_corners: bool, padding: int
) -> dict[str, Any]:
    return {
        "ALIGN_CORNERS": align_corners,
        "PADDING": padding,
        "SAME_FLOW": flow.shape[2:4] == (height, width),
        "SAME_OCCLUSION": occlusion is not None and occlusion.shape[2:] == (height, width),
        "HAS_OCCLUSION": occlusion is not None,
    }


def _is_channels_last(feature: Tensor) -> bool:
    return feature.stride(1) == 1 and feature.stride(3) != 1


def _memory_format(channels_last: bool) -> torch.memory_format:
    return torch.channels_last if channels_last else torch.contiguous_format


def _fills_vectors(feature: Tensor, dense: Tensor) -> bool:
    """Whether the channels of each pixel are whole vectors of 16 bytes that start at a multiple of 16 bytes."""
    vector = 16 // feature.element_size()
    starts = (feature.data_ptr(), dense.data_ptr(), *(feature.stride(i) * feature.element_size() for i in (0, 2, 3)))
    return feature.shape[1] % vector == 0 and all(start % 16 == 0 for start in starts)
