#pragma once

// The parts of the attention kernels: tiles of queries, the two register-blocked products, a cheap exponential.
//
// A tile is kTile queries, one in each lane of kTileVectors vectors. Queries, gradients and accumulators of a tile are
// column major, (d, kTile); scores are (key, query). So neither the softmax nor the products ever cross lanes.

#include "attention_packing.h"
#include "simd.h"

namespace cbtalk::CBTALK_ISA {

// 4 rows x kTileVectors accumulators, the tile's vectors and a broadcast fit in 32 (AVX-512) or 16 registers.
constexpr int kTileVectors = kWidth == 16 ? 4 : 3;
constexpr int kTile = kTileVectors * kWidth;
static_assert(kAttentionQueryBlock % kTile == 0 && kAttentionKeyBlock % kPanel == 0);

constexpr float kLog2e = 1.44269504088896341f;

static inline float inverse_sqrt(int64_t head_size) { return float(1.0 / __builtin_sqrt(double(head_size))); }

// score -> 2^(factor * (score - maximum)). The queries are not scaled beforehand: that would round each product once
// more, where here the difference to the maximum, small for all that counts, is scaled without any rounding of its own.
struct Exponential {
  float factor;  // log2(e) / sqrt(d)
  float lowest;  // difference whose power, 2^-125, stands for everything below: nothing beside the maximum's 1

  explicit Exponential(int64_t head_size)
      : factor(kLog2e * inverse_sqrt(head_size)), lowest(-125.0f / (kLog2e * inverse_sqrt(head_size))) {}

  // Relative error below 1e-7 for score <= maximum; NaN for NaN.
  Vf operator()(Vf score, Vf maximum) const {
    const Vf shift = broadcast(12582912.0f);  // 1.5 * 2^23: the nearest integer lands in the low bits of the sum
    const Vf difference = max(broadcast(lowest), score - maximum);
    const Vf shifted = fma(difference, broadcast(factor), shift);
    const Vf r = fma(difference, broadcast(factor), shift - shifted);
    // Minimax of 2^r on [-0.5, 0.5], error 2e-9.
    Vf p = broadcast(1.535336196e-4f);
    p = fma(p, r, broadcast(1.339887385e-3f));
    p = fma(p, r, broadcast(9.618436918e-3f));
    p = fma(p, r, broadcast(5.550332367e-2f));
    p = fma(p, r, broadcast(2.402264774e-1f));
    p = fma(p, r, broadcast(6.931471825e-1f));
    p = fma(p, r, broadcast(1.0f));
    return (Vf)((Vi)p + ((Vi)shifted << 23));
  }
};

// The columns of one head of `count` rows from row `first` of B * T, side by side and zero-padded to `columns`; each
// row divided by divisor[t] where there is a divisor.
static inline void copy_rows(const AttentionParams& params, const AttentionRows& rows, int64_t first, int count,
                             int64_t head, const float* divisor, int columns, float* packed) {
  const int d = int(params.head_size);
  int64_t batch = first / params.tokens, token = first % params.tokens;
  for (int t = 0; t < count; ++t, packed += columns) {
    const float* row = row_of(rows, batch, token) + head * d;
    const float factor = divisor == nullptr ? 1.0f : 1.0f / divisor[t];
    for (int j = 0; j < d; ++j) packed[j] = row[j] * factor;
    for (int j = d; j < columns; ++j) packed[j] = 0.0f;
    if (++token == params.tokens) {
      token = 0;
      ++batch;
    }
  }
}

// Rows (count, columns) into a column-major tile; zero in the lanes past count.
static inline void fill_tile(const float* rows, int columns, int count, int d, float* tile) {
  for (int j = 0; j < d; ++j, tile += kTile) {
    for (int t = 0; t < count; ++t) tile[t] = rows[t * columns + j];
    for (int t = count; t < kTile; ++t) tile[t] = 0.0f;
  }
}

// The other way: lanes below count of a column-major tile into rows of a contiguous (B * T, heads * d) tensor.
static inline void store_tile(const AttentionParams& params, const float* tile, int64_t first, int count, int64_t head,
                              float* rows) {
  const int d = int(params.head_size);
  for (int t = 0; t < count; ++t) {
    float* row = rows + (first + t) * params.heads * d + head * d;
    for (int j = 0; j < d; ++j) row[j] = tile[j * kTile + t];
  }
}

// scores[k][t] = sum_j panels[k][j] tile[j][t] for `count` keys (whole panels are computed); largest takes the maximum.
template <int V>
static inline void panel_scores(const float* panels, int count, int d, const float* tile, float* scores, Vf* largest) {
  for (int k = 0; k < count; k += kPanel, panels += kPanel * d) {
    Vf sum[kPanel][V] = {};
    for (int j = 0; j < d; ++j) {
      Vf lanes[V];
      for (int v = 0; v < V; ++v) lanes[v] = load(tile + j * kTile + v * kWidth);
      for (int r = 0; r < kPanel; ++r) {
        const Vf element = broadcast(panels[j * kPanel + r]);
        for (int v = 0; v < V; ++v) sum[r][v] = fma(element, lanes[v], sum[r][v]);
      }
    }
    for (int r = 0; r < kPanel; ++r) {
      for (int v = 0; v < V; ++v) {
        if (largest != nullptr) largest[v] = max(largest[v], sum[r][v]);
        store(scores + (k + r) * kTile + v * kWidth, sum[r][v]);
      }
    }
  }
}

// tile[j][t] = shrink[t] tile[j][t] + sum_k rows[k][j] weights[k][t] over `count` keys, for the d columns of rows; a
// null shrink is 1. Everywhere a block is summed by itself and then added: rounding grows with the length of a block
// and with the number of blocks, not with their product.
template <int V>
static inline void add_weighted_rows(const float* rows, int count, int d, const float* weights, const Vf* shrink,
                                     float* tile) {
  const int columns = round_up(d, kPanel);
  for (int j = 0; j < columns; j += kPanel) {
    Vf sum[kPanel][V] = {};
    for (int k = 0; k < count; ++k) {
      Vf lanes[V];
      for (int v = 0; v < V; ++v) lanes[v] = load(weights + k * kTile + v * kWidth);
      for (int r = 0; r < kPanel; ++r) {
        const Vf element = broadcast(rows[int64_t(k) * columns + j + r]);
        for (int v = 0; v < V; ++v) sum[r][v] = fma(element, lanes[v], sum[r][v]);
      }
    }
    for (int r = 0; r < kPanel; ++r) {
      for (int v = 0; v < V; ++v) {
        float* target = tile + (j + r) * kTile + v * kWidth;
        store(target, shrink == nullptr ? load(target) + sum[r][v] : fma(load(target), shrink[v], sum[r][v]));
      }
    }
  }
}

}  // namespace cbtalk::CBTALK_ISA
