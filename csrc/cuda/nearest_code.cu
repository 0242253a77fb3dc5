#include "cbtalk/cuda/nearest_code.h"

#include <cmath>

#include "cbtalk/ordering.h"
#include "cbtalk/tf32.h"
#include "nearest_code_elements.cuh"

// The search is a matrix product that stays in registers. A block takes kRowTile rows and goes through the codes panel
// by panel, kDepth columns at a time through shared memory; score = |e|^2 - 2 z.e. What it finds goes to memory as keys
// (ordering.h), so that blocks may share the panels of one row. The keys lie where the indices will.
//
// packed codebook: panel after panel, each |e|^2 (kPanel) and then e as (padded_depth, kPanel), in float32

namespace cbtalk::nearest_code {
namespace {

constexpr int kRowPitch = kDepth + 4;     // floats; spreads what a warp reads over the banks
constexpr int kColumnPitch = kPanel + 8;  // likewise

struct alignas(16) Tiles {
  float z[kRowTile][kRowPitch];
  float e[kDepth][kColumnPitch];
};

// A warp packs 32 codes by 32 columns at a time, transposed.
__global__ __launch_bounds__(kThreads) void nearest_code_pack_kernel(NearestCodeCudaParams p, float* packed) {
  __shared__ float tile[32][33];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 32;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * 32;
  float* panel = packed + first / kPanel * panel_floats(p.D) + first % kPanel;
  for (int i = warp; i < 32; i += kThreads / 32) {
    const bool inside = first + i < p.K && column + lane < p.D;
    tile[i][lane] = inside ? load(p.codebook, first + i, column + lane) : 0.0f;
  }
  __syncthreads();
  for (int i = warp; i < 32 && column + i < padded_depth(p.D); i += kThreads / 32) {
    panel[(1 + column + i) * kPanel + lane] = tile[lane][i];
  }
  if (blockIdx.y == 0) {
    for (int i = warp; i < 32; i += kThreads / 32) {
      float norm = 0.0f;
      for (int64_t d = lane; d < p.D && first + i < p.K; d += 32) {
        const float element = load(p.codebook, first + i, d);
        norm = fmaf(element, element, norm);
      }
      norm = warp_sum(norm);
      // What fills up the last panel is never nearer than anything.
      if (lane == 0) panel[i] = first + i < p.K ? norm : INFINITY;
    }
  }
  const int64_t threads = static_cast<int64_t>(gridDim.x) * gridDim.y * kThreads;
  const int64_t thread = (blockIdx.x + static_cast<int64_t>(blockIdx.y) * gridDim.x) * kThreads + threadIdx.x;
  for (int64_t row = thread; row < p.N; row += threads) p.indices[row] = -1;  // the largest key
  for (int64_t k = thread; p.codes != nullptr && k < p.K; k += threads) p.counts[k] = 0;
}

__device__ void take_nearer(float& best, int32_t& index, float score, int32_t code) {
  // Codes come in ascending order, so that strictly less keeps the smallest index of equals. A NaN is not less.
  if (score < best) best = score, index = code;
}

// Lanes that differ in the bits below `lanes` agree on the nearest of theirs.
template <int kLanes>
__device__ void meet(float& best, int32_t& index) {
#pragma unroll
  for (int lane = 1; lane < kLanes; lane *= 2) {
    const float other = __shfl_xor_sync(0xffffffffu, best, lane);
    const int32_t other_index = __shfl_xor_sync(0xffffffffu, index, lane);
    if (is_nearer(other, other_index, best, index)) best = other, index = other_index;
  }
}

__device__ void give(const NearestCodeCudaParams& p, int64_t row, float best, int32_t index) {
  if (row < p.N) atomicMin(reinterpret_cast<unsigned long long*>(p.indices) + row, nearest_key(best, index));
}

// A product in float32: each thread 8 rows by 8 codes.
struct FmaProduct {
  int row = threadIdx.x / 16;         // and every 16th after it
  int code = threadIdx.x % 16 * 4;    // 4 codes, and 4 in the other half of the panel
  float sum[8][8] = {};
  float best[8];
  int32_t index[8] = {};

  __device__ FmaProduct() {
    for (float& score : best) score = INFINITY;
  }

  __device__ void add(const Tiles& tiles) {
#pragma unroll 4
    for (int d = 0; d < kDepth; ++d) {
      float e[8];
      *reinterpret_cast<float4*>(e) = *reinterpret_cast<const float4*>(&tiles.e[d][code]);
      *reinterpret_cast<float4*>(e + 4) = *reinterpret_cast<const float4*>(&tiles.e[d][code + kPanel / 2]);
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const float z = tiles.z[row + 16 * i][d];
#pragma unroll
        for (int j = 0; j < 8; ++j) sum[i][j] = fmaf(z, e[j], sum[i][j]);
      }
    }
  }

