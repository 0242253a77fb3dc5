#pragma once

#include "cbtalk/tf32.h"
#include "nearest_code_elements.cuh"

// Shared memory and registers of a block of the search: tiles of rows and codes, and their product.

namespace cbtalk::nearest_code {
namespace {

constexpr int kRowPitch = kDepth + 4;     // floats; spreads what a warp reads over the banks
constexpr int kColumnPitch = kPanel + 8;  // likewise

struct alignas(16) Tiles {
  float z[kRowTile][kRowPitch];
  float e[kDepth][kColumnPitch];
};

// Joins what all blocks and warps that search for a row have found, in the memory of its index and its distance.
__device__ void give(const NearestCodeCudaParams& p, int64_t row, const Nearest<float>& nearest) {
  const unsigned long long key = nearest_key(nearest.best, nearest.index);
  const unsigned long long met = atomicMin(reinterpret_cast<unsigned long long*>(p.indices) + row, key);
  // The larger key is not the row's best, and each that is not comes to be the larger one once.
  const uint32_t second = min(nearest_key_score(max(key, met)), ordered_score(nearest.second));
  atomicMin(reinterpret_cast<uint32_t*>(p.distances) + row, second);
}

// sum (16, 8) += a (16, 8) * b (8, 8), spread over a warp as PTX describes m16n8k8
__device__ void multiply(float (&sum)[4], const float (&a)[4], const float (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// Scores by a product in 3xTF32 on the tensor cores: each warp 32 rows by 64 codes. Rows of float16 or bfloat16 have no
// small part.
template <bool kSplitRows>
struct TensorProduct {
  int group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
  int row = threadIdx.x / 64 * 32 + group;
  int code = threadIdx.x / 32 % 2 * 64;
  float sum[2][8][4] = {};
  Nearest<float> nearest[4];

  __device__ void add(const Tiles& tiles) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 8) {
      const int d = k + member;
      float z[2][4], z_small[2][4];
#pragma unroll
      for (int m = 0; m < 2; ++m) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const SplitFloat parts = split_float(tiles.z[row + 16 * m + i % 2 * 8][d + i / 2 * 4]);
          z[m][i] = parts.big, z_small[m][i] = parts.small;
        }
      }
#pragma unroll
      for (int n = 0; n < 8; ++n) {
        const SplitFloat low = split_float(tiles.e[d][code + 8 * n + group]);
        const SplitFloat high = split_float(tiles.e[d + 4][code + 8 * n + group]);
        const float e[2] = {low.big, high.big}, e_small[2] = {low.small, high.small};
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          // The tensor cores truncate what they add up; a float32 sum of short sums does not drift.
          float part[4] = {};
          if (kSplitRows) multiply(part, z_small[m], e);
          multiply(part, z[m], e_small);
          multiply(part, z[m], e);
#pragma unroll
          for (int i = 0; i < 4; ++i) sum[m][n][i] += part[i];
        }
      }
    }
  }

  __device__ void compare(const float* norms, int32_t first) {
#pragma unroll
    for (int n = 0; n < 8; ++n) {
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        const int lane = code + 8 * n + 2 * member + i;
        const float norm = norms[lane];
#pragma unroll
        for (int m = 0; m < 2; ++m) {
          nearest[2 * m].take(fmaf(-2.0f, sum[m][n][i], norm), first + lane);
          nearest[2 * m + 1].take(fmaf(-2.0f, sum[m][n][2 + i], norm), first + lane);
          sum[m][n][i] = sum[m][n][2 + i] = 0.0f;
        }
      }
    }
  }

  __device__ void finish(const NearestCodeCudaParams& p, int64_t first_row) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      meet<4>(nearest[i]);
      const int64_t of_head = first_row + row + 8 * i;
      if (member == 0 && of_head < p.N) give(p, blockIdx.z * p.N + of_head, nearest[i]);
    }
  }
};

template <class T>
__device__ float4 load_four(const T* source);
template <>
__device__ float4 load_four(const float* source) {
  return *reinterpret_cast<const float4*>(source);
}
template <>
__device__ float4 load_four(const __half* source) {
  const float2 low = __half22float2(reinterpret_cast<const __half2*>(source)[0]);
  const float2 high = __half22float2(reinterpret_cast<const __half2*>(source)[1]);
  return {low.x, low.y, high.x, high.y};
}
template <>
__device__ float4 load_four(const __nv_bfloat16* source) {
  const float2 low = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(source)[0]);
  const float2 high = __bfloat1622float2(reinterpret_cast<const __nv_bfloat162*>(source)[1]);
  return {low.x, low.y, high.x, high.y};
}

// A thread's part of the next tiles: four columns of two rows, and twice four codes.
template <class T>
struct Prefetch {
  float4 z[2], e[2];

  __device__ void fetch(const NearestCodeCudaParams& p, const float* panel, int64_t first_row, int64_t column,
                        bool vectors) {
    const int64_t d = column + threadIdx.x % 4 * 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t row = first_row + threadIdx.x / 4 + half * (kRowTile / 2);
      float4 four = {0.0f, 0.0f, 0.0f, 0.0f};
      if (row < p.N && d < p.D) {
        const int64_t stride = p.z.column_stride;
        const int64_t offset = blockIdx.z * p.z.head_stride + row * p.z.row_stride + d * stride;
        const T* source = static_cast<const T*>(p.z.data) + offset;
        if (vectors) {
          four = load_four(source);
        } else {
          four.x = widen(source[0]);
          if (d + 1 < p.D) four.y = widen(source[stride]);
          if (d + 2 < p.D) four.z = widen(source[2 * stride]);
          if (d + 3 < p.D) four.w = widen(source[3 * stride]);
        }
      }
      z[half] = four;
      const int place = threadIdx.x + half * kThreads;
      e[half] = load_four(panel + (column + place / 32) * kPanel + place % 32 * 4);
    }
  }

  __device__ void put(Tiles& tiles) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int place = threadIdx.x + half * kThreads;
      *reinterpret_cast<float4*>(&tiles.z[threadIdx.x / 4 + half * (kRowTile / 2)][threadIdx.x % 4 * 4]) = z[half];
      *reinterpret_cast<float4*>(&tiles.e[place / 32][place % 32 * 4]) = e[half];
    }
  }
};

}  // namespace
}  // namespace cbtalk::nearest_code
