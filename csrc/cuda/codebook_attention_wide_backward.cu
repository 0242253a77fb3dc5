// Attention, backward, wide heads: as codebook_attention_backward.cu says. The products of the second kernel are those
// of the first with queries and keys exchanged.

#include "attention_wide.cuh"

namespace cbtalk::attention {
namespace {

template <class T, int D, int M>
__global__ void __launch_bounds__(kThreads, 1) attention_wide_query_bwd_kernel(const AttentionCudaParams params) {
  constexpr int N = kStepTiles;
  __shared__ WideKeys<T, D> keys;
  const WideRows<M> rows(params);
  const bool* mask = mask_of(params, rows.place.part);
  const AttentionCudaRows outputs = rows_of_out(params);
  const float scale = exponent_scale(D);
  const int64_t statistics = rows.place.head * params.rows();
  Left<T> query[M][D / kDepth], grad_out[M][D / kDepth];
  float grad_query[M][D / 8][4] = {}, maximum[M][2], delta[M][2];
#pragma unroll
  for (int m = 0; m < M; ++m) {
    rows.load(params, params.query, m, query[m]);
    rows.load(params, params.grad_out, m, grad_out[m]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      maximum[m][half] = rows.inside(m, half) ? params.maximum[statistics + rows.row(m, half)] : 0.0f;
      delta[m][half] = row_dot<D>(rows.template at<T>(params, params.grad_out, m, half),
                                  rows.template at<T>(params, outputs, m, half));
    }
  }
  for (int64_t first = 0; first < params.keys; first += kStaged<T>) {
    const int64_t left = params.keys - first;
    const int count = left < kStaged<T> ? static_cast<int>(left) : kStaged<T>;
    keys.fill(params, mask, rows.place, first, count);
    for (int k = 0; k < count; k += kDepth) {
      float weights[M][N][4], gradients[M][N][4];
      multiply_along(query, keys.key, k, weights);
      multiply_along(grad_out, keys.value, k, gradients);
      Left<T> factor[M];
#pragma unroll
      for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int i = 0; i < 4 * N; ++i) {
          const int tile = i / 4, column = 8 * tile + 2 * lane_member() + i % 2, half = i % 4 / 2;
          const float score = weights[m][tile][i % 4] + keys.bias[k + column];
          gradients[m][tile][i % 4] -= delta[m][half];
          gradients[m][tile][i % 4] *= attention_weight(score, maximum[m][half], scale);
        }
        factor[m] = left_of_sums<T>(gradients[m]);
      }
      add_across(factor, keys.key, k, grad_query);
    }
  }
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      if (!rows.inside(m, half)) continue;
      if (lane_member() == 0) params.delta()[statistics + rows.row(m, half)] = delta[m][half];
      const float factor = inverse_root(D) / params.total[statistics + rows.row(m, half)];
      rows.template store<T>(params, params.grad_query, m, half, grad_query[m], factor);
    }
  }
}

// Rows of queries of a piece, as right factors.
template <class T, int D>
struct WideStagedRows {
  Matrix<T, D> query, grad_out;
  float maximum[kStaged<T>], inverse_total[kStaged<T>], delta[kStaged<T>];

  // `count` rows from `first` on, and rows of zeros behind them: they add nothing. Synchronises before and after.
  __device__ void fill(const AttentionCudaParams& params, int64_t head, int64_t first, int count) {
    constexpr int kVectors = D / kAtOnce<T>;
    const bool queries_at_once = in_vectors<T, kAtOnce<T>>(params.query);
    const bool gradients_at_once = in_vectors<T, kAtOnce<T>>(params.grad_out);
    __syncthreads();
    for (int i = threadIdx.x; i < kStaged<T> * kVectors; i += blockDim.x) {
      const int r = i / kVectors, column = i % kVectors * kAtOnce<T>;
      const bool inside = r < count;
      const int64_t row = inside ? first + r : first;
      T vector[kAtOnce<T>];
      load_vector(row_of<T>(params, params.query, row, head) + column, inside, queries_at_once, vector);
      query.put(r, column, vector);
      load_vector(row_of<T>(params, params.grad_out, row, head) + column, inside, gradients_at_once, vector);
      grad_out.put(r, column, vector);
      if (column > 0) continue;
      const int64_t place = head * params.rows() + row;
      maximum[r] = inside ? params.maximum[place] : 0.0f;
      inverse_total[r] = inside ? 1.0f / params.total[place] : 0.0f;
      delta[r] = inside ? params.delta()[place] : 0.0f;
    }
    __syncthreads();
  }
};

// Each warp has M times 16 keys; where a block has more warps than that takes, they share out the rows among them.
constexpr int kKeyThreads = 256;