  __device__ void compare(const float* norms, int32_t first) {
#pragma unroll
    for (int j = 0; j < 8; ++j) {
      const int lane = code + j % 4 + j / 4 * (kPanel / 2);
      const float norm = norms[lane];
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        take_nearer(best[i], index[i], fmaf(-2.0f, sum[i][j], norm), first + lane);
        sum[i][j] = 0.0f;
      }
    }
  }

  __device__ void finish(const NearestCodeCudaParams& p, int64_t first_row) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      meet<16>(best[i], index[i]);
      if (threadIdx.x % 16 == 0) give(p, first_row + row + 16 * i, best[i], index[i]);
    }
  }
};

// sum (16, 8) += a (16, 8) * b (8, 8), spread over a warp as PTX describes m16n8k8
__device__ void multiply(float (&sum)[4], const float (&a)[4], const float (&b)[2]) {
  asm("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(__float_as_uint(a[0])), "r"(__float_as_uint(a[1])), "r"(__float_as_uint(a[2])),
        "r"(__float_as_uint(a[3])), "r"(__float_as_uint(b[0])), "r"(__float_as_uint(b[1])));
}

// A product in 3xTF32 on the tensor cores: each warp 32 rows by 64 codes. Rows of float16 or bfloat16 have no small part.
template <bool kSplitRows>
struct TensorProduct {
  int group = threadIdx.x % 32 / 4, member = threadIdx.x % 4;
  int row = threadIdx.x / 64 * 32 + group;
  int code = threadIdx.x / 32 % 2 * 64;
  float sum[2][8][4] = {};
  float best[4];
  int32_t index[4] = {};

  __device__ TensorProduct() {
    for (float& score : best) score = INFINITY;
  }

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
          take_nearer(best[2 * m], index[2 * m], fmaf(-2.0f, sum[m][n][i], norm), first + lane);
          take_nearer(best[2 * m + 1], index[2 * m + 1], fmaf(-2.0f, sum[m][n][2 + i], norm), first + lane);
          sum[m][n][i] = sum[m][n][2 + i] = 0.0f;
        }
      }
    }
  }

  __device__ void finish(const NearestCodeCudaParams& p, int64_t first_row) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      meet<4>(best[i], index[i]);
      if (member == 0) give(p, first_row + row + 8 * i, best[i], index[i]);
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

// What a thread brings of the next tiles: four columns of two rows, and twice four codes.
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
        const T* source = static_cast<const T*>(p.z.data) + row * p.z.row_stride + d * p.z.column_stride;
        if (vectors) {
          four = load_four(source);
        } else {
          const int64_t offset = row * p.z.row_stride + d * p.z.column_stride, stride = p.z.column_stride;
          four.x = load(p.z.data, p.z.storage, offset);
          if (d + 1 < p.D) four.y = load(p.z.data, p.z.storage, offset + stride);
          if (d + 2 < p.D) four.z = load(p.z.data, p.z.storage, offset + 2 * stride);
          if (d + 3 < p.D) four.w = load(p.z.data, p.z.storage, offset + 3 * stride);
        }
      }
      z[half] = four;
      const int place = threadIdx.x + half * kThreads;
      e[half] = load_four(panel + (1 + column + place / 32) * kPanel + place % 32 * 4);
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

// vectors: four columns of a row that begin at a multiple of four are all there, side by side and aligned.
template <class T, class Product>
__global__ __launch_bounds__(kThreads) void nearest_code_search_kernel(NearestCodeCudaParams p, const float* packed,
                                                                       bool vectors) {
  static_assert(kRowTile * kDepth == 8 * kThreads && kPanel * kDepth == 8 * kThreads);
  __shared__ Tiles tiles[2];
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRowTile;
  const int64_t depth = padded_depth(p.D);
  int64_t panel = panels(p.K) * blockIdx.y / gridDim.y;
  const int64_t last_panel = panels(p.K) * (blockIdx.y + 1) / gridDim.y;
  Product product;
  Prefetch<T> next;
  next.fetch(p, packed + panel * panel_floats(p.D), first_row, 0, vectors);
  next.put(tiles[0]);
  __syncthreads();
  int64_t column = 0;
  for (int current = 0; panel < last_panel; current ^= 1) {
    const bool panel_ends = column + kDepth == depth;
    const int64_t next_panel = panel_ends ? panel + 1 : panel;
    column = panel_ends ? 0 : column + kDepth;
    if (next_panel < last_panel) {
      next.fetch(p, packed + next_panel * panel_floats(p.D), first_row, column, vectors);
    }
    product.add(tiles[current]);
    if (panel_ends) product.compare(packed + panel * panel_floats(p.D), static_cast<int32_t>(panel * kPanel));
    // The other tiles were last read before the barrier of the step before this.
    if (next_panel < last_panel) next.put(tiles[current ^ 1]);
    __syncthreads();
    panel = next_panel;
  }
  product.finish(p, first_row);
}

