// Attention, backward. With P = exp((q.k - maximum) / sqrt(d)) / total and delta = sum_j grad_out_j out_j of a row:
//   dS = P * (grad_out V^T - delta),  grad_query = dS K / sqrt(d),
//   grad_key = dS^T Q / sqrt(d),  grad_value = P^T grad_out.
// A first kernel owns queries and walks the keys; a second owns keys and walks a chunk of the rows; a third adds up the
// chunks in order. The weights are computed twice, and nothing is added from two threads.

#include "attention_tiles.cuh"

namespace cbtalk {
namespace attention {
namespace {

template <int D>
struct QueryGradient {
  float query[D], grad_out[D], grad_query[D], maximum, delta;
};

template <class T, int D, int R>
__global__ void __launch_bounds__(kThreads, 1) attention_query_bwd_kernel(const AttentionCudaParams params) {
  __shared__ StagedKeys<D> staged;
  const int64_t rows = params.rows_per_key_set();
  const Place place = place_of(attention_tiles(rows, kThreads * R), params.heads);
  const bool* mask = mask_of(params, place.part);
  const float scale = exponent_scale(D);
  const int64_t first_local = place.tile * kThreads * R + threadIdx.x;
  const int64_t statistics = place.head * params.rows();
  QueryGradient<D> queries[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int64_t local = first_local + r * kThreads;
    const bool inside = local < rows;
    const int64_t row = place.part * rows + (inside ? local : 0);
    float out[D];
    load(row_of<T>(params, params.query, row, place.head), inside, queries[r].query);
    load(row_of<T>(params, params.grad_out, row, place.head), inside, queries[r].grad_out);
    load(static_cast<const T*>(params.out) + row * params.width() + place.head * D, inside, out);
    queries[r].maximum = params.maximum[statistics + row];
    queries[r].delta = dot(queries[r].grad_out, out);
    if (inside) params.delta()[statistics + row] = queries[r].delta;
#pragma unroll
    for (int j = 0; j < D; ++j) queries[r].grad_query[j] = 0.0f;
  }
  for (int64_t first = 0; first < params.keys; first += kStagedKeys<D>) {
    const int64_t left = params.keys - first;
    const int count = left < kStagedKeys<D> ? static_cast<int>(left) : kStagedKeys<D>;
    staged.template fill<T>(params, mask, place.part, place.head, first, count);
#pragma unroll 2
    for (int k = 0; k < count; ++k) {
      float key[D], value[D];
      read_row(staged.key[k], key);
      read_row(staged.value[k], value);
      const float bias = mask == nullptr ? 0.0f : staged.bias[k];
#pragma unroll
      for (int r = 0; r < R; ++r) {
        QueryGradient<D>& q = queries[r];
        const float weight = attention_weight(dot(q.query, key) + bias, q.maximum, scale);
        add_scaled(weight * (dot(q.grad_out, value) - q.delta), key, q.grad_query);
      }
    }
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int64_t local = first_local + r * kThreads;
    if (local >= rows) continue;
    const int64_t row = place.part * rows + local;
    const float factor = inverse_root(D) / params.total[statistics + row];
    store(static_cast<T*>(params.grad_query) + row * params.width() + place.head * D, queries[r].grad_query, factor);
  }
}

// Groups of threads that share out the rows of a chunk among them, for the same keys.
template <int D>
constexpr int kRowGroups = D <= 8 ? 4 : 2;

constexpr int kStagedRows = 64;

template <int D>
struct StagedRows {
  alignas(16) float query[kStagedRows][D];
  alignas(16) float grad_out[kStagedRows][D];
  float maximum[kStagedRows], inverse_total[kStagedRows], delta[kStagedRows];

  // `count` rows from `first` on. Synchronises before and after.
  template <class T>
  __device__ void fill(const AttentionCudaParams& params, int64_t head, int64_t first, int count) {
    __syncthreads();
    for (int i = threadIdx.x; i < count * D; i += blockDim.x) {
      const int r = i / D, column = i % D;
      query[r][column] = widen(row_of<T>(params, params.query, first + r, head)[column]);
      grad_out[r][column] = widen(row_of<T>(params, params.grad_out, first + r, head)[column]);
    }
    for (int r = threadIdx.x; r < count; r += blockDim.x) {
      const int64_t place = head * params.rows() + first + r;
      maximum[r] = params.maximum[place];
      inverse_total[r] = 1.0f / params.total[place];
      delta[r] = params.delta()[place];
    }
    __syncthreads();
  }
};

template <int D>
struct KeyGradient {
  float key[D], value[D], grad_key[D], grad_value[D];

  __device__ void add_row(const StagedRows<D>& staged, int r, float scale) {
    float query[D], grad_out[D];
    read_row(staged.query[r], query);
    read_row(staged.grad_out[r], grad_out);
    const float weight = attention_weight(dot(query, key), staged.maximum[r], scale) * staged.inverse_total[r];
    const float grad_score = weight * (dot(grad_out, value) - staged.delta[r]);
    add_scaled(weight, grad_out, grad_value);
    add_scaled(grad_score, query, grad_key);
  }

