#pragma once

#include "nearest_code_workspace.cuh"

// Work after the search: rows whose nearest code float32 leaves open are searched again in float64; then the
// winners are read, and the last block to end sums up the loss.

namespace cbtalk::nearest_code {
namespace {

constexpr int kWarps = kThreads / 32;

// The nearest code of one row, by all threads of a block: a warp a panel, a lane four codes.
__device__ int32_t search_in_float64(const NearestCodeCudaParams& p, const float* packed, int64_t row) {
  __shared__ double twice[kThreads];  // 2z
  __shared__ double scores[kWarps];
  __shared__ int32_t indices[kWarps];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  Nearest<double> nearest;
  for (int64_t panel = warp; panel - warp < panels(p.K); panel += kWarps) {
    double score[4] = {};
    for (int64_t column = 0; column < p.D; column += kThreads) {
      __syncthreads();
      if (column + threadIdx.x < p.D) twice[threadIdx.x] = 2.0 * load(p.z, blockIdx.z, row, column + threadIdx.x);
      __syncthreads();
      const float* codes = packed + panel * panel_floats(p.D) + column * kPanel + 4 * lane;
      const int count = panel < panels(p.K) ? static_cast<int>(min(p.D - column, int64_t{kThreads})) : 0;
#pragma unroll 8
      for (int d = 0; d < count; ++d) {
        const float4 e = *reinterpret_cast<const float4*>(codes + d * kPanel);
        const double elements[4] = {e.x, e.y, e.z, e.w};
#pragma unroll
        for (int i = 0; i < 4; ++i) score[i] = fma(elements[i], elements[i] - twice[d], score[i]);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t code = panel * kPanel + 4 * lane + i;
      if (code < p.K) nearest.take(score[i], static_cast<int32_t>(code));
    }
  }
  meet<32>(nearest);
  if (lane == 0) scores[warp] = nearest.best, indices[warp] = nearest.index;
  __syncthreads();
  nearest = {};
  for (int other = 0; other < kWarps; ++other) nearest.take({scores[other], INFINITY, indices[other]});
  return nearest.index;
}

// The number of a head's row among those of all heads.
__device__ int64_t of_all_heads(const NearestCodeCudaParams& p, int64_t row) { return blockIdx.z * p.N + row; }

// Whether the scores of this warp's row leave open which code is the nearest.
__device__ bool in_doubt(const NearestCodeCudaParams& p, int64_t row, float squared_length_of_codes) {
  float squared_length = 0.0f;
  for (int64_t d = threadIdx.x % 32; d < p.D; d += 32) {
    const float element = load(p.z, blockIdx.z, row, d);
    squared_length = fmaf(element, element, squared_length);
  }
  const int64_t out = of_all_heads(p, row);
  const float best = score_of(nearest_key_score(static_cast<uint64_t>(p.indices[out])));
  const float second = score_of(reinterpret_cast<const uint32_t*>(p.distances)[out]);
  const float gap = gap_in_doubt(sqrtf(warp_sum(squared_length)), sqrtf(squared_length_of_codes), p.D);
  return !(second - best > gap);
}

// Writes what a warp's row gets from its nearest code, or zeros for index -1; its distance.
__device__ float read_winner(const NearestCodeCudaParams& p, int64_t row, int32_t index) {
  const int64_t out = of_all_heads(p, row);
  const int lane = threadIdx.x % 32;
  float distance = 0.0f;
  for (int64_t d = lane; d < p.D; d += 32) {
    float code = 0.0f;
    if (index >= 0) {
      code = load(p.codebook, blockIdx.z, index, d);
      const float difference = load(p.z, blockIdx.z, row, d) - code;
      distance = fmaf(difference, difference, distance);
    }
    if (p.rows != nullptr) store(p.rows, p.codebook.storage, out * p.D + d, code);
    if (p.codes != nullptr) store(p.codes, p.z.storage, out * p.D + d, code);
  }
  distance = warp_sum(distance);
  if (lane == 0) {
    p.indices[out] = index;
    p.distances[out] = distance;
    if (p.codes != nullptr && index >= 0) {
      atomicAdd(reinterpret_cast<unsigned long long*>(p.counts) + blockIdx.z * p.K + index, 1ull);
    }
  }
  return distance;
}

// The loss, from the sums of all blocks in their order. Once they are done, the counts tell how many rows count.
__device__ void write_loss(const NearestCodeCudaParams& p, const double* partials, int64_t blocks) {
  __shared__ double totals[kThreads];
  __shared__ unsigned long long rows;
  double total = 0.0;
  for (int64_t i = threadIdx.x; i < blocks; i += kThreads) total += partials[i];
  totals[threadIdx.x] = total;
  if (threadIdx.x == 0) rows = p.ignored == nullptr ? p.H * p.N : 0;
  for (int half = kThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x < half) totals[threadIdx.x] += totals[threadIdx.x + half];
  }
  if (p.ignored != nullptr) {
    unsigned long long counted = 0;
    for (int64_t k = threadIdx.x; k < p.H * p.K; k += kThreads) counted += p.counts[k];
    atomicAdd(&rows, counted);
    __syncthreads();
  }
  if (threadIdx.x > 0) return;
  // Both terms of the loss have the same value: they differ in where the gradient goes.
  const double mean = totals[0] / static_cast<double>(rows * p.D);
  *p.loss = static_cast<float>((p.beta + p.gamma) * mean);
}

// A warp settles and reads one row at a time.
__global__ __launch_bounds__(kThreads, 4) void nearest_code_winners_kernel(NearestCodeCudaParams p,
                                                                           Workspace workspaces) {
  __shared__ bool doubts[kWarps];
  __shared__ double totals[kWarps];
  __shared__ bool last;
  const Workspace workspace = at_head(workspaces, p, blockIdx.z);
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  double total = 0.0;
  for (int64_t first = static_cast<int64_t>(blockIdx.x) * kWarps; first < p.N;
       first += static_cast<int64_t>(gridDim.x) * kWarps) {
    const int64_t row = first + warp, out = of_all_heads(p, row);
    const bool kept = row < p.N && (p.ignored == nullptr || !p.ignored[out]);
    const bool doubt = kept && in_doubt(p, row, *workspace.longest);
    int32_t index = kept ? nearest_key_index(static_cast<uint64_t>(p.indices[out])) : -1;
    if (__syncthreads_or(doubt)) {
      if (lane == 0) doubts[warp] = doubt;
      __syncthreads();
      for (int other = 0; other < kWarps; ++other) {
        if (!doubts[other]) continue;
        const int32_t found = search_in_float64(p, workspace.packed, first + other);
        if (other == warp) index = found;
      }
    }
    if (row < p.N) total += static_cast<double>(read_winner(p, row, index));
  }
  if (p.codes == nullptr) return;
  if (lane == 0) totals[warp] = total;
  __syncthreads();
  const unsigned blocks = gridDim.x * gridDim.z;
  if (threadIdx.x == 0) {
    for (int other = 1; other < kWarps; ++other) total += totals[other];
    workspace.partials[blockIdx.x + blockIdx.z * gridDim.x] = total;
    __threadfence();
    last = atomicAdd(workspace.blocks_done, 1u) + 1 == blocks;
  }
  __syncthreads();
  if (!last) return;
  __threadfence();
  write_loss(p, workspace.partials, blocks);
}

}  // namespace
}  // namespace cbtalk::nearest_code
