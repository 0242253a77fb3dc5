// Attention, forward, wide heads: a warp owns M times 16 queries of one head and walks the keys in shared memory.

#include "attention_wide.cuh"

namespace cbtalk::attention {
namespace {

// Keys whose scores a warp holds before it raises its maxima.
template <class T>
constexpr int kGroupTiles = sizeof(T) == sizeof(float) ? 2 : 4;

template <class T, int D, int M>
struct WideQueries {
  Left<T> query[M][D / kDepth];
  float out[M][D / 8][4] = {};
  float maximum[M][2], total[M][2] = {};  // of rows g and g + 8; total is the lane's own share

  // Takes the 32 keys from k on; with `left_out`, some of them may not count.
  __device__ void attend(const WideKeys<T, D>& keys, int k, bool left_out, float scale) {
    float weights[M][kGroupTiles<T>][4];
    multiply_along(query, keys.key, k, weights);
    if (left_out) {
#pragma unroll
      for (int tile = 0; tile < kGroupTiles<T>; ++tile) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
          const float bias = keys.bias[k + 8 * tile + 2 * lane_member() + i % 2];
#pragma unroll
          for (int m = 0; m < M; ++m) weights[m][tile][i] += bias;
        }
      }
    }
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int half = 0; half < 2; ++half) weigh(weights[m], m, half, scale);
    }
#pragma unroll
    for (int tile = 0; tile < kGroupTiles<T>; tile += kStepTiles) {
      Left<T> left[M];
#pragma unroll
      for (int m = 0; m < M; ++m) left[m] = left_of_sums<T>(&weights[m][tile]);
      add_across(left, keys.value, k + 8 * tile, out);
    }
  }

  // Scores of a row become weights under its new maximum.
  __device__ void weigh(float (&scores)[kGroupTiles<T>][4], int m, int half, float scale) {
    float largest = -INFINITY, sum = 0.0f;
#pragma unroll
    for (int i = 0; i < 2 * kGroupTiles<T>; ++i) largest = fmaxf(largest, scores[i / 2][2 * half + i % 2]);
    const RaisedMaximum raised = raise_maximum(maximum[m][half], row_maximum(largest), scale);
#pragma unroll
    for (int i = 0; i < 2 * kGroupTiles<T>; ++i) {
      float& score = scores[i / 2][2 * half + i % 2];
      score = attention_weight(score, raised.maximum, scale);
      sum += score;
    }
    total[m][half] = fmaf(total[m][half], raised.fade, sum);
#pragma unroll
    for (int tile = 0; tile < D / 8; ++tile) {
      out[m][tile][2 * half] *= raised.fade;
      out[m][tile][2 * half + 1] *= raised.fade;
    }
  }
};

template <class T, int D, int M>
__global__ void __launch_bounds__(kThreads, 1) attention_wide_fwd_kernel(const AttentionCudaParams params) {
  __shared__ WideKeys<T, D> keys;
  const WideRows<M> rows(params);
  const bool* mask = mask_of(params, rows.place.part);
  const float scale = exponent_scale(D);
  WideQueries<T, D, M> queries;
#pragma unroll
  for (int m = 0; m < M; ++m) {
    rows.load(params, params.query, m, queries.query[m]);
    queries.maximum[m][0] = queries.maximum[m][1] = -INFINITY;
  }
  for (int64_t first = 0; first < params.keys; first += kStaged<T>) {
    const int64_t left = params.keys - first;
    const int count = left < kStaged<T> ? static_cast<int>(left) : kStaged<T>;
    keys.fill(params, mask, rows.place, first, count);
    for (int k = 0; k < count; k += 8 * kGroupTiles<T>) {
      queries.attend(keys, k, mask != nullptr || k + 8 * kGroupTiles<T> > count, scale);
    }
  }
#pragma unroll
  for (int m = 0; m < M; ++m) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float total = row_sum(queries.total[m][half]);
      if (!rows.inside(m, half)) continue;
      rows.template store<T>(params, params.out, m, half, queries.out[m], 1.0f / total);
      if (params.maximum == nullptr || lane_member() != 0) continue;
      const int64_t place = rows.place.head * params.rows() + rows.row(m, half);
      params.maximum[place] = queries.maximum[m][half];
      params.total[place] = total;
    }
  }
}

}  // namespace

cudaError_t wide_forward(const AttentionCudaParams& params, cudaStream_t stream) {
  return with_types<16, 32>(params, [&](auto element, auto head_size) {
    using T = decltype(element);
    constexpr int D = decltype(head_size)::value;
    return has_many_queries(params)
               ? launch_rows(attention_wide_fwd_kernel<T, D, 2>, 2 * kBlockRows, stream, params)
               : launch_rows(attention_wide_fwd_kernel<T, D, 1>, kBlockRows, stream, params);
  });
}

}  // namespace cbtalk::attention
