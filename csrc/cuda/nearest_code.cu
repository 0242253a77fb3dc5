#include "cbtalk/cuda/nearest_code.h"

#include "nearest_code_pack.cuh"
#include "nearest_code_product.cuh"
#include "nearest_code_winners.cuh"

// The search is a matrix product that stays in registers. A block takes kRowTile rows and goes through the codes panel
// by panel, kDepth columns at a time through shared memory; score = |e|^2 - 2 z.e. What it finds goes to memory as keys
// (ordering.h), so that blocks may share the panels of one row. The keys lie where the indices will, the second best
// scores where the distances will. Heads are searched side by side.
//
// packed codebook: panel after panel, each e as (padded_depth, kPanel) in float32

namespace cbtalk::nearest_code {
namespace {

// vectors: four columns of a row that begin at a multiple of four are all there, side by side and aligned.
template <class T, bool kSplitRows>
__global__ __launch_bounds__(kThreads) void nearest_code_search_kernel(NearestCodeCudaParams p, Workspace workspaces,
                                                                       bool vectors) {
  static_assert(kRowTile * kDepth == 8 * kThreads && kPanel * kDepth == 8 * kThreads);
  __shared__ Tiles tiles[2];
  const Workspace workspace = at_head(workspaces, p, blockIdx.z);
  const float* packed = workspace.packed;
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
    if (panel_ends) product.compare(workspace.norms + panel * kPanel, static_cast<int32_t>(panel * kPanel));
    // The other tiles were last read before the barrier of the step before this.
    if (next_panel < last_panel) next.put(tiles[current ^ 1]);
    __syncthreads();
    panel = next_panel;
  }
  product.finish(p, first_row);
}

template <class T>
void launch_search(const NearestCodeCudaParams& p, const Workspace& workspace, cudaStream_t stream) {
  const dim3 grid(static_cast<unsigned>(ceil_div(p.N, kRowTile)), static_cast<unsigned>(splits(p.H, p.N, p.K)),
                  static_cast<unsigned>(p.H));
  const uint64_t four = 4 * sizeof(T);
  const bool vectors = p.z.column_stride == 1 && p.D % 4 == 0 && p.z.row_stride % 4 == 0 &&
                       p.z.head_stride % 4 == 0 && reinterpret_cast<uint64_t>(p.z.data) % four == 0;
  constexpr bool kSplitRows = sizeof(T) == sizeof(float);
  nearest_code_search_kernel<T, kSplitRows><<<grid, kThreads, 0, stream>>>(p, workspace, vectors);
}

}  // namespace
}  // namespace cbtalk::nearest_code

namespace cbtalk {

cudaError_t nearest_code_forward_cuda(const NearestCodeCudaParams& p, cudaStream_t stream) {
  using namespace nearest_code;
  const Workspace workspace = workspace_of(p);
  const unsigned heads = static_cast<unsigned>(p.H);
  cudaMemsetAsync(p.workspace, 0, zero_bytes(p.H, p.K), stream);
  const dim3 pack_grid(static_cast<unsigned>(padded_codes(p.K) / 32),
                       static_cast<unsigned>(ceil_div(padded_depth(p.D), 32)), heads);
  nearest_code_pack_kernel<<<pack_grid, kThreads, 0, stream>>>(p, workspace);
  with_storage(p.z.storage, [&](auto element) { launch_search<decltype(element)>(p, workspace, stream); });
  const dim3 winner_grid(static_cast<unsigned>(winner_blocks(p.N)), 1, heads);
  nearest_code_winners_kernel<<<winner_grid, kThreads, 0, stream>>>(p, workspace);
  return cudaGetLastError();
}

}  // namespace cbtalk
