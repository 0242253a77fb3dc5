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

template <class T, int D>
struct NarrowKeys {
  NarrowMatrix<T, D, Side::key, kStagedKeys<D>> key, value;
  alignas(16) float key_row[kStagedKeys<D>][D];
  float bias[kStagedKeys<D>];
};

template <class T, int D, int M>
struct NarrowQueryGradients {
  NarrowLeft<T, D, Side::query> query[M], grad_out[M];
  float grad_query[M][2][D] = {}, maximum[M][2], delta[M][2];  // of rows g and g + 8; the lane's share of grad_query

  // Takes the group of keys from k on; where LeftOut, some of them may not count.
  template <bool LeftOut>
  __device__ void add(const NarrowKeys<T, D>& keys, int k, float scale) {
    float sums[M][2][D] = {};  // short, as in the forward pass
#pragma unroll
    for (int tile = 0; tile < kGroupTiles<D>; ++tile) {
      const int first = k + 8 * tile, own = first + 2 * lane_member();
      float scores[M][4] = {}, gradients[M][4];
#pragma unroll
      for (int i = 0; i < 4 * M; ++i) gradients[i / 4][i % 4] = -delta[i / 4][i % 4 / 2];
      multiply_rows(query, keys.key, first, scores);
      multiply_rows(grad_out, keys.value, first, gradients);
      if (LeftOut) {
#pragma unroll
        for (int i = 0; i < 4 * M; ++i) scores[i / 4][i % 4] += keys.bias[own + i % 2];
      }
#pragma unroll
      for (int i = 0; i < 2; ++i) {
        float key[D];
        read_row(keys.key_row[own + i], key);
#pragma unroll
        for (int m = 0; m < M; ++m) {
#pragma unroll
          for (int half = 0; half < 2; ++half) {
            const float weight = attention_weight(scores[m][2 * half + i], maximum[m][half], scale);
            add_scaled(weight * gradients[m][2 * half + i], key, sums[m][half]);
          }
        }
      }
    }
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int j = 0; j < 2 * D; ++j) grad_query[m][j / D][j % D] += sums[m][j / D][j % D];
    }
  }
};

template <class T, int D, int M>
__global__ void __launch_bounds__(kThreads, 1) attention_narrow_query_bwd_kernel(const AttentionCudaParams params) {
  __shared__ NarrowKeys<T, D> keys;
  const WarpRows<M> rows(params);
  const bool* mask = mask_of(params, rows.place.part);
  const AttentionCudaRows outputs = rows_of_out(params);
  const float scale = exponent_scale(D);
  const int64_t statistics = rows.place.head * params.rows();
  NarrowQueryGradients<T, D, M> own;
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const T* grad_out = rows.template at<T>(params, params.grad_out, m, half);
      own.query[m].load(rows.template at<T>(params, params.query, m, half), half);
      own.grad_out[m].load(grad_out, half);
      own.maximum[m][half] = rows.inside(m, half) ? params.maximum[statistics + rows.row(m, half)] : 0.0f;
      own.delta[m][half] = row_dot<D>(grad_out, rows.template at<T>(params, outputs, m, half));
    }
  }
  for (int64_t first = 0; first < params.keys; first += kStagedKeys<D>) {
    const int64_t left = params.keys - first;
    const int count = left < kStagedKeys<D> ? static_cast<int>(left) : kStagedKeys<D>;
    each_key<D, T>(params, mask, rows.place, first, count,
                   [&](int k, const T(&key)[D], const T(&value)[D], float bias) {
                     keys.key.put(k, key);
                     keys.value.put(k, value);
                     write_row(keys.key_row[k], key);
                     keys.bias[k] = bias;
                   });
    for (int k = 0; k < count; k += kKeyGroup<D>) {
      if (mask != nullptr || k + kKeyGroup<D> > count) {
        own.template add<true>(keys, k, scale);
      } else {
        own.template add<false>(keys, k, scale);
      }
    }
  }
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int j = 0; j < D; ++j) own.grad_query[m][half][j] = row_sum(own.grad_query[m][half][j]);
      if (!rows.inside(m, half) || lane_member() != 0) continue;
      const int64_t place = statistics + rows.row(m, half);
      params.delta()[place] = own.delta[m][half];
      store(rows.template target<T>(params, params.grad_query, m, half), own.grad_query[m][half],
            inverse_root(D) / params.total[place]);
    }
  }
}

// A warp has twice 16 keys; the warps of a block that have the same share out the rows of queries among them.
constexpr int kKeyTiles = 2;
constexpr int kKeyThreads = 128;
constexpr int kKeyGroups = kAttentionBlockKeys / (16 * kKeyTiles), kRowGroups = kKeyThreads / 32 / kKeyGroups;
template <int D>
constexpr int kStagedRows = 512 / D;

// Rows that are summed up are divided by the row's total: weights and gradients of scores are not.
template <class T, int D>
struct NarrowStagedRows {
  NarrowMatrix<T, D, Side::query, kStagedRows<D>> query, grad_out;
  alignas(16) float query_row[kStagedRows<D>][D];
  alignas(16) float grad_out_row[kStagedRows<D>][D];
  alignas(16) float maximum[kStagedRows<D>];
  alignas(16) float minus_delta[kStagedRows<D> / 2][4];  // of two rows, twice: as sums of a product

