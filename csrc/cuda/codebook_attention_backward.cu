// Attention, backward. With P = exp((q.k - maximum) / sqrt(d)) / total and delta = sum_j grad_out_j out_j of a row:
//   dS = P * (grad_out V^T - delta),  grad_query = dS K / sqrt(d),
//   grad_key = dS^T Q / sqrt(d),  grad_value = P^T grad_out.
// A first kernel owns queries, whose delta it keeps for the second, and walks the keys; the second owns keys and walks
// a chunk of the rows; a third adds up the chunks in order. The weights are computed twice, which saves the memory for
// them, and nothing is added from two threads. Here are the kernels for narrow heads.

#include "attention_narrow.cuh"

namespace cbtalk {
namespace attention {
namespace {

template <int D>
struct QueryGradient {
  float query[D], grad_out[D], grad_query[D], maximum, delta;
};

template <class T, int D, int R>
__global__ void __launch_bounds__(kThreads, 1) attention_narrow_query_bwd_kernel(const AttentionCudaParams params) {
  __shared__ StagedKeys<D> staged;
  const int64_t rows = params.rows_per_key_set();
  const Place place = place_of(attention_tiles(rows, kThreads * R), params.heads);
  const bool* mask = mask_of(params, place.part);
  const bool queries_in_fours = in_fours<T>(params.query), gradients_in_fours = in_fours<T>(params.grad_out);
  const AttentionCudaRows outputs = rows_of_out(params);
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
    load(row_of<T>(params, params.query, row, place.head), inside, queries_in_fours, queries[r].query);
    load(row_of<T>(params, params.grad_out, row, place.head), inside, gradients_in_fours, queries[r].grad_out);
    load(row_of<T>(params, outputs, row, place.head), inside, true, out);
    queries[r].maximum = params.maximum[statistics + row];
    queries[r].delta = dot(queries[r].grad_out, out);
#pragma unroll
    for (int j = 0; j < D; ++j) queries[r].grad_query[j] = 0.0f;
  }
  for (int64_t first = 0; first < params.keys; first += kStagedKeys<D>) {
    const int64_t left = params.keys - first;
    const int count = left < kStagedKeys<D> ? static_cast<int>(left) : kStagedKeys<D>;
    staged.template fill<T>(params, mask, place, first, count);
    for (int k = 0; k < count; k += kKeyGroup) {
      const bool left_out = mask != nullptr || k + kKeyGroup > count;
      float sums[R][D] = {};  // short, as in the forward pass
#pragma unroll 2
      for (int i = 0; i < kKeyGroup; ++i) {
        float key[D], value[D];
        read_row(staged.key[k + i], key);
        read_row(staged.value[k + i], value);
        const float bias = left_out ? staged.bias[k + i] : 0.0f;
#pragma unroll
        for (int r = 0; r < R; ++r) {
          const QueryGradient<D>& q = queries[r];
          const float weight = attention_weight(dot(q.query, key) + bias, q.maximum, scale);
          add_scaled(weight * (dot(q.grad_out, value) - q.delta), key, sums[r]);
        }
      }
#pragma unroll
      for (int r = 0; r < R; ++r) {
#pragma unroll
        for (int j = 0; j < D; ++j) queries[r].grad_query[j] += sums[r][j];
      }
    }
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int64_t local = first_local + r * kThreads;
    if (local >= rows) continue;
    const int64_t row = place.part * rows + local;
    params.delta()[statistics + row] = queries[r].delta;
    const float factor = inverse_root(D) / params.total[statistics + row];
    store(static_cast<T*>(params.grad_query) + row * params.width() + place.head * D, queries[r].grad_query, factor);
  }
}

// A warp keeps one key in each lane; the warps of a block have the same keys and share out the rows among them.
constexpr int kRowGroups = 16;
constexpr int kLaneKeys = 32;
constexpr int kStagedRows = 256;

template <int D>
struct StagedRows {
  alignas(16) float query[kStagedRows][D];
  alignas(16) float grad_out[kStagedRows][D];
  alignas(16) float statistics[kStagedRows][4];  // maximum, 1 / total, delta

  // `count` rows from `first` on. Synchronises before and after.
  template <class T>
  __device__ void fill(const AttentionCudaParams& params, int64_t head, int64_t first, int count) {
    const bool queries_in_fours = in_fours<T>(params.query), gradients_in_fours = in_fours<T>(params.grad_out);
    __syncthreads();
    for (int r = threadIdx.x; r < count; r += blockDim.x) {
      const int64_t row = first + r, place = head * params.rows() + row;
      float values[D];
      load(row_of<T>(params, params.query, row, head), true, queries_in_fours, values);
      write_row(query[r], values);
      load(row_of<T>(params, params.grad_out, row, head), true, gradients_in_fours, values);
      write_row(grad_out[r], values);
      write_row(statistics[r], {params.maximum[place], 1.0f / params.total[place], params.delta()[place], 0.0f});
    }
    __syncthreads();
  }
};

template <int D>
struct KeyGradient {
  float key[D], value[D], grad_key[D], grad_value[D];

