#pragma once

#include "cbtalk/cuda/nearest_code.h"
#include "elements.cuh"

// What the forward and backward kernels of nearest_code share: elements of any storage, in float32.

namespace cbtalk::nearest_code {

__device__ inline float load(const void* data, Storage storage, int64_t offset) {
  if (storage == Storage::float16) return widen(static_cast<const __half*>(data)[offset]);
  if (storage == Storage::bfloat16) return widen(static_cast<const __nv_bfloat16*>(data)[offset]);
  return static_cast<const float*>(data)[offset];
}

__device__ inline float load(const StridedMatrix& matrix, int64_t row, int64_t column) {
  return load(matrix.data, matrix.storage, row * matrix.row_stride + column * matrix.column_stride);
}

__device__ inline void store(void* data, Storage storage, int64_t offset, float value) {
  if (storage == Storage::float16) {
    static_cast<__half*>(data)[offset] = narrow<__half>(value);
  } else if (storage == Storage::bfloat16) {
    static_cast<__nv_bfloat16*>(data)[offset] = narrow<__nv_bfloat16>(value);
  } else {
    static_cast<float*>(data)[offset] = value;
  }
}

__device__ inline float warp_sum(float value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  return value;
}

}  // namespace cbtalk::nearest_code
