#pragma once

#include "cbtalk/cuda/nearest_code.h"
#include "cbtalk/cuda/nearest_code_doubt.h"
#include "elements.cuh"

// Shared by the kernels of nearest_code: elements of any storage, in float32, heads, and what warps do together.

namespace cbtalk::nearest_code {

__device__ inline float load(const void* data, Storage storage, int64_t offset) {
  if (storage == Storage::float16) return widen(static_cast<const __half*>(data)[offset]);
  if (storage == Storage::bfloat16) return widen(static_cast<const __nv_bfloat16*>(data)[offset]);
  return static_cast<const float*>(data)[offset];
}

__device__ inline float load(const StridedMatrices& matrices, int64_t head, int64_t row, int64_t column) {
  const int64_t offset = head * matrices.head_stride + row * matrices.row_stride;
  return load(matrices.data, matrices.storage, offset + column * matrices.column_stride);
}

__device__ inline float load(const RowWeights& weight, int64_t head, int64_t row) {
  return weight.data[head * weight.head_stride + row * weight.row_stride];
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

template <class T>
__device__ T warp_sum(T value) {
#pragma unroll
  for (int lanes = 16; lanes > 0; lanes /= 2) value += __shfl_xor_sync(0xffffffffu, value, lanes);
  return value;
}

// Lanes that differ in the bits below `kLanes` agree on the nearest of theirs.
template <int kLanes, class Score>
__device__ void meet(Nearest<Score>& nearest) {
#pragma unroll
  for (int lane = 1; lane < kLanes; lane *= 2) {
    nearest.take({__shfl_xor_sync(0xffffffffu, nearest.best, lane), __shfl_xor_sync(0xffffffffu, nearest.second, lane),
                  __shfl_xor_sync(0xffffffffu, nearest.index, lane)});
  }
}

}  // namespace cbtalk::nearest_code