template <class T, int D, int M>
__global__ void __launch_bounds__(kKeyThreads, 1) attention_wide_key_bwd_kernel(const AttentionCudaParams params) {
  constexpr int N = kStepTiles, kKeyGroups = kAttentionBlockKeys / (16 * M), kRowGroups = kKeyThreads / 32 / kKeyGroups;
  __shared__ union Shared {
    WideStagedRows<T, D> rows;
    float sums[kRowGroups][kAttentionBlockKeys][D + 1];
  } shared;
  const Place place = place_of(attention_tiles(params.keys, kAttentionBlockKeys), params.heads);
  const Chunk chunk = chunk_of(params, place);
  const bool* mask = mask_of(params, chunk.set);
  const auto is_kept = [&](int64_t key) { return key < params.keys && (mask == nullptr || !mask[key]); };
  const float scale = exponent_scale(D);
  const int warp = threadIdx.x / 32, key_group = warp % kKeyGroups, row_group = warp / kKeyGroups;
  const int64_t first_key = place.tile * kAttentionBlockKeys;
  Left<T> key[M][D / kDepth], value[M][D / kDepth];
  float grad_key[M][D / 8][4] = {}, grad_value[M][D / 8][4] = {};
  const T* keys = key_rows<T>(params, params.key, chunk.set, place.head);
  const T* values = key_rows<T>(params, params.value, chunk.set, place.head);
#pragma unroll
  for (int m = 0; m < M; ++m) {
    const T *key_pair[2], *value_pair[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t k = first_key + (key_group * M + m) * 16 + lane_row() + 8 * half;
      key_pair[half] = is_kept(k) ? keys + k * params.key.row_stride : nullptr;
      value_pair[half] = is_kept(k) ? values + k * params.value.row_stride : nullptr;
    }
#pragma unroll
    for (int step = 0; step < D / kDepth; ++step) {
      key[m][step] = left_of_rows(key_pair, step * kDepth);
      value[m][step] = left_of_rows(value_pair, step * kDepth);
    }
  }
  for (int64_t first = chunk.begin; first < chunk.end; first += kStaged<T>) {
    const int count = chunk.end - first < kStaged<T> ? static_cast<int>(chunk.end - first) : kStaged<T>;
    const WideStagedRows<T, D>& rows = shared.rows;
    shared.rows.fill(params, place.head, chunk.set * params.rows_per_key_set() + first, count);
    for (int r = row_group * kDepth; r < count; r += kRowGroups * kDepth) {
      float weights[M][N][4], gradients[M][N][4];
      multiply_along(key, rows.query, r, weights);
      multiply_along(value, rows.grad_out, r, gradients);
      Left<T> factor[M];
#pragma unroll
      for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int i = 0; i < 4 * N; ++i) {
          const int tile = i / 4, row = r + 8 * tile + 2 * lane_member() + i % 2;
          float& weight = weights[m][tile][i % 4];
          weight = attention_weight(weight, rows.maximum[row], scale) * rows.inverse_total[row];
          gradients[m][tile][i % 4] = weight * (gradients[m][tile][i % 4] - rows.delta[row]);
        }
        factor[m] = left_of_sums<T>(weights[m]);
      }
      add_across(factor, rows.grad_out, r, grad_value);
#pragma unroll
      for (int m = 0; m < M; ++m) factor[m] = left_of_sums<T>(gradients[m]);
      add_across(factor, rows.query, r, grad_key);
    }
  }
#pragma unroll
  for (int of_value = 0; of_value < 2; ++of_value) {
    __syncthreads();
#pragma unroll
    for (int i = 0; i < M * D / 2; ++i) {
      const int m = i / (D / 2), tile = i / 4 % (D / 8), half = i % 4 / 2;
      const int column = tile / 2 * 16 + 4 * lane_member() + i % 2 * 2 + tile % 2;
      const float sum = of_value ? grad_value[m][tile][i % 4] : grad_key[m][tile][i % 4] * inverse_root(D);
      shared.sums[row_group][(key_group * M + m) * 16 + lane_row() + 8 * half][column] = sum;
    }
    __syncthreads();
    for (int i = threadIdx.x; i < kAttentionBlockKeys * D; i += kKeyThreads) {
      const int k = i / D, column = i % D;
      if (first_key + k >= params.keys) continue;
      float sum = 0.0f;
      for (int group = 0; group < kRowGroups; ++group) sum += shared.sums[group][k][column];
      write_key_gradient<T>(params, place, chunk.chunks, first_key + k, column, of_value,
                            is_kept(first_key + k) ? sum : 0.0f);
    }
  }
}

}  // namespace

cudaError_t wide_query_gradients(const AttentionCudaParams& params, cudaStream_t stream) {
  return with_types<16, 32>(params, [&](auto element, auto head_size) {
    using T = decltype(element);
    constexpr int D = decltype(head_size)::value, M = kMostGradientTiles<T>;
    return has_many_queries(params)
               ? launch_rows(attention_wide_query_bwd_kernel<T, D, M>, M * kBlockRows, stream, params)
               : launch_rows(attention_wide_query_bwd_kernel<T, D, 1>, kBlockRows, stream, params);
  });
}

cudaError_t wide_key_gradients(const AttentionCudaParams& params, cudaStream_t stream) {
  return with_types<16, 32>(params, [&](auto element, auto head_size) {
    using T = decltype(element);
    constexpr int D = decltype(head_size)::value, M = kMostGradientTiles<T>;
    return launch_keys(attention_wide_key_bwd_kernel<T, D, M>, kKeyThreads, stream, params);
  });
}

}  // namespace cbtalk::attention
