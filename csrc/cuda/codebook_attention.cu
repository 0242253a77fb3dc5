// Attention, forward, narrow heads: a warp owns M times 16 queries of one head and walks the keys in shared memory.
// Each lane has a softmax of its own over a quarter of the keys; at the end the four of a row become one.

#include "attention_narrow.cuh"

namespace cbtalk {
namespace attention {
namespace {

template <class T, int D>
struct NarrowKeys {
  NarrowMatrix<T, D, Side::key, kStagedKeys<D>> key;
  alignas(16) float value[kStagedKeys<D>][D];
  float bias[kStagedKeys<D>];
};

template <class T, int D, int M>
struct NarrowQueries {
  NarrowLeft<T, D, Side::query> query[M];
  float out[M][2][D] = {}, maximum[M][2], total[M][2] = {};  // of rows g and g + 8

  // Takes the group of keys from k on; with `left_out`, some of them may not count.
  __device__ void attend(const NarrowKeys<T, D>& keys, int k, bool left_out, float scale) {
    float weights[kGroupTiles<D>][M][4] = {};
#pragma unroll
    for (int tile = 0; tile < kGroupTiles<D>; ++tile) multiply_rows(query, keys.key, k + 8 * tile, weights[tile]);
    const int own = k + 2 * lane_member();  // and the next, of each tile
    if (left_out) {
#pragma unroll
      for (int i = 0; i < 2 * kGroupTiles<D>; ++i) {
        const float bias = keys.bias[own + i / 2 * 8 + i % 2];
#pragma unroll
        for (int m = 0; m < M; ++m) weights[i / 2][m][i % 2] += bias, weights[i / 2][m][2 + i % 2] += bias;
      }
    }
    float fade[M][2];
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) fade[m][half] = weigh(weights, m, half, scale);
    }
    // The sums of a group begin anew: a sum over 256 keys, one after the other, would drift.
    float sums[M][2][D] = {};
#pragma unroll
    for (int i = 0; i < 2 * kGroupTiles<D>; ++i) {
      float value[D];
      read_row(keys.value[own + i / 2 * 8 + i % 2], value);
#pragma unroll
      for (int m = 0; m < M; ++m) {
#pragma unroll
        for (int half = 0; half < 2; ++half) add_scaled(weights[i / 2][m][2 * half + i % 2], value, sums[m][half]);
      }
    }
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int j = 0; j < 2 * D; ++j) {
        out[m][j / D][j % D] = fmaf(out[m][j / D][j % D], fade[m][j / D], sums[m][j / D][j % D]);
      }
    }
  }

  // Scores of a row become weights under its new maximum; what its sums are worth under it.
  __device__ float weigh(float (&scores)[kGroupTiles<D>][M][4], int m, int half, float scale) {
    float largest = scores[0][m][2 * half], sum = 0.0f;
#pragma unroll
    for (int i = 1; i < 2 * kGroupTiles<D>; ++i) largest = fmaxf(largest, scores[i / 2][m][2 * half + i % 2]);
    const RaisedMaximum raised = raise_maximum(maximum[m][half], largest, scale);
#pragma unroll
    for (int i = 0; i < 2 * kGroupTiles<D>; ++i) {
      float& score = scores[i / 2][m][2 * half + i % 2];
      score = attention_weight(score, raised.maximum, scale);
      sum += score;
    }
    total[m][half] = fmaf(total[m][half], raised.fade, sum);
    return raised.fade;
  }

  // The softmax of the four lanes of a row as one; each has it.
  __device__ void join(int m, int half, float scale) {
    const float fade = raise_maximum(maximum[m][half], row_maximum(maximum[m][half]), scale).fade;
    total[m][half] = row_sum(total[m][half] * fade);
#pragma unroll
    for (int j = 0; j < D; ++j) out[m][half][j] = row_sum(out[m][half][j] * fade);
  }
};

template <class T, int D, int M>
__global__ void __launch_bounds__(kThreads, 1) attention_narrow_fwd_kernel(const AttentionCudaParams params) {
  __shared__ NarrowKeys<T, D> keys;
  const WarpRows<M> rows(params);
  const bool* mask = mask_of(params, rows.place.part);
  const float scale = exponent_scale(D);
  NarrowQueries<T, D, M> queries;
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      queries.query[m].load(rows.template at<T>(params, params.query, m, half), half);
      queries.maximum[m][half] = -INFINITY;
    }
  }
  for (int64_t first = 0; first < params.keys; first += kStagedKeys<D>) {
    const int64_t left = params.keys - first;
    const int count = left < kStagedKeys<D> ? static_cast<int>(left) : kStagedKeys<D>;
    each_key<D, T>(params, mask, rows.place, first, count,
                   [&](int k, const T(&key)[D], const T(&value)[D], float bias) {
                     keys.key.put(k, key);
                     write_row(keys.value[k], value);
                     keys.bias[k] = bias;
                   });
    for (int k = 0; k < count; k += kKeyGroup<D>) {
      queries.attend(keys, k, mask != nullptr || k + kKeyGroup<D> > count, scale);
    }
  }
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      queries.join(m, half, scale);
      if (!rows.inside(m, half) || lane_member() != 0) continue;
      store(rows.template target<T>(params, params.out, m, half), queries.out[m][half], 1.0f / queries.total[m][half]);
      if (params.maximum == nullptr) continue;
      const int64_t place = rows.place.head * params.rows() + rows.row(m, half);
      params.maximum[place] = queries.maximum[m][half];
      params.total[place] = queries.total[m][half];
    }
  }
}

}  // namespace
}  // namespace attention

cudaError_t codebook_attention_forward_cuda(const AttentionCudaParams& params, cudaStream_t stream) {
  using namespace attention;
  if (!attention_is_narrow(params.head_size)) return wide_forward(params, stream);
  return with_types<4, 8>(params, [&](auto element, auto head_size) {
    using T = decltype(element);
    constexpr int D = decltype(head_size)::value;
    return has_many_queries(params)
               ? launch_rows(attention_narrow_fwd_kernel<T, D, 2>, 2 * kBlockRows, stream, params)
               : launch_rows(attention_narrow_fwd_kernel<T, D, 1>, kBlockRows, stream, params);
  });
}

}  // namespace cbtalk
