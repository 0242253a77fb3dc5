#include "cbtalk/cuda/nearest_code.h"
#include "nearest_code_elements.cuh"

// The gradient of a code is the sum over its rows, always in the same order: no atomics. So that a code which takes
// most rows does not hold up the others, the sorted rows are cut into chunks; those that one code fills are summed
// first, by blocks of their own.

namespace cbtalk::nearest_code {
namespace {

constexpr int kWarps = 4;  // of a block of the codebook's gradient: each takes every kWarps-th row, 32 columns

__global__ __launch_bounds__(kThreads) void nearest_code_bwd_rows_kernel(NearestCodeBackwardCudaParams p) {
  const int lane = threadIdx.x % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= p.N) return;
  const int64_t code = p.indices[row];
  const float factor = p.z_scale * p.weight[row * p.weight_stride];
#pragma unroll 1
  for (int64_t d = lane; d < p.D; d += 32) {
    const float carried = p.grad_codes == nullptr ? 0.0f : load(p.grad_codes, p.z.storage, row * p.D + d);
    const float pull = factor * (load(p.z, row, d) - load(p.codebook, code, d));
    store(p.grad_z, p.z.storage, row * p.D + d, carried + pull);
  }
}

// This warp's part of the sum of weight * (code - z) over the places [begin, end), all of rows of the one code.
__device__ float pull_of_rows(const NearestCodeBackwardCudaParams& p, float code, int64_t begin, int64_t end, int64_t d) {
  float total = 0.0f;
#pragma unroll 4
  for (int64_t place = begin + threadIdx.y; place < end; place += kWarps) {
    const int64_t row = p.order[place];
    total += p.weight[row * p.weight_stride] * (code - load(p.z, row, d));
  }
  return total;
}

// The sum over the warps of a block, for those of the first.
__device__ float block_sum(float value) {
  __shared__ float totals[kWarps][32];
  totals[threadIdx.y][threadIdx.x] = value;
  __syncthreads();
  for (int warp = 1; threadIdx.y == 0 && warp < kWarps; ++warp) value += totals[warp][threadIdx.x];
  return value;
}

__global__ void nearest_code_bwd_chunks_kernel(NearestCodeBackwardCudaParams p) {
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kChunk;
  const int64_t d = static_cast<int64_t>(blockIdx.y) * 32 + threadIdx.x;
  const auto code_at = [&](int64_t place) { return p.indices[p.order[place]]; };
  const int64_t place = begin + threadIdx.y * 32 + threadIdx.x;
  if (blockIdx.y == 0 && place < begin + kChunk && place < p.N) {
    const int64_t code = code_at(place);
    if (place == 0 || code_at(place - 1) != code) p.code_begin[code] = place;
    if (place + 1 == p.N || code_at(place + 1) != code) p.code_end[code] = place + 1;
  }
  if (begin + kChunk > p.N) return;
  const int64_t code = code_at(begin);
  if (code_at(begin + kChunk - 1) != code) return;
  const float element = d < p.D ? load(p.codebook, code, d) : 0.0f;
  const float total = block_sum(d < p.D ? pull_of_rows(p, element, begin, begin + kChunk, d) : 0.0f);
  if (threadIdx.y == 0 && d < p.D) p.partials[blockIdx.x * p.D + d] = total;
}

__global__ void nearest_code_bwd_codes_kernel(NearestCodeBackwardCudaParams p) {
  const int64_t k = blockIdx.x;
  const int64_t d = static_cast<int64_t>(blockIdx.y) * 32 + threadIdx.x;
  const int64_t begin = p.code_begin[k], end = p.code_end[k];
  // The rows before the first whole chunk of this code, those chunks, and the rows after them.
  const int64_t first_chunk = ceil_div(begin, kChunk), last_chunk = end / kChunk;
  const int64_t head_end = min(end, first_chunk * kChunk);
  const int64_t tail_begin = max(head_end, last_chunk * kChunk);
  float total = 0.0f;
  if (d < p.D) {
    const float code = load(p.codebook, k, d);
    total = pull_of_rows(p, code, begin, head_end, d);
    for (int64_t chunk = first_chunk + threadIdx.y; chunk < last_chunk; chunk += kWarps) {
      total += p.partials[chunk * p.D + d];
    }
    total += pull_of_rows(p, code, tail_begin, end, d);
  }
  total = block_sum(total);
  if (threadIdx.y == 0 && d < p.D) store(p.grad_codebook, p.codebook.storage, k * p.D + d, p.code_scale * total);
}

}  // namespace
}  // namespace cbtalk::nearest_code

namespace cbtalk {

cudaError_t nearest_code_backward_cuda(const NearestCodeBackwardCudaParams& p, cudaStream_t stream) {
  using namespace nearest_code;
  const dim3 block(32, kWarps);
  static_assert(kWarps * 32 >= kChunk);
  const unsigned slices = static_cast<unsigned>(ceil_div(p.D, 32));
  const unsigned row_blocks = static_cast<unsigned>(ceil_div(p.N, kThreads / 32));
  nearest_code_bwd_rows_kernel<<<row_blocks, kThreads, 0, stream>>>(p);
  nearest_code_bwd_chunks_kernel<<<dim3(static_cast<unsigned>(chunks(p.N)), slices), block, 0, stream>>>(p);
  nearest_code_bwd_codes_kernel<<<dim3(static_cast<unsigned>(p.K), slices), block, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace cbtalk
