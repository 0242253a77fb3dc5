#pragma once

// Places to read an image at: coordinates, resizing, padding and bilinear taps. The one place of each formula, for
// every backend. Everything is static: the CPU kernels are compiled once an instruction level, and the copies must not
// be merged.

#include <cstdint>

#include "cbtalk/host_device.h"

namespace cbtalk {

// A normalised coordinate x in [-1, 1] along an axis of `size` pixels lies at x * scale + shift, in pixels.
// align_corners: -1 and 1 are the centres of the first and the last pixel; otherwise their outer edges.
struct AxisMapping {
  float scale;
  float shift;
};

CBTALK_HOST_DEVICE static inline AxisMapping axis_mapping(int64_t size, bool align_corners) {
  const float last = static_cast<float>(size - 1);
  return {0.5f * (align_corners ? last : static_cast<float>(size)), 0.5f * last};
}

// Padding outside of an image: zeros, the nearest pixel of its border, or its mirror images. As in aten.
enum class Padding : int32_t { zeros = 0, border = 1, reflection = 2 };

// A position in pixels; slope is d position / d coordinate, in units of the mapping's scale.
template <class Real>
struct PaddedPosition {
  Real position;
  Real slope;
};

// A finite coordinate mirrored at -1 and 1 until it lies between them: at the centres or the outer edges of the first
// and the last pixel, as the mapping says. No step rounds, however large the coordinate.
template <class Real>
CBTALK_HOST_DEVICE static inline PaddedPosition<Real> mirror(Real coordinate) {
  const Real zero = {}, one = zero + 1.0f;
  const Real magnitude = coordinate < 0.0f ? -coordinate : coordinate;
  const Real quarter = 0.25f * magnitude;  // the images repeat every 4
  const float shift = 8388608.0f;          // 2^23: the sum has no fraction bits left, nor has anything larger
  const Real repeats = quarter < shift ? (quarter + shift) - shift : quarter;
  const Real rest = magnitude - 4.0f * repeats;  // in [-2, 2]
  const Real mirrored = rest > 1.0f ? 2.0f - rest : (rest < -1.0f ? -2.0f - rest : rest);
  const auto turned = (rest > 1.0f) | (rest < -1.0f);
  return {coordinate < 0.0f ? -mirrored : mirrored, turned ? -one : one};
}

// The place of a coordinate along an axis of `size` pixels; to_pixels maps a coordinate as axis_mapping says. At the
// border and beyond it the derivative of clipping is 0. A coordinate that is not finite is read where there is no tap.
template <Padding kPadding, class Real, class ToPixels>
CBTALK_HOST_DEVICE static inline PaddedPosition<Real> padded_position(Real coordinate, int32_t size,
                                                                      ToPixels to_pixels) {
  const Real zero = {}, one = zero + 1.0f;
  if constexpr (kPadding == Padding::zeros) {
    return {to_pixels(coordinate), one};
  } else {
    const auto finite = coordinate - coordinate == 0.0f;
    PaddedPosition<Real> inner = {finite ? coordinate : zero, one};
    if constexpr (kPadding == Padding::reflection) inner = mirror(inner.position);
    const Real position = to_pixels(inner.position);
    const Real last = zero + static_cast<float>(size - 1);
    const Real clipped = position > 0.0f ? (position < last ? position : last) : zero;
    const auto between = (position > 0.0f) & (position < last);
    return {finite ? clipped : zero - 2.0f, between ? inner.slope : zero};
  }
}

// Corner-aligned bilinear resizing along one axis: target pixel t reads source position t * scale.
CBTALK_HOST_DEVICE static inline float resize_scale(int64_t source_size, int64_t target_size) {
  return target_size > 1 ? static_cast<float>(source_size - 1) / static_cast<float>(target_size - 1) : 0.0f;
}

template <class Real, class Int>
struct ResizeTaps {
  Int low, high;     // the same at the last pixel
  Real high_weight;  // that of low is 1 - high_weight
};

// Real and Int are float and int32_t, or vectors of them. floor + fraction is the source position.
template <class Real, class Int>
CBTALK_HOST_DEVICE static inline ResizeTaps<Real, Int> resize_taps(Int floor, Real fraction, int32_t source_size) {
  const Int last = (floor - floor) + (source_size - 1);
  return {floor < last ? floor : last, floor + 1 < last ? floor + 1 : last, fraction};
}

CBTALK_HOST_DEVICE static inline ResizeTaps<float, int32_t> resize_taps(int32_t target, float scale,
                                                                        int32_t source_size) {
  const float position = static_cast<float>(target) * scale;
  const int32_t floor = static_cast<int32_t>(position);
  return resize_taps<float, int32_t>(floor, position - static_cast<float>(floor), source_size);
}

// Bilinear sampling with zero padding along one axis, as two taps that can always be read: pixels `base` and
// `base + 1` (`base` again where size is 1). A pixel outside the image has no tap: its weight is left out.
//   low in [0, size - 2]:  both taps        low = -1: the first one alone        low = size - 1: the second one alone
template <class Real, class Int>
struct SampleTaps {
  Int base;
  Real weight[2];
  Real slope[2];  // d weight / d coordinate, in units of the mapping's scale
};

// low + fraction is the position, `slope` that of PaddedPosition.
template <class Real, class Int>
CBTALK_HOST_DEVICE static inline SampleTaps<Real, Int> sample_taps(Int low, Real fraction, Real slope, int32_t size) {
  const Real zero = fraction - fraction;
  const Real one = zero + 1.0f;
  const Int origin = low - low;
  const Int last = origin + (size > 1 ? size - 2 : 0);
  const auto both = (low >= 0) & (low <= size - 2);
  const auto first = low == -1;
  const auto second = low == size - 1;

  SampleTaps<Real, Int> taps;
  taps.base = low < 0 ? origin : low;
  taps.base = taps.base > last ? last : taps.base;
  taps.weight[0] = both ? one - fraction : (first ? fraction : zero);
  taps.weight[1] = both ? fraction : (second ? one - fraction : zero);
  taps.slope[0] = both ? -slope : (first ? slope : zero);
  taps.slope[1] = both ? slope : (second ? -slope : zero);
  return taps;
}

}  // namespace cbtalk
