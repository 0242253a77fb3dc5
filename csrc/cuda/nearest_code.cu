#include "cbtalk/cuda/nearest_code.h"

#include <cmath>

#include "nearest_code_product.cuh"
#include "nearest_code_winners.cuh"

// The search is a matrix product that stays in registers. A block takes kRowTile rows and goes through the codes panel
// by panel, kDepth columns at a time through shared memory; score = |e|^2 - 2 z.e. What it finds goes to memory as keys
// (ordering.h), so that blocks may share the panels of one row. The keys lie where the indices will, the second best
// scores where the distances will.
//
// packed codebook: panel after panel, each |e|^2 (kPanel) and then e as (padded_depth, kPanel), in float32

namespace cbtalk::nearest_code {
namespace {

// A warp packs 32 codes by 32 columns at a time, transposed.
__global__ __launch_bounds__(kThreads) void nearest_code_pack_kernel(NearestCodeCudaParams p, Workspace workspace) {
  __shared__ float tile[32][33];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 32;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * 32;
  float* panel = workspace.packed + first / kPanel * panel_floats(p.D) + first % kPanel;
  for (int i = warp; i < 32; i += kThreads / 32) {
    const bool inside = first + i < p.K && column + lane < p.D;
    tile[i][lane] = inside ? load(p.codebook, first + i, column + lane) : 0.0f;
  }
  __syncthreads();
  for (int i = warp; i < 32 && column + i < padded_depth(p.D); i += kThreads / 32) {
    panel[(1 + column + i) * kPanel + lane] = tile[lane][i];
  }
  if (blockIdx.y == 0) {
    float largest = 0.0f;
    for (int i = warp; i < 32; i += kThreads / 32) {
      float norm = 0.0f;
      for (int64_t d = lane; d < p.D && first + i < p.K; d += 32) {
        const float element = load(p.codebook, first + i, d);
        norm = fmaf(element, element, norm);
      }
      norm = warp_sum(norm);
      largest = fmaxf(largest, norm);  // without a NaN, which is never nearest
      // What fills up the last panel is never nearer than anything.
      if (lane == 0) panel[i] = first + i < p.K ? norm : INFINITY;
    }
    // Floats that are not negative have the order of their bits.
    if (lane == 0) atomicMax(reinterpret_cast<unsigned*>(workspace.squared_length), __float_as_uint(largest));
  }
  const int64_t threads = static_cast<int64_t>(gridDim.x) * gridDim.y * kThreads;
  const int64_t thread = (blockIdx.x + static_cast<int64_t>(blockIdx.y) * gridDim.x) * kThreads + threadIdx.x;
  for (int64_t row = thread; row < p.N; row += threads) {
    p.indices[row] = -1;  // the largest key, and the largest score
    reinterpret_cast<uint32_t*>(p.distances)[row] = 0xffffffffu;
  }
  for (int64_t k = thread; p.codes != nullptr && k < p.K; k += threads) p.counts[k] = 0;
}

// vectors: four columns of a row that begin at a multiple of four are all there, side by side and aligned.
template <class T, bool kSplitRows>
__global__ __launch_bounds__(kThreads) void nearest_code_search_kernel(NearestCodeCudaParams p, const float* packed,
                                                                       bool vectors) {
  static_assert(kRowTile * kDepth == 8 * kThreads && kPanel * kDepth == 8 * kThreads);
  __shared__ Tiles tiles[2];
  const int64_t first_row = static_cast<int64_t>(blockIdx.x) * kRowTile;
  const int64_t depth = padded_depth(p.D);
  int64_t panel = panels(p.K) * blockIdx.y / gridDim.y;
  const int64_t last_panel = panels(p.K) * (blockIdx.y + 1) / gridDim.y;
  TensorProduct<kSplitRows> product;
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

template <class T>
void launch_search(const NearestCodeCudaParams& p, const float* packed, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(p.N, kRowTile)), static_cast<unsigned>(splits(p.N, p.K)));
  const uint64_t four = 4 * sizeof(T);
  const bool vectors = p.z.column_stride == 1 && p.D % 4 == 0 && p.z.row_stride % 4 == 0 &&
                       reinterpret_cast<uint64_t>(p.z.data) % four == 0;
  constexpr bool kSplitRows = sizeof(T) == sizeof(float);
  nearest_code_search_kernel<T, kSplitRows><<<grid, kThreads, 0, stream>>>(p, packed, vectors);
}

}  // namespace
}  // namespace cbtalk::nearest_code

namespace cbtalk {

cudaError_t nearest_code_forward_cuda(const NearestCodeCudaParams& p, cudaStream_t stream) {
  using namespace nearest_code;
  const Workspace workspace = workspace_of(p);
  cudaMemsetAsync(workspace.squared_length, 0, sizeof(float), stream);
  const dim3 pack_grid(static_cast<unsigned>(panels(p.K) * (kPanel / 32)),
                       static_cast<unsigned>(ceil_div(padded_depth(p.D), 32)));
  nearest_code_pack_kernel<<<pack_grid, kThreads, 0, stream>>>(p, workspace);
  with_storage(p.z.storage, [&](auto element) { launch_search<decltype(element)>(p, workspace.packed, stream); });
  const int64_t blocks = winner_blocks(p.N);
  nearest_code_winners_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream>>>(p, workspace);
  if (p.codes != nullptr) quantization_loss_kernel<<<1, kThreads, 0, stream>>>(p, workspace.partials, blocks);
  return cudaGetLastError();
}

}  // namespace cbtalk