// A warp reads one winner at a time: index, distance, code, count; partials (gridDim.x,) sum the distances.
__global__ __launch_bounds__(kThreads) void nearest_code_winners_kernel(NearestCodeCudaParams p, double* partials) {
  __shared__ double totals[kThreads / 32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  double total = 0.0;
  for (int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + warp; row < p.N;
       row += static_cast<int64_t>(gridDim.x) * (kThreads / 32)) {
    const int32_t index = nearest_key_index(static_cast<uint64_t>(p.indices[row]));
    float distance = 0.0f;
    for (int64_t d = lane; d < p.D; d += 32) {
      const float code = load(p.codebook, index, d);
      const float difference = load(p.z, row, d) - code;
      distance = fmaf(difference, difference, distance);
      if (p.codes != nullptr) store(p.codes, p.z.storage, row * p.D + d, code);
    }
    distance = warp_sum(distance);
    total += static_cast<double>(distance);
    if (lane == 0) {
      p.indices[row] = index;
      if (p.distances != nullptr) p.distances[row] = distance;
      if (p.codes != nullptr) atomicAdd(reinterpret_cast<unsigned long long*>(p.counts) + index, 1ull);
    }
  }
  if (lane == 0) totals[warp] = total;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int other = 1; other < kThreads / 32; ++other) total += totals[other];
    partials[blockIdx.x] = total;
  }
}

__global__ __launch_bounds__(kThreads) void quantization_loss_kernel(NearestCodeCudaParams p, const double* partials,
                                                                     int64_t count) {
  __shared__ double totals[kThreads];
  double total = 0.0;
  for (int64_t i = threadIdx.x; i < count; i += kThreads) total += partials[i];
  totals[threadIdx.x] = total;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) totals[threadIdx.x] += totals[threadIdx.x + half];
  }
  // Both terms of the loss have the same value: they differ in where the gradient goes.
  if (threadIdx.x == 0) *p.loss = static_cast<float>((1.0 + p.beta) * totals[0] / static_cast<double>(p.N * p.D));
}

template <class T>
void launch_search(const NearestCodeCudaParams& p, const float* packed, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(p.N, kRowTile)), static_cast<unsigned>(splits(p.N, p.K)));
  const uint64_t four = 4 * sizeof(T);
  const bool vectors = p.z.column_stride == 1 && p.D % 4 == 0 && p.z.row_stride % 4 == 0 &&
                       reinterpret_cast<uint64_t>(p.z.data) % four == 0;
  if (p.D < kTensorCoresFrom) {
    nearest_code_search_kernel<T, FmaProduct><<<grid, kThreads, 0, stream>>>(p, packed, vectors);
  } else {
    constexpr bool kSplitRows = sizeof(T) == sizeof(float);
    nearest_code_search_kernel<T, TensorProduct<kSplitRows>><<<grid, kThreads, 0, stream>>>(p, packed, vectors);
  }
}

}  // namespace
}  // namespace cbtalk::nearest_code

namespace cbtalk {

cudaError_t nearest_code_forward_cuda(const NearestCodeCudaParams& p, cudaStream_t stream) {
  using namespace nearest_code;
  double* partials = static_cast<double*>(p.workspace);
  float* packed = reinterpret_cast<float*>(static_cast<char*>(p.workspace) + partial_bytes(p.N));
  const dim3 pack_grid(static_cast<unsigned>(panels(p.K) * (kPanel / 32)),
                       static_cast<unsigned>(ceil_div(padded_depth(p.D), 32)));
  nearest_code_pack_kernel<<<pack_grid, kThreads, 0, stream>>>(p, packed);
  with_storage(p.z.storage, [&](auto element) { launch_search<decltype(element)>(p, packed, stream); });
  const int64_t blocks = winner_blocks(p.N);
  nearest_code_winners_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(p, partials);
  if (p.codes != nullptr) quantization_loss_kernel<<<1, kThreads, 0, stream>>>(p, partials, blocks);
  return cudaGetLastError();
}

}  // namespace cbtalk
