#pragma once

// Shared by the attention kernels of all widths: the lanes of a warp, the parts of an element, and the rows of queries
// that a warp owns as left factors of products on tensor cores (tensor_cores.cuh says which lane holds what).

#include "attention_tiles.cuh"
#include "tensor_cores.cuh"

namespace cbtalk::attention {

// Numbers that add up to an element.
template <class T>
constexpr int kParts = sizeof(T) == sizeof(float) ? 3 : 1;
template <class T>
using Part = std::conditional_t<sizeof(T) == sizeof(float), __nv_bfloat16, T>;

__device__ inline int lane_row() { return threadIdx.x % 32 / 4; }  // g
__device__ inline int lane_member() { return threadIdx.x % 4; }    // t

// Sums up over the lanes of a row.
__device__ inline float row_sum(float x) {
  x += __shfl_xor_sync(0xffffffffu, x, 1);
  return x + __shfl_xor_sync(0xffffffffu, x, 2);
}
template <int D, class T>
__device__ float row_dot(const T* a, const T* b) {
  float sum = 0.0f;
  for (int j = lane_member(); a != nullptr && j < D; j += 4) sum = fmaf(widen(a[j]), widen(b[j]), sum);
  return row_sum(sum);
}
__device__ inline float row_maximum(float x) {
  x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
  return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

// Two adjacent elements, part by part.
template <class T>
struct Pair {
  uint32_t word[kParts<T>];

  __device__ Pair(T low, T high) {
    if constexpr (kParts<T> == 1) {
      const T both[2] = {low, high};
      memcpy(word, both, sizeof(both));
    } else {
#pragma unroll
      for (int part = 0; part < kParts<T>; ++part) {
        const __nv_bfloat162 both = __floats2bfloat162_rn(low, high);  // one instruction
        memcpy(&word[part], &both, sizeof(both));
        low -= __low2float(both), high -= __high2float(both);
      }
    }
  }
};

// Rows of queries of all warps of a block, for M = 1.
constexpr int kBlockRows = kThreads / 32 * 16;

// The rows of queries that a warp owns: M times 16, of which a lane has rows g and g + 8 (half 0 and 1).
template <int M>
struct WarpRows {
  Place place;
  int64_t first, count;  // row g of m = 0 within its key set, and the rows that there are

  __device__ explicit WarpRows(const AttentionCudaParams& params) : count(params.rows_per_key_set()) {
    place = place_of(attention_tiles(count, M * kBlockRows), params.heads);
    first = (place.tile * (kThreads / 32) + threadIdx.x / 32) * M * 16 + lane_row();
  }

  __device__ bool inside(int m, int half) const { return first + 16 * m + 8 * half < count; }
  __device__ int64_t row(int m, int half) const { return place.part * count + first + 16 * m + 8 * half; }

  template <class T>
  __device__ const T* at(const AttentionCudaParams& params, const AttentionCudaRows& rows, int m, int half) const {
    return inside(m, half) ? row_of<T>(params, rows, row(m, half), place.head) : nullptr;
  }

  // Of an output, which is contiguous.
  template <class T>
  __device__ T* target(const AttentionCudaParams& params, void* output, int m, int half) const {
    return static_cast<T*>(output) + row(m, half) * params.width() + place.head * params.head_size;
  }
};

}  // namespace cbtalk::attention
