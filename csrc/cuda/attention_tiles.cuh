#pragma once

// What the attention kernels share: elements, rows of one head, and keys in shared memory.

#include <climits>
#include <cstring>
#include <type_traits>

#include "cbtalk/cuda/codebook_attention.h"
#include "elements.cuh"

namespace cbtalk::attention {

// A thread of the kernels over rows owns whole queries; the keys are broadcast to all from shared memory.
constexpr int kThreads = 128;

// Keys in shared memory at a time: 32 KB of keys and values. At d = 4, that is a whole codebook of 1024.
template <int D>
constexpr int kStagedKeys = 4096 / D;

// Keys whose scores a thread holds before it raises its maximum.
constexpr int kKeyGroup = 8;

// What a block works on.
struct Place {
  int64_t tile, head, part;  // part: key set, or chunk * key_sets + key set
};

// A grid has fewer than 2^31 blocks, so its divisions are those of 32 bits.
__device__ inline Place place_of(int64_t tiles, int64_t heads) {
  const unsigned item = blockIdx.x / static_cast<unsigned>(tiles);
  return {blockIdx.x % static_cast<unsigned>(tiles), item % static_cast<unsigned>(heads),
          item / static_cast<unsigned>(heads)};
}

// Where head `head` of row `row` begins; row counts over B and T, and there are fewer than 2^31.
template <class T>
__device__ const T* row_of(const AttentionCudaParams& params, const AttentionCudaRows& rows, int64_t row,
                           int64_t head) {
  const unsigned tokens = static_cast<unsigned>(params.tokens), index = static_cast<unsigned>(row);
  const int64_t offset = index / tokens * rows.batch_stride + index % tokens * rows.row_stride;
  return static_cast<const T*>(rows.data) + offset + head * params.head_size;
}

template <int D, class T>
__device__ void load(const T* source, bool inside, float (&values)[D]) {
#pragma unroll
  for (int j = 0; j < D; ++j) values[j] = inside ? widen(source[j]) : 0.0f;
}

// Four elements at a time: the outputs are contiguous, their heads a multiple of four elements wide.
template <int D, class T>
__device__ void store(T* target, const float (&values)[D], float factor) {
  using Word = std::conditional_t<sizeof(T) == 4, uint4, uint2>;
#pragma unroll
  for (int j = 0; j < D; j += 4) {
    T four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) four[i] = narrow<T>(values[j + i] * factor);
    Word word;
    memcpy(&word, four, sizeof(word));
    *reinterpret_cast<Word*>(target + j) = word;
  }
}

// A row in shared memory, 16 bytes at a time.
template <int D>
__device__ void read_row(const float* row, float (&values)[D]) {
#pragma unroll
  for (int j = 0; j < D; j += 4) {
    const float4 four = *reinterpret_cast<const float4*>(row + j);
    values[j] = four.x, values[j + 1] = four.y, values[j + 2] = four.z, values[j + 3] = four.w;
  }
}

template <int D>
__device__ float dot(const float (&a)[D], const float (&b)[D]) {
  float sum = a[0] * b[0];
#pragma unroll
  for (int j = 1; j < D; ++j) sum = fmaf(a[j], b[j], sum);
  return sum;
}

template <int D>
__device__ void add_scaled(float factor, const float (&row)[D], float (&sum)[D]) {
#pragma unroll
  for (int j = 0; j < D; ++j) sum[j] = fmaf(factor, row[j], sum[j]);
}

// The mask of a key set; null where there is none, or where it masks every key and so counts for nothing. All threads
// of a block call it.
__device__ inline const bool* mask_of(const AttentionCudaParams& params, int64_t set) {
  if (params.key_mask == nullptr) return nullptr;
  const bool* mask = params.key_mask + set * params.keys;
  int kept = 0;
  for (int64_t key = threadIdx.x; key < params.keys; key += blockDim.x) kept |= !mask[key];
  return __syncthreads_or(kept) ? mask : nullptr;
}

template <int D>
struct StagedKeys {
  alignas(16) float key[kStagedKeys<D>][D];
  alignas(16) float value[kStagedKeys<D>][D];
  float bias[kStagedKeys<D>];  // -infinity for a key that is left out: its rows are zero, whatever they were

  // `count` keys from `first` on, and keys that are left out up to a whole group. Synchronises before and after.
  template <class T>
  __device__ void fill(const AttentionCudaParams& params, const bool* mask, int64_t set, int64_t head, int64_t first,
                       int count) {
    const T* keys = static_cast<const T*>(params.key.data) + set * params.key.batch_stride + head * D;
    const T* values = static_cast<const T*>(params.value.data) + set * params.value.batch_stride + head * D;
    const int padded = (count + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
    __syncthreads();
    for (int i = threadIdx.x; i < padded * D; i += blockDim.x) {
      const int k = i / D, column = i % D;
      const bool kept = k < count && (mask == nullptr || !mask[first + k]);
      key[k][column] = kept ? widen(keys[(first + k) * params.key.row_stride + column]) : 0.0f;
      value[k][column] = kept ? widen(values[(first + k) * params.value.row_stride + column]) : 0.0f;
      if (column == 0) bias[k] = kept ? 0.0f : -INFINITY;
    }
    __syncthreads();
  }
};

__device__ inline float inverse_root(int d) { return 1.0f / sqrtf(static_cast<float>(d)); }

// log2(e) / sqrt(d): weights are powers of two.
__device__ inline float exponent_scale(int d) { return 1.4426950408889634f * inverse_root(d); }

// Rows of queries of a thread: several share each key that is read, where there are queries enough for all processors.
// A query's result is the same either way.
template <int D>
constexpr int kMostRows = D <= 4 ? 4 : 2;

inline bool has_many_queries(const AttentionCudaParams& params) {
  return params.rows() * params.heads >= int64_t{1} << 16;
}

// A launch with a grid that the hardware can count, or an error.
template <class Kernel>
cudaError_t launch(Kernel kernel, int64_t blocks, int threads, cudaStream_t stream, const AttentionCudaParams& params) {
  if (blocks > INT_MAX || params.rows() > INT_MAX) return cudaErrorInvalidConfiguration;
  kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(params);
  return cudaGetLastError();
}

// Calls run(an element, the head size as a type) with what the parameters ask for.
template <class Run>
cudaError_t with_types(const AttentionCudaParams& params, const Run& run) {
  const auto with_head = [&](auto element) {
    switch (params.head_size) {
      case 4:
        return run(element, std::integral_constant<int, 4>{});
      case 8:
        return run(element, std::integral_constant<int, 8>{});
      case 16:
        return run(element, std::integral_constant<int, 16>{});
      case 32:
        return run(element, std::integral_constant<int, 32>{});
    }
    return cudaErrorInvalidValue;
  };
  return with_storage(params.storage, with_head);
}

}  // namespace cbtalk::attention
