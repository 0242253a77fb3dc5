// Attention, backward. With E = exp((score - maximum) / sqrt(d)), so that E / total are the weights,
// G = grad_out / total and D = sum_j G_j out_j per query:
//   grad_value = E^T G,  dS = E * (G V^T - D),  grad_query = dS K / sqrt(d),  grad_key = dS^T Q / sqrt(d).
//
// A work item owns one head and one chunk of its queries. It walks the keys in blocks on the outside, so that the
// gradients of a block's keys and values stay in the first-level cache while all the queries pass by; every sum is
// taken in an order that only the sizes decide.

#include "attention_tiles.h"

namespace cbtalk::CBTALK_ISA {
namespace {

// Up to kAttentionBackwardRows queries of one head, and room for the scores of one tile.
struct Queries {
  int count;
  int columns;          // d rounded up to 4
  float* query;         // tiles (columns, kTile)
  float* grad_out;      // tiles (columns, kTile): G
  float* grad_query;    // tiles (columns, kTile)
  float* query_rows;    // (count, partial_columns), zero-padded
  float* grad_rows;     // (count, partial_columns), zero-padded: G
  float* maximum;       // (count)
  float* delta;         // (count): D
  float* weights;       // (kAttentionKeyBlock, kTile): E
  float* grad_scores;   // (kAttentionKeyBlock, kTile): dS
  float* lanes;         // (2, kAttentionKeyBlock, d, kWidth): one partial sum a lane, for heads narrower than a vector
};

Queries divide_scratch(const AttentionParams& params, float* scratch) {
  const int columns = round_up(int(params.head_size), kPanel);
  const int64_t tiles = int64_t(kAttentionBackwardRows) * columns;
  const int64_t rows = kAttentionBackwardRows * params.partial_columns();
  const int64_t block = int64_t(kAttentionKeyBlock) * kTile;
  Queries q{};
  q.columns = columns;
  q.query = scratch;
  q.grad_out = q.query + tiles;
  q.grad_query = q.grad_out + tiles;
  q.query_rows = q.grad_query + tiles;
  q.grad_rows = q.query_rows + rows;
  q.maximum = q.grad_rows + rows;
  q.delta = q.maximum + kAttentionBackwardRows;
  q.weights = q.delta + kAttentionBackwardRows;
  q.grad_scores = q.weights + block;
  q.lanes = q.grad_scores + block;
  return q;
}

void load_queries(const AttentionParams& params, int64_t first, int count, int64_t head, Queries& q) {
  const int d = int(params.head_size), columns = int(params.partial_columns());
  const int64_t place = head * params.batch * params.tokens + first;
  q.count = count;
  copy_rows(params, params.query, first, count, head, nullptr, columns, q.query_rows);
  copy_rows(params, params.grad_out, first, count, head, params.total + place, columns, q.grad_rows);
  for (int t = 0; t < count; t += kTile) {
    const int in_tile = count - t < kTile ? count - t : kTile;
    fill_tile(q.query_rows + t * columns, columns, in_tile, d, q.query + int64_t(t) * q.columns);
    fill_tile(q.grad_rows + t * columns, columns, in_tile, d, q.grad_out + int64_t(t) * q.columns);
  }
  const int padded = round_up(count, kTile);
  for (int64_t i = 0; i < int64_t(padded) * q.columns; ++i) q.grad_query[i] = 0.0f;
  for (int t = 0; t < padded; ++t) {
    // Lanes past the end have a zero gradient: whatever their weight, they add nothing.
    q.maximum[t] = t < count ? params.maximum[place + t] : 0.0f;
    float delta = 0.0f;
    const float* out = params.out + (first + t) * params.heads * d + head * d;
    for (int j = 0; t < count && j < d; ++j) delta = fma(q.grad_rows[t * columns + j], out[j], delta);
    q.delta[t] = delta;
  }
}

// E and dS of `count` keys for the tile at query t.
void differentiate_scores(const Queries& q, const float* key_panels, const float* value_panels, int count, int d,
                          int t) {
  const Exponential weight(d);
  constexpr Vf* no_maximum = nullptr;
  panel_scores<kTileVectors>(key_panels, count, d, q.query + int64_t(t) * q.columns, q.weights, no_maximum);
  panel_scores<kTileVectors>(value_panels, count, d, q.grad_out + int64_t(t) * q.columns, q.grad_scores, no_maximum);
  for (int v = 0; v < kTileVectors; ++v) {
    const Vf maximum = load(q.maximum + t + v * kWidth), delta = load(q.delta + t + v * kWidth);
    for (int k = 0; k < count; ++k) {
      const int i = k * kTile + v * kWidth;
      const Vf e = weight(load(q.weights + i), maximum);
      store(q.weights + i, e);
      store(q.grad_scores + i, e * (load(q.grad_scores + i) - delta));
    }
  }
}

// sums[k][c] += sum_t scores[k][t] rows[t][c] for R keys and V vectors of columns, t < count.
template <int R, int V>
void add_outer_product(const float* scores, int count, const float* rows, int columns, float* sums) {
  Vf sum[R][V] = {};
  for (int t = 0; t < count; ++t) {
    Vf lanes[V];
    for (int v = 0; v < V; ++v) lanes[v] = load(rows + t * columns + v * kWidth);
    for (int r = 0; r < R; ++r) {
      const Vf element = broadcast(scores[r * kTile + t]);
      for (int v = 0; v < V; ++v) sum[r][v] = fma(element, lanes[v], sum[r][v]);
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int v = 0; v < V; ++v) {
      float* target = sums + r * columns + v * kWidth;
      store(target, load(target) + sum[r][v]);
    }
  }
}

template <int R>
void add_outer_products(const float* scores, int keys, int count, const float* rows, int columns, float* sums) {
  int k = 0;
  for (; k + R <= keys; k += R) {
    float* target = sums + int64_t(k) * columns;
    int c = 0;
    for (; c + 2 * kWidth <= columns; c += 2 * kWidth) {
      add_outer_product<R, 2>(scores + k * kTile, count, rows + c, columns, target + c);
    }
    if (c < columns) add_outer_product<R, 1>(scores + k * kTile, count, rows + c, columns, target + c);
  }
  if constexpr (R > 1) {
    add_outer_products<1>(scores + k * kTile, keys - k, count, rows, columns, sums + int64_t(k) * columns);
  }
}

// lanes[k][j] += scores[k] * tile[j], lane by lane: for heads narrower than a vector.
void add_in_lanes(const float* scores, int keys, int d, const float* tile, float* lanes) {
  for (int k = 0; k < keys; ++k) {
    Vf score[kTileVectors];
    for (int v = 0; v < kTileVectors; ++v) score[v] = load(scores + k * kTile + v * kWidth);
    for (int j = 0; j < d; ++j, lanes += kWidth) {
      Vf sum = {};
      for (int v = 0; v < kTileVectors; ++v) sum = fma(score[v], load(tile + j * kTile + v * kWidth), sum);
      store(lanes, load(lanes) + sum);
    }
  }
}

void reduce_lanes(const float* lanes, int keys, int d, int columns, float* sums) {
  for (int k = 0; k < keys; ++k) {
    for (int j = 0; j < d; ++j) sums[k * columns + j] += reduce_add(load(lanes + (k * d + j) * kWidth));
  }
}

// Adds what the queries give to the gradients of one block of keys, (count, partial_columns) each.
void add_key_block(const Queries& q, const PackedHead& head, int first, int count, int d, int columns, float* grad_key,
                   float* grad_value) {
  const bool narrow = d < kWidth;
  float* key_lanes = q.lanes;
  float* value_lanes = q.lanes + kAttentionKeyBlock * d * kWidth;
  for (int i = 0; narrow && i < count * d * kWidth; ++i) key_lanes[i] = value_lanes[i] = 0.0f;
  for (int t = 0; t < q.count; t += kTile) {
    const int in_tile = q.count - t < kTile ? q.count - t : kTile;
    const int64_t tile = int64_t(t) * q.columns;
    differentiate_scores(q, head.key_panels + int64_t(first) * d, head.value_panels + int64_t(first) * d, count, d, t);
    add_weighted_rows<kTileVectors>(head.key_rows + int64_t(first) * q.columns, count, d, q.grad_scores,
                                    nullptr, q.grad_query + tile);
    if (narrow) {
      add_in_lanes(q.grad_scores, count, d, q.query + tile, key_lanes);
      add_in_lanes(q.weights, count, d, q.grad_out + tile, value_lanes);
    } else {
      constexpr int kRows = kWidth == 16 ? 8 : 4;
      const int64_t row = int64_t(t) * columns;
      add_outer_products<kRows>(q.grad_scores, count, in_tile, q.query_rows + row, columns, grad_key);
      add_outer_products<kRows>(q.weights, count, in_tile, q.grad_rows + row, columns, grad_value);
    }
  }
  if (narrow) {
    reduce_lanes(key_lanes, count, d, columns, grad_key);
    reduce_lanes(value_lanes, count, d, columns, grad_value);
  }
}

}  // namespace

void attention_backward(const AttentionParams& params, float* scratch, int64_t begin, int64_t end) {
  const int d = int(params.head_size), columns = int(params.partial_columns());
  const int64_t rows = params.rows_per_key_set(), chunks = params.query_chunks();
  const float scale = inverse_sqrt(d);
  Queries q = divide_scratch(params, scratch);
  PackedHead packed(params, scratch + params.backward_scratch() - 4 * params.packed_matrix());
  for (int64_t item = begin; item < end; ++item) {
    packed.pack(params, item / chunks);
    const int64_t set = packed.set, head = packed.head, chunk = item % chunks;
    float* grad_key = params.partial + item * 2 * params.keys * columns;
    float* grad_value = grad_key + params.keys * columns;
    for (int64_t i = 0; i < 2 * params.keys * columns; ++i) grad_key[i] = 0.0f;
    const int64_t last = rows * (chunk + 1) / chunks;
    for (int64_t first = rows * chunk / chunks; first < last; first += kAttentionBackwardRows) {
      const int count = int(last - first < kAttentionBackwardRows ? last - first : kAttentionBackwardRows);
      load_queries(params, set * rows + first, count, head, q);
      for (int k = 0; k < packed.count; k += kAttentionKeyBlock) {
        const int keys = packed.count - k < kAttentionKeyBlock ? packed.count - k : kAttentionKeyBlock;
        const int64_t place = int64_t(k) * columns;
        add_key_block(q, packed, k, keys, d, columns, grad_key + place, grad_value + place);
      }
      for (int64_t i = 0; i < int64_t(round_up(count, kTile)) * q.columns; ++i) q.grad_query[i] *= scale;
      for (int t = 0; t < count; t += kTile) {
        store_tile(params, q.grad_query + int64_t(t) * q.columns, set * rows + first + t,
                   count - t < kTile ? count - t : kTile, head, params.grad_query);
      }
    }
  }
}

// Sums the chunks in order and puts the kept keys back in their places; masked keys have no gradient.
void attention_key_gradients(const AttentionParams& params, int64_t begin, int64_t end) {
  const int d = int(params.head_size), columns = int(params.partial_columns());
  const int64_t chunks = params.query_chunks(), width = params.heads * d, matrix = params.keys * columns;
  const float scale = inverse_sqrt(d);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t set = item / params.heads, head = item % params.heads;
    const int32_t* kept = params.kept + set * params.keys;
    int32_t position = 0;
    for (int64_t key = 0; key < params.keys; ++key) {
      const bool is_kept = position < params.kept_count[set] && kept[position] == key;
      float* grad_key = params.grad_key + (set * params.keys + key) * width + head * d;
      float* grad_value = params.grad_value + (set * params.keys + key) * width + head * d;
      for (int j = 0; j < d; ++j) {
        float key_sum = 0.0f, value_sum = 0.0f;
        const float* partial = params.partial + item * chunks * 2 * matrix + int64_t(position) * columns + j;
        for (int64_t chunk = 0; is_kept && chunk < chunks; ++chunk, partial += 2 * matrix) {
          key_sum += partial[0];
          value_sum += partial[matrix];
        }
        grad_key[j] = key_sum * scale;
        grad_value[j] = value_sum;
      }
      position += is_kept;
    }
  }
}

}  // namespace cbtalk::CBTALK_ISA
