#pragma once

// Rows of any storage and any strides as float32 side by side, which is what the kernels of nearest_code compute with.

#include "bfloat16.h"
#include "cbtalk/nearest_code.h"
#include "float16.h"

namespace cbtalk::CBTALK_ISA {

static inline void narrow(float value, float* target) { *target = value; }

static inline void narrow(float value, Float16* target) { *target = to_float16(value); }

static inline void narrow(float value, Bfloat16* target) { store_first(target, broadcast(value), 1); }

template <class Element>
static inline void widen_row(const Element* source, int64_t stride, int64_t D, float* target) {
  int64_t d = 0;
  if (stride == 1) {
    for (; d + kWidth <= D; d += kWidth) store(target + d, load(source + d));
  }
  for (; d < D; ++d) target[d] = widen(source[d * stride]);
}

template <class Element>
static inline void narrow_row(const float* source, int64_t D, Element* target) {
  int64_t d = 0;
  for (; d + kWidth <= D; d += kWidth) store(target + d, load(source + d));
  for (; d < D; ++d) narrow(source[d], target + d);
}

// Row `row` of a matrix (., D): where it lies if it is float32 side by side, and otherwise copied to `scratch` (D,).
static inline const float* float32_row(const StridedMatrix& matrix, int64_t row, int64_t D, float* scratch) {
  const int64_t begin = row * matrix.row_stride, stride = matrix.column_stride;
  if (matrix.storage == Storage::float32) {
    const float* source = static_cast<const float*>(matrix.data) + begin;
    if (stride == 1) return source;
    widen_row(source, stride, D, scratch);
  } else if (matrix.storage == Storage::float16) {
    widen_row(static_cast<const Float16*>(matrix.data) + begin, stride, D, scratch);
  } else {
    widen_row(static_cast<const Bfloat16*>(matrix.data) + begin, stride, D, scratch);
  }
  return scratch;
}

// The row `row` of target (., D), contiguous, to compute in float32: in place if it is stored so, else in `scratch`;
// store_row then stores it.
static inline float* float32_target(void* target, Storage storage, int64_t row, int64_t D, float* scratch) {
  return storage == Storage::float32 ? static_cast<float*>(target) + row * D : scratch;
}

// Writes values (D,) as row `row` of target (., D), contiguous.
static inline void store_row(const float* values, void* target, Storage storage, int64_t row, int64_t D) {
  if (storage == Storage::float32) {
    float* place = static_cast<float*>(target) + row * D;
    if (values != place) narrow_row(values, D, place);
  } else if (storage == Storage::float16) {
    narrow_row(values, D, static_cast<Float16*>(target) + row * D);
  } else {
    narrow_row(values, D, static_cast<Bfloat16*>(target) + row * D);
  }
}

}  // namespace cbtalk::CBTALK_ISA
