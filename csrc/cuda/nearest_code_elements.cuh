#pragma once

#include "cbtalk/cuda/nearest_code.h"
#include "cbtalk/cuda/nearest_code_doubt.h"
#include "elements.cuh"

// What the kernels of nearest_code share: elements of any storage, in float32, the workspace, and what warps do together.

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

// The parts of the workspace of a search.
struct Workspace {
  double* partials;       // (winner_blocks(N),) sums of distances
  float* squared_length;  // () of the longest code
  float* packed;          // panels(K) of panel_floats(D)
};

inline Workspace workspace_of(const NearestCodeCudaParams& p) {
  double* partials = static_cast<double*>(p.workspace);
  auto* squared_length = reinterpret_cast<float*>(static_cast<char*>(p.workspace) + partial_bytes(p.N));
  return {partials, squared_length, squared_length + 4};
}

__device__ inline float warp_sum(float value) {
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