  __device__ void add_row(const StagedRows<D>& staged, int r, float scale) {
    float query[D], grad_out[D], statistics[4];
    read_row(staged.query[r], query);
    read_row(staged.grad_out[r], grad_out);
    read_row(staged.statistics[r], statistics);
    const float weight = attention_weight(dot(query, key), statistics[0], scale) * statistics[1];
    const float grad_score = weight * (dot(grad_out, value) - statistics[2]);
    add_scaled(weight, grad_out, grad_value);
    add_scaled(grad_score, query, grad_key);
  }
};

template <class T, int D>
__global__ void __launch_bounds__(kLaneKeys* kRowGroups, 1)
    attention_narrow_key_bwd_kernel(const AttentionCudaParams params) {
  static_assert(kLaneKeys == attention_block_keys(D));
  __shared__ union Shared {
    StagedRows<D> rows;
    float sums[kRowGroups][kLaneKeys][2 * D + 1];  // odd: neighbouring keys on different banks
  } shared;
  const Place place = place_of(attention_tiles(params.keys, kLaneKeys), params.heads);
  const Chunk chunk = chunk_of(params, place);
  const bool* mask = mask_of(params, chunk.set);
  const auto is_kept = [&](int64_t key) { return key < params.keys && (mask == nullptr || !mask[key]); };
  const int lane = threadIdx.x % kLaneKeys, group = threadIdx.x / kLaneKeys;
  const int64_t first_key = place.tile * kLaneKeys, key = is_kept(first_key + lane) ? first_key + lane : 0;
  const float scale = exponent_scale(D);
  KeyGradient<D> own;
  load(key_rows<T>(params, params.key, chunk.set, place.head) + key * params.key.row_stride, true,
       in_fours<T>(params.key), own.key);
  load(key_rows<T>(params, params.value, chunk.set, place.head) + key * params.value.row_stride, true,
       in_fours<T>(params.value), own.value);
#pragma unroll
  for (int j = 0; j < D; ++j) own.grad_key[j] = own.grad_value[j] = 0.0f;
  for (int64_t first = chunk.begin; first < chunk.end; first += kStagedRows) {
    const int count = chunk.end - first < kStagedRows ? static_cast<int>(chunk.end - first) : kStagedRows;
    shared.rows.template fill<T>(params, place.head, chunk.set * params.rows_per_key_set() + first, count);
    for (int r = group; r < count; r += kRowGroups) own.add_row(shared.rows, r, scale);
  }
  __syncthreads();
#pragma unroll
  for (int j = 0; j < D; ++j) {
    shared.sums[group][lane][j] = own.grad_key[j] * inverse_root(D);
    shared.sums[group][lane][D + j] = own.grad_value[j];
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kLaneKeys * 2 * D; i += blockDim.x) {
    const int k = i / (2 * D), column = i % (2 * D);
    if (first_key + k >= params.keys) continue;
    float sum = 0.0f;
    for (int g = 0; g < kRowGroups; ++g) sum += shared.sums[g][k][column];
    write_key_gradient<T>(params, place, chunk.chunks, first_key + k, column % D, column >= D,
                          is_kept(first_key + k) ? sum : 0.0f);
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

cudaError_t narrow_query_gradients(const AttentionCudaParams& params, cudaStream_t stream) {
  return with_types<4, 8>(params, [&](auto element, auto head_size) {
    using T = decltype(element);
    constexpr int D = decltype(head_size)::value, R = kMostRows<D>;
    return has_many_queries(params)
               ? launch_rows(attention_narrow_query_bwd_kernel<T, D, R>, kThreads * R, stream, params)
               : launch_rows(attention_narrow_query_bwd_kernel<T, D, 1>, kThreads, stream, params);
  });
}

cudaError_t narrow_key_gradients(const AttentionCudaParams& params, cudaStream_t stream) {
  return with_types<4, 8>(params, [&](auto element, auto head_size) {
    using T = decltype(element);
    constexpr int D = decltype(head_size)::value;
    return launch_keys(attention_narrow_key_bwd_kernel<T, D>, kLaneKeys * kRowGroups, stream, params);
  });
}

cudaError_t add_chunks(const AttentionCudaParams& params, cudaStream_t stream) {
  return with_storage(params.storage, [&](auto element) {
    return launch(attention_chunks_bwd_kernel<decltype(element)>, attention_tiles(params.key_elements(), kThreads),
                  kThreads, stream, params);
  });
}

}  // namespace
}  // namespace attention

cudaError_t codebook_attention_backward_cuda(const AttentionCudaParams& params, cudaStream_t stream) {
  using namespace attention;
  const bool narrow = attention_is_narrow(params.head_size);
  cudaError_t error = narrow ? narrow_query_gradients(params, stream) : wide_query_gradients(params, stream);
  if (error != cudaSuccess) return error;
  error = narrow ? narrow_key_gradients(params, stream) : wide_key_gradients(params, stream);
  return error != cudaSuccess || params.chunks() == 1 ? error : add_chunks(params, stream);
}

}  // namespace cbtalk