  // `count` rows from `first` on, and rows of zeros behind them: they add nothing. Synchronises before and after.
  __device__ void fill(const AttentionCudaParams& params, int64_t head, int64_t first, int count) {
    const bool queries_in_fours = in_vectors<T>(params.query), gradients_in_fours = in_vectors<T>(params.grad_out);
    __syncthreads();
    for (int r = threadIdx.x; r < kStagedRows<D>; r += blockDim.x) {
      const bool inside = r < count;
      const int64_t row = inside ? first + r : first, place = head * params.rows() + row;
      const float inverse_total = 1.0f / params.total[place];
      T values[D];
      load(row_of<T>(params, params.query, row, head), inside, queries_in_fours, values);
      query.put(r, values);
      write_row(query_row[r], values, inverse_total);
      load(row_of<T>(params, params.grad_out, row, head), inside, gradients_in_fours, values);
      grad_out.put(r, values);
      write_row(grad_out_row[r], values, inverse_total);
      maximum[r] = inside ? params.maximum[place] : 0.0f;
      minus_delta[r / 2][r % 2] = minus_delta[r / 2][2 + r % 2] = inside ? -params.delta()[place] : 0.0f;
    }
    __syncthreads();
  }
};

template <class T, int D>
struct NarrowKeyGradients {
  NarrowLeft<T, D, Side::key> key[kKeyTiles], value[kKeyTiles];
  float grad_key[kKeyTiles][2][D] = {}, grad_value[kKeyTiles][2][D] = {};  // the lane's share, of keys g and g + 8

  // Takes the 8 rows from `first` on.
  __device__ void add(const NarrowStagedRows<T, D>& rows, int first, float scale) {
    float scores[kKeyTiles][4] = {}, gradients[kKeyTiles][4];
    const unsigned own = first + 2 * lane_member();  // and the next
#pragma unroll
    for (int i = 0; i < 4 * kKeyTiles; ++i) gradients[i / 4][i % 4] = rows.minus_delta[own / 2][i % 4];
    multiply_rows(key, rows.query, first, scores);
    multiply_rows(value, rows.grad_out, first, gradients);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = own + i;
      const float maximum = rows.maximum[row];
      float query[D], grad_out[D];
      read_row(rows.query_row[row], query);
      read_row(rows.grad_out_row[row], grad_out);
#pragma unroll
      for (int m = 0; m < kKeyTiles; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float weight = attention_weight(scores[m][2 * half + i], maximum, scale);
          add_scaled(weight, grad_out, grad_value[m][half]);
          add_scaled(weight * gradients[m][2 * half + i], query, grad_key[m][half]);
        }
      }
    }
  }
};

template <class T, int D>
__global__ void __launch_bounds__(kKeyThreads, 3) attention_narrow_key_bwd_kernel(const AttentionCudaParams params) {
  __shared__ union Shared {
    NarrowStagedRows<T, D> rows;
    float sums[kRowGroups][kAttentionBlockKeys][2 * D + 1];  // odd: neighbouring keys on different banks
  } shared;
  const Place place = place_of(attention_tiles(params.keys, kAttentionBlockKeys), params.heads);
  const Chunk chunk = chunk_of(params, place);
  const bool* mask = mask_of(params, chunk.set);
  const auto is_kept = [&](int64_t key) { return key < params.keys && (mask == nullptr || !mask[key]); };
  const float scale = exponent_scale(D);
  const int warp = threadIdx.x / 32, key_group = warp % kKeyGroups, row_group = warp / kKeyGroups;
  const int64_t first_key = place.tile * kAttentionBlockKeys;
  const int first_own = 16 * kKeyTiles * key_group + lane_row();
  const T* keys = key_rows<T>(params, params.key, chunk.set, place.head);
  const T* values = key_rows<T>(params, params.value, chunk.set, place.head);
  NarrowKeyGradients<T, D> own;
#pragma unroll
  for (int i = 0; i < 2 * kKeyTiles; ++i) {
    const int64_t key = first_key + first_own + 8 * i;
    own.key[i / 2].load(is_kept(key) ? keys + key * params.key.row_stride : nullptr, i % 2);
    own.value[i / 2].load(is_kept(key) ? values + key * params.value.row_stride : nullptr, i % 2);
  }
  for (int64_t first = chunk.begin; first < chunk.end; first += kStagedRows<D>) {
    const int count = chunk.end - first < kStagedRows<D> ? static_cast<int>(chunk.end - first) : kStagedRows<D>;
    shared.rows.fill(params, place.head, chunk.set * params.rows_per_key_set() + first, count);
#pragma unroll 2
    for (int r = 0; r < kStagedRows<D> / kRowGroups; r += 8) {
      own.add(shared.rows, kStagedRows<D> / kRowGroups * row_group + r, scale);
    }
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 2 * kKeyTiles; ++i) {
    float* sums = shared.sums[row_group][first_own + 8 * i];
#pragma unroll
    for (int j = 0; j < D; ++j) {
      const float grad_key = row_sum(own.grad_key[i / 2][i % 2][j]);
      const float grad_value = row_sum(own.grad_value[i / 2][i % 2][j]);
      if (lane_member() == 0) sums[j] = grad_key * inverse_root(D), sums[D + j] = grad_value;
    }
  }
  __syncthreads();
  for (int i = threadIdx.x; i < kAttentionBlockKeys * 2 * D; i += blockDim.x) {
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
    constexpr int D = decltype(head_size)::value;
    return has_many_queries(params)
               ? launch_rows(attention_narrow_query_bwd_kernel<T, D, 2>, 2 * kBlockRows, stream, params)
               : launch_rows(attention_narrow_query_bwd_kernel<T, D, 1>, kBlockRows, stream, params);
  });
}

cudaError_t narrow_key_gradients(const AttentionCudaParams& params, cudaStream_t stream) {
  return with_types<4, 8>(params, [&](auto element, auto head_size) {
    using T = decltype(element);
    constexpr int D = decltype(head_size)::value;
    return launch_keys(attention_narrow_key_bwd_kernel<T, D>, kKeyThreads, stream, params);
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
