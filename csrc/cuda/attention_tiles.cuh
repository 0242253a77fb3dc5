#pragma once

// Shared by all attention kernels: the work of a block, rows of one head, masks, and launches.

#include <climits>
#include <cstring>
#include <type_traits>

#include "cbtalk/cuda/codebook_attention.h"
#include "elements.cuh"

namespace cbtalk::attention {

// Of the kernels whose blocks own rows of queries and walk the keys.
constexpr int kThreads = 128;

// The work of a block.
struct Place {
  int64_t tile, head, part;  // part: key set, or chunk * key_sets + key set
};

// A grid has fewer than 2^31 blocks, so its divisions are those of 32 bits.
__device__ inline Place place_of(int64_t tiles, int64_t heads) {
  const unsigned item = blockIdx.x / static_cast<unsigned>(tiles);
  return {blockIdx.x % static_cast<unsigned>(tiles), item % static_cast<unsigned>(heads),
          item / static_cast<unsigned>(heads)};
}

// The beginning of head `head` of row `row`; row counts over B and T, and there are fewer than 2^31.
template <class T>
__device__ const T* row_of(const AttentionCudaParams& params, const AttentionCudaRows& rows, int64_t row,
                           int64_t head) {
  const unsigned tokens = static_cast<unsigned>(params.tokens), index = static_cast<unsigned>(row);
  const int64_t offset = index / tokens * rows.batch_stride + index % tokens * rows.row_stride;
  return static_cast<const T*>(rows.data) + offset + head * params.head_size;
}

// `out` as the rows that it is.
__device__ inline AttentionCudaRows rows_of_out(const AttentionCudaParams& params) {
  return {params.out, params.tokens * params.width(), params.width()};
}

// The rows of the key set `set`, of one head.
template <class T>
__device__ const T* key_rows(const AttentionCudaParams& params, const AttentionCudaRows& rows, int64_t set,
                             int64_t head) {
  return static_cast<const T*>(rows.data) + set * rows.batch_stride + head * params.head_size;
}

// N elements that are read at once.
template <class T, int N = 4>
using Vector = std::conditional_t<N * sizeof(T) == 16, uint4, uint2>;

// Whether all rows begin where N elements can be read at once.
template <class T, int N = 4>
__device__ bool in_vectors(const AttentionCudaRows& rows) {
  const uint64_t elements = static_cast<uint64_t>(rows.batch_stride | rows.row_stride);
  return (reinterpret_cast<uint64_t>(rows.data) | elements * sizeof(T)) % sizeof(Vector<T, N>) == 0;
}

// Zeros where it is not inside.
template <class T, int N>
__device__ void load_vector(const T* source, bool inside, bool at_once, T (&values)[N]) {
  Vector<T, N> word = {};
  if (inside && at_once) word = *reinterpret_cast<const Vector<T, N>*>(source);
  memcpy(values, &word, sizeof(word));
  if (inside && !at_once) {
#pragma unroll
    for (int i = 0; i < N; ++i) values[i] = source[i];
  }
}

// The outputs are contiguous, their heads a multiple of four elements wide.
template <class T>
__device__ void store_four(T* target, const float (&values)[4]) {
  T four[4];
#pragma unroll
  for (int i = 0; i < 4; ++i) four[i] = narrow<T>(values[i]);
  Vector<T> word;
  memcpy(&word, four, sizeof(word));
  *reinterpret_cast<Vector<T>*>(target) = word;
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

__device__ inline float inverse_root(int d) { return 1.0f / sqrtf(static_cast<float>(d)); }

// log2(e) / sqrt(d): weights are powers of two.
__device__ inline float exponent_scale(int d) { return 1.4426950408889634f * inverse_root(d); }

// Rows [begin, end) of its key set that a block sums the gradients of its keys over.
struct Chunk {
  int64_t set, chunks, begin, end;
};

__device__ inline Chunk chunk_of(const AttentionCudaParams& params, const Place& place) {
  const int64_t rows = params.rows_per_key_set(), chunks = params.chunks(), length = attention_tiles(rows, chunks);
  const int64_t begin = place.part / params.key_sets * length;
  return {place.part % params.key_sets, chunks, begin, begin + length < rows ? begin + length : rows};
}

// One element of the gradient of a key, or of its value; of a chunk where there are several.
template <class T>
__device__ void write_key_gradient(const AttentionCudaParams& params, const Place& place, int64_t chunks, int64_t key,
                                   int column, bool of_value, float gradient) {
  const int64_t element = (place.part * params.keys + key) * params.width() + place.head * params.head_size + column;
  if (chunks > 1) {
    (of_value ? params.value_parts() : params.key_parts())[element] = gradient;
  } else {
    static_cast<T*>(of_value ? params.grad_value : params.grad_key)[element] = narrow<T>(gradient);
  }
}

// Whether there are queries enough for all processors where several of them share each key that is read. A query's
// result is the same either way.
inline bool has_many_queries(const AttentionCudaParams& params) {
  return params.rows() * params.heads >= kAttentionManyQueries;
}

// A launch with a grid that the hardware can count, or an error.
template <class Kernel>
cudaError_t launch(Kernel kernel, int64_t blocks, int threads, cudaStream_t stream, const AttentionCudaParams& params) {
  if (blocks > INT_MAX || params.rows() > INT_MAX) return cudaErrorInvalidConfiguration;
  kernel<<<static_cast<unsigned>(blocks), threads, 0, stream>>>(params);
  return cudaGetLastError();
}

// A launch with a block for each `block_rows` rows of queries of a head.
template <class Kernel>
cudaError_t launch_rows(Kernel kernel, int block_rows, cudaStream_t stream, const AttentionCudaParams& params) {
  const int64_t tiles = attention_tiles(params.rows_per_key_set(), block_rows);
  return launch(kernel, tiles * params.heads * params.key_sets, kThreads, stream, params);
}

// A launch with a block for each block of keys of a head and each chunk of rows.
template <class Kernel>
cudaError_t launch_keys(Kernel kernel, int threads, cudaStream_t stream, const AttentionCudaParams& params) {
  const int64_t tiles = attention_tiles(params.keys, kAttentionBlockKeys);
  return launch(kernel, tiles * params.heads * params.key_sets * params.chunks(), threads, stream, params);
}

// Calls run(an element, the head size as a type), for the head sizes A and B.
template <int A, int B, class Run>
cudaError_t with_types(const AttentionCudaParams& params, const Run& run) {
  return with_storage(params.storage, [&](auto element) {
    if (params.head_size == A) return run(element, std::integral_constant<int, A>{});
    if (params.head_size == B) return run(element, std::integral_constant<int, B>{});
    return cudaErrorInvalidValue;
  });
}

// codebook_attention_wide.cu: heads of 16 and 32 columns, on tensor cores.
cudaError_t wide_forward(const AttentionCudaParams& params, cudaStream_t stream);
cudaError_t wide_query_gradients(const AttentionCudaParams& params, cudaStream_t stream);
cudaError_t wide_key_gradients(const AttentionCudaParams& params, cudaStream_t stream);

}  // namespace cbtalk::attention
