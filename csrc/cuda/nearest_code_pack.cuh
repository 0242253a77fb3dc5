#pragma once

#include "cbtalk/cuda/nearest_code_table.h"
#include "nearest_code_workspace.cuh"

// Work before the search: the codebook packed for it, and which codes cannot win, for an earlier code is the
// same. Those would tie with it, and each row between them would be searched again.

namespace cbtalk::nearest_code {
namespace {

constexpr int kPackWarps = kThreads / 32;
constexpr unsigned kNotANumber = 0x7fc00000u;  // larger than the bits of any float that is not negative

// Floats that are not negative have the order of their bits; whoever comes first, a NaN stays.
__device__ void raise_float(float* target, unsigned bits) { atomicMax(reinterpret_cast<unsigned*>(target), bits); }

// Whether two codes are equal, as a warp finds.
__device__ bool same_code(const NearestCodeCudaParams& p, int32_t one, int32_t other) {
  float differences = 0.0f;
  for (int64_t d = threadIdx.x % 32; d < p.D; d += 32) {
    differences += load(p.codebook, blockIdx.z, one, d) == load(p.codebook, blockIdx.z, other, d) ? 0.0f : 1.0f;
  }
  return warp_sum(differences) == 0.0f;
}

// Squared lengths of the codes [first, first + 32), the longest of them, and the codes among them that equal another.
__device__ void measure_codes(const NearestCodeCudaParams& p, const Workspace& workspace, int64_t first) {
  __shared__ uint32_t hashes[32];
  __shared__ SameHash met[32];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int count = static_cast<int>(max(min(p.K - first, int64_t{32}), int64_t{0}));
  float longest = 0.0f;
  for (int i = warp; i < count; i += kPackWarps) {
    float norm = 0.0f;
    uint32_t hash = 0;
    for (int64_t d = lane; d < p.D; d += 32) {
      const float element = load(p.codebook, blockIdx.z, first + i, d);
      norm = fmaf(element, element, norm);
      hash += mix(element, static_cast<uint32_t>(d));
    }
    norm = warp_sum(norm);
    hash = warp_sum(hash);
    longest = fmaxf(longest, norm);  // without a NaN, which is never nearest
    if (lane == 0) {
      raise_float(workspace.norms + first + i, norm >= 0.0f ? __float_as_uint(norm) : kNotANumber);
      hashes[i] = hash;
    }
  }
  if (lane == 0) raise_float(workspace.longest, __float_as_uint(longest));
  __syncthreads();
  if (warp == 0 && lane < count) {
    const auto raise = [&](uint64_t slot, uint64_t entry) {
      return atomicMax(workspace.table + slot, static_cast<unsigned long long>(entry));
    };
    met[lane] = enter(hashes[lane], static_cast<int32_t>(first + lane), table_slots(p.K), raise);
  } else if (warp == 0) {
    raise_float(workspace.norms + first + lane, kNotANumber);  // what fills up the last panel
  }
  __syncthreads();
  for (int i = warp; i < count; i += kPackWarps) {
    const SameHash pair = met[i];
    if (pair.later < 0 || !same_code(p, pair.first, pair.later)) continue;
    if (lane == 0) raise_float(workspace.norms + pair.later, kNotANumber);
  }
}

// A warp packs 32 codes by 32 columns at a time, transposed.
__global__ __launch_bounds__(kThreads) void nearest_code_pack_kernel(NearestCodeCudaParams p, Workspace workspaces) {
  __shared__ float tile[32][33];
  const Workspace workspace = at_head(workspaces, p, blockIdx.z);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t first = static_cast<int64_t>(blockIdx.x) * 32;
  const int64_t column = static_cast<int64_t>(blockIdx.y) * 32;
  float* panel = workspace.packed + first / kPanel * panel_floats(p.D) + first % kPanel;
  for (int i = warp; i < 32; i += kPackWarps) {
    const bool inside = first + i < p.K && column + lane < p.D;
    tile[i][lane] = inside ? load(p.codebook, blockIdx.z, first + i, column + lane) : 0.0f;
  }
  __syncthreads();
  for (int i = warp; i < 32 && column + i < padded_depth(p.D); i += kPackWarps) {
    panel[(column + i) * kPanel + lane] = tile[lane][i];
  }
  if (blockIdx.y == 0) measure_codes(p, workspace, first);
  // The beginning of all heads, by all threads.
  const int64_t block = blockIdx.x + gridDim.x * (blockIdx.y + static_cast<int64_t>(gridDim.y) * blockIdx.z);
  const int64_t threads = static_cast<int64_t>(gridDim.x) * gridDim.y * gridDim.z * kThreads;
  for (int64_t row = block * kThreads + threadIdx.x; row < p.H * p.N; row += threads) {
    p.indices[row] = -1;  // the largest key, and the largest score
    reinterpret_cast<uint32_t*>(p.distances)[row] = 0xffffffffu;
  }
  if (p.codes == nullptr) return;
  for (int64_t k = block * kThreads + threadIdx.x; k < p.H * p.K; k += threads) p.counts[k] = 0;
}

}  // namespace
}  // namespace cbtalk::nearest_code
