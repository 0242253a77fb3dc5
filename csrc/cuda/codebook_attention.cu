// Attention, forward, narrow heads: a thread owns R queries of one head and walks the keys in shared memory.

#include "attention_narrow.cuh"

namespace cbtalk {
namespace attention {
namespace {

template <int D>
struct Query {
  float query[D], out[D], maximum, total;
};

// Takes the group of keys from k on into R queries; with `left_out`, some of them may not count.
template <int D, int R>
__device__ void attend(const StagedKeys<D>& staged, int k, bool left_out, float scale, Query<D> (&queries)[R]) {
  float scores[R][kKeyGroup], fade[R];
#pragma unroll
  for (int i = 0; i < kKeyGroup; ++i) {
    float key[D];
    read_row(staged.key[k + i], key);
#pragma unroll
    for (int r = 0; r < R; ++r) scores[r][i] = dot(queries[r].query, key);
  }
  if (left_out) {
#pragma unroll
    for (int i = 0; i < kKeyGroup; ++i) {
#pragma unroll
      for (int r = 0; r < R; ++r) scores[r][i] += staged.bias[k + i];
    }
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    float largest = scores[r][0], sum = 0.0f;
#pragma unroll
    for (int i = 1; i < kKeyGroup; ++i) largest = fmaxf(largest, scores[r][i]);
    const RaisedMaximum raised = raise_maximum(queries[r].maximum, largest, scale);
#pragma unroll
    for (int i = 0; i < kKeyGroup; ++i) {
      scores[r][i] = attention_weight(scores[r][i], raised.maximum, scale);
      sum += scores[r][i];
    }
    queries[r].total = fmaf(queries[r].total, raised.fade, sum);
    fade[r] = raised.fade;
  }
  // The sums of a group begin anew: a sum over 1024 keys, one after the other, would drift.
  float sums[R][D] = {};
#pragma unroll
  for (int i = 0; i < kKeyGroup; ++i) {
    float value[D];
    read_row(staged.value[k + i], value);
#pragma unroll
    for (int r = 0; r < R; ++r) add_scaled(scores[r][i], value, sums[r]);
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
#pragma unroll
    for (int j = 0; j < D; ++j) queries[r].out[j] = fmaf(queries[r].out[j], fade[r], sums[r][j]);
  }
}

template <class T, int D, int R>
__global__ void __launch_bounds__(kThreads, 1) attention_narrow_fwd_kernel(const AttentionCudaParams params) {
  __shared__ StagedKeys<D> staged;
  const int64_t rows = params.rows_per_key_set();
  const Place place = place_of(attention_tiles(rows, kThreads * R), params.heads);
  const bool* mask = mask_of(params, place.part);
  const bool queries_in_fours = in_fours<T>(params.query);
  const float scale = exponent_scale(D);
  const int64_t first_local = place.tile * kThreads * R + threadIdx.x;
  Query<D> queries[R];
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int64_t local = first_local + r * kThreads;
    const bool inside = local < rows;
    const int64_t row = place.part * rows + (inside ? local : 0);
    load(row_of<T>(params, params.query, row, place.head), inside, queries_in_fours, queries[r].query);
#pragma unroll
    for (int j = 0; j < D; ++j) queries[r].out[j] = 0.0f;
    queries[r].maximum = -INFINITY;
    queries[r].total = 0.0f;
  }
  for (int64_t first = 0; first < params.keys; first += kStagedKeys<D>) {
    const int64_t left = params.keys - first;
    const int count = left < kStagedKeys<D> ? static_cast<int>(left) : kStagedKeys<D>;
    staged.template fill<T>(params, mask, place, first, count);
    for (int k = 0; k < count; k += kKeyGroup) {
      attend(staged, k, mask != nullptr || k + kKeyGroup > count, scale, queries);
    }
  }
#pragma unroll
  for (int r = 0; r < R; ++r) {
    const int64_t local = first_local + r * kThreads;
    if (local >= rows) continue;
    const int64_t row = place.part * rows + local;
    T* out = static_cast<T*>(params.out) + row * params.width() + place.head * D;
    store(out, queries[r].out, 1.0f / queries[r].total);
    if (params.maximum == nullptr) continue;
    params.maximum[place.head * params.rows() + row] = queries[r].maximum;
    params.total[place.head * params.rows() + row] = queries[r].total;
  }
}

}  // namespace
}  // namespace attention

cudaError_t codebook_attention_forward_cuda(const AttentionCudaParams& params, cudaStream_t stream) {
  using namespace attention;
  if (!attention_is_narrow(params.head_size)) return wide_forward(params, stream);
  return with_types<4, 8>(params, [&](auto element, auto head_size) {
    using T = decltype(element);
    constexpr int D = decltype(head_size)::value, R = kMostRows<D>;
    return has_many_queries(params)
               ? launch_rows(attention_narrow_fwd_kernel<T, D, R>, kThreads * R, stream, params)
               : launch_rows(attention_narrow_fwd_kernel<T, D, 1>, kThreads, stream, params);
  });
}

}  // namespace cbtalk
