#pragma once

// Padding as its definition says it, in double: by folding a position in pixels, one mirror after another.

#include <cmath>
#include <cstdint>

#include "cbtalk/geometry.h"

// The place of a coordinate in [-1, 1] along an axis, in pixels; *slope is d position / d coordinate, if asked for.
inline double exact_position(double coordinate, int64_t size, bool align_corners, cbtalk::Padding padding,
                             double* slope = nullptr) {
  const double last = static_cast<double>(size - 1), scale = 0.5 * (align_corners ? last : static_cast<double>(size));
  double position = coordinate * scale + 0.5 * last, sign = 1;
  if (padding == cbtalk::Padding::reflection) {
    const double low = align_corners ? 0 : -0.5, high = last - low;
    while (high > low && (position < low || position > high)) {
      position = 2 * (position < low ? low : high) - position;
      sign = -sign;
    }
  }
  const bool clipped = padding != cbtalk::Padding::zeros && (position <= 0 || position >= last);
  if (slope != nullptr) *slope = clipped ? 0 : sign * scale;
  return clipped ? std::fmin(std::fmax(position, 0), last) : position;
}
