#include "cbtalk/cuda/nearest_code.h"
#include "nearest_code_elements.cuh"

// Sums over the rows of each code, always in the same order: no atomics. The rows of all heads are sorted by code. So
// that a code which takes most rows does not hold up the others, the sorted rows are cut into chunks; those that one
// code fills are summed first, by blocks of their own.

namespace cbtalk::nearest_code {
namespace {

constexpr int kWarps = 4;  // of a block: each takes every kWarps-th row, 32 columns

template <class Key>
__global__ __launch_bounds__(kThreads) void code_keys_kernel(CodeKeysCudaParams p) {
  const int64_t head = blockIdx.z;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x;
  if (row >= p.N) return;
  const int64_t index = p.indices[head * p.N + row];
  static_cast<Key*>(p.keys)[head * p.N + row] = static_cast<Key>(index < 0 ? -1 : head * p.K + index);
}

// This warp's part of the sum over the places [begin, end), all of rows of one code.
__device__ float sum_of_places(const SumByCodeCudaParams& p, int64_t head, int64_t begin, int64_t end, int64_t d) {
  float total = 0.0f;
#pragma unroll 4
  for (int64_t place = begin + threadIdx.y; place < end; place += kWarps) {
    const int64_t row = p.order[place] - head * p.N;
    const float element = load(p.z, head, row, d);
    total += p.rows.data == nullptr ? element : load(p.weight, head, row) * (load(p.rows, head, row, d) - element);
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

template <class Key>
__global__ void sum_chunks_kernel(SumByCodeCudaParams p) {
  const int64_t begin = static_cast<int64_t>(blockIdx.x) * kChunk, count = p.H * p.N;
  const int64_t d = static_cast<int64_t>(blockIdx.y) * 32 + threadIdx.x;
  const Key* keys = static_cast<const Key*>(p.keys);
  const int64_t place = begin + threadIdx.y * 32 + threadIdx.x;
  if (blockIdx.y == 0 && place < begin + kChunk && place < count && keys[place] >= 0) {
    const Key key = keys[place];
    if (place == 0 || keys[place - 1] != key) p.code_begin[key] = place;
    if (place + 1 == count || keys[place + 1] != key) p.code_end[key] = place + 1;
  }
  if (begin + kChunk > count) return;
  const int64_t key = keys[begin];
  if (key < 0 || keys[begin + kChunk - 1] != key) return;
  const float total = block_sum(d < p.D ? sum_of_places(p, key / p.K, begin, begin + kChunk, d) : 0.0f);
  if (threadIdx.y == 0 && d < p.D) p.partials[blockIdx.x * p.D + d] = total;
}

__global__ void sum_codes_kernel(SumByCodeCudaParams p) {
  const int64_t key = blockIdx.x, head = key / p.K;
  const int64_t d = static_cast<int64_t>(blockIdx.y) * 32 + threadIdx.x;
  const int64_t begin = p.code_begin[key], end = p.code_end[key];
  // The rows before the first whole chunk of this code, those chunks, and the rows after them.
  const int64_t first_chunk = ceil_div(begin, kChunk), last_chunk = end / kChunk;
  const int64_t head_end = min(end, first_chunk * kChunk);
  const int64_t tail_begin = max(head_end, last_chunk * kChunk);
  float total = 0.0f;
  if (d < p.D) {
    total = sum_of_places(p, head, begin, head_end, d);
    for (int64_t chunk = first_chunk + threadIdx.y; chunk < last_chunk; chunk += kWarps) {
      total += p.partials[chunk * p.D + d];
    }
    total += sum_of_places(p, head, tail_begin, end, d);
  }
  total = block_sum(total);
  if (threadIdx.y == 0 && d < p.D) store(p.sums, p.sums_storage, key * p.D + d, p.scale * total);
}

// body(Key()) with the type of the keys.
template <class Body>
void with_key(int64_t H, int64_t K, const Body& body) {
  if (key_bytes(H, K) == 2) {
    body(int16_t());
  } else {
    body(int32_t());
  }
}

}  // namespace
}  // namespace cbtalk::nearest_code

namespace cbtalk {

cudaError_t code_keys_cuda(const CodeKeysCudaParams& p, cudaStream_t stream) {
  using namespace nearest_code;
  const dim3 grid(static_cast<unsigned>(ceil_div(p.N, kThreads)), 1, static_cast<unsigned>(p.H));
  with_key(p.H, p.K, [&](auto key) { code_keys_kernel<decltype(key)><<<grid, kThreads, 0, stream>>>(p); });
  return cudaGetLastError();
}

cudaError_t sum_by_code_cuda(const SumByCodeCudaParams& p, cudaStream_t stream) {
  using namespace nearest_code;
  const dim3 block(32, kWarps);
  static_assert(kWarps * 32 >= kChunk);
  const unsigned slices = static_cast<unsigned>(ceil_div(p.D, 32));
  const dim3 chunk_grid(static_cast<unsigned>(chunks(p.H * p.N)), slices);
  with_key(p.H, p.K, [&](auto key) { sum_chunks_kernel<decltype(key)><<<chunk_grid, block, 0, stream>>>(p); });
  sum_codes_kernel<<<dim3(static_cast<unsigned>(p.H * p.K), slices), block, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace cbtalk