  template <class T>
  __device__ void write(T* key_target, T* value_target) const {
    store(key_target, grad_key, inverse_root(D));
    store(value_target, grad_value, 1.0f);
  }
};

// Adds up the row groups of a block, the last one first; the result is the first group's.
template <int D>
__device__ void add_row_groups(KeyGradient<D>& own, float (&sums)[2 * D][kAttentionBlockKeys]) {
  const int k = threadIdx.x % kAttentionBlockKeys, group = threadIdx.x / kAttentionBlockKeys;
  for (int g = kRowGroups<D> - 1; g >= 0; --g) {
    __syncthreads();
    if (group != g) continue;
#pragma unroll
    for (int j = 0; j < D; ++j) {
      if (g < kRowGroups<D> - 1) {
        own.grad_key[j] += sums[j][k];
        own.grad_value[j] += sums[D + j][k];
      }
      sums[j][k] = own.grad_key[j];
      sums[D + j][k] = own.grad_value[j];
    }
  }
}

template <class T, int D>
__global__ void __launch_bounds__(kAttentionBlockKeys* kRowGroups<D>)
    attention_key_bwd_kernel(const AttentionCudaParams params) {
  __shared__ union Shared {
    StagedRows<D> rows;
    float sums[2 * D][kAttentionBlockKeys];
  } shared;
  const Place place = place_of(attention_tiles(params.keys, kAttentionBlockKeys), params.heads);
  const int64_t set = place.part % params.key_sets, chunk = place.part / params.key_sets;
  const int64_t rows = params.rows_per_key_set(), chunk_rows = attention_tiles(rows, params.chunks());
  const int64_t begin = chunk * chunk_rows, end = begin + chunk_rows < rows ? begin + chunk_rows : rows;
  const bool* mask = mask_of(params, set);
  const int64_t key = place.tile * kAttentionBlockKeys + threadIdx.x % kAttentionBlockKeys;
  const bool exists = key < params.keys, kept = exists && (mask == nullptr || !mask[key]);
  const float scale = exponent_scale(D);
  const T* keys = static_cast<const T*>(params.key.data) + set * params.key.batch_stride + place.head * D;
  const T* values = static_cast<const T*>(params.value.data) + set * params.value.batch_stride + place.head * D;
  KeyGradient<D> own;
  load(keys + (kept ? key : 0) * params.key.row_stride, kept, own.key);
  load(values + (kept ? key : 0) * params.value.row_stride, kept, own.value);
#pragma unroll
  for (int j = 0; j < D; ++j) own.grad_key[j] = own.grad_value[j] = 0.0f;
  for (int64_t first = begin; first < end; first += kStagedRows) {
    const int count = end - first < kStagedRows ? static_cast<int>(end - first) : kStagedRows;
    shared.rows.template fill<T>(params, place.head, set * rows + first, count);
    for (int r = threadIdx.x / kAttentionBlockKeys; r < count; r += kRowGroups<D>) {
      own.add_row(shared.rows, r, scale);
    }
  }
  add_row_groups(own, shared.sums);
  if (threadIdx.x >= kAttentionBlockKeys || !exists) return;
  if (!kept) {
#pragma unroll
    for (int j = 0; j < D; ++j) own.grad_key[j] = own.grad_value[j] = 0.0f;
  }
  const int64_t target = (place.part * params.keys + key) * params.width() + place.head * D;
  if (params.chunks() > 1) {
    own.write(params.key_parts() + target, params.value_parts() + target);
  } else {
    own.write(static_cast<T*>(params.grad_key) + target, static_cast<T*>(params.grad_value) + target);
  }
}

template <class T>
__global__ void __launch_bounds__(kThreads) attention_chunks_bwd_kernel(const AttentionCudaParams params) {
  const int64_t index = static_cast<int64_t>(blockIdx.x) * kThreads + threadIdx.x, size = params.key_elements();
  if (index >= size) return;
  const float *key_parts = params.key_parts(), *value_parts = params.value_parts();
  const int64_t chunks = params.chunks();
  float grad_key = 0.0f, grad_value = 0.0f;
  for (int64_t chunk = 0; chunk < chunks; ++chunk) {
    grad_key += key_parts[chunk * size + index];
    grad_value += value_parts[chunk * size + index];
  }
  static_cast<T*>(params.grad_key)[index] = narrow<T>(grad_key);
  static_cast<T*>(params.grad_value)[index] = narrow<T>(grad_value);
}

template <class T, int D, int R>
cudaError_t run_backward(const AttentionCudaParams& params, cudaStream_t stream) {
  const int64_t tiles = attention_tiles(params.rows_per_key_set(), kThreads * R);
  const int64_t key_blocks = attention_tiles(params.keys, kAttentionBlockKeys) * params.heads * params.key_sets;
  cudaError_t error = launch(attention_query_bwd_kernel<T, D, R>, tiles * params.heads * params.key_sets, kThreads,
                             stream, params);
  if (error != cudaSuccess) return error;
  error = launch(attention_key_bwd_kernel<T, D>, key_blocks * params.chunks(), kAttentionBlockKeys * kRowGroups<D>,
                 stream, params);
  if (error != cudaSuccess || params.chunks() == 1) return error;
  return launch(attention_chunks_bwd_kernel<T>, attention_tiles(params.key_elements(), kThreads), kThreads, stream,
                params);
}

}  // namespace
}  // namespace attention

cudaError_t codebook_attention_backward_cuda(const AttentionCudaParams& params, cudaStream_t stream) {
  return attention::with_types(params, [&](auto element, auto head_size) {
    using T = decltype(element);
    constexpr int D = decltype(head_size)::value;
    // At 32 columns, the registers of a thread hold one query with its gradients.
    constexpr int kRows = D < 32 ? attention::kMostRows<D> : 1;
    return attention::has_many_queries(params) ? attention::run_backward<T, D, kRows>(params, stream)
                                               : attention::run_backward<T, D, 1>(params, stream);
  });
}

}  // namespace cbtalk
