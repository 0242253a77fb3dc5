// Attention, forward: the softmax with a running maximum, a block of keys at a time.

#include "attention_tiles.h"

namespace cbtalk::CBTALK_ISA {
namespace {

// The running softmax of one tile.
struct Tile {
  float* rows;     // (kTile, d rounded up to 4): the queries as they are
  float* query;    // (d, kTile)
  float* out;      // (d rounded up to 4, kTile)
  float* scores;   // (kAttentionKeyBlock, kTile), then the weights
  float* maximum;  // (kTile)
  float* total;    // (kTile)
};

// Scores become weights relative to the new maximum; shrink is what turns the sums so far into sums relative to it.
template <int V>
void weigh_block(const Tile& tile, const Exponential& weight, int count, const Vf* largest, Vf* shrink) {
  Vf total[V] = {};
  for (int k = 0; k < count; ++k) {
    for (int v = 0; v < V; ++v) {
      float* score = tile.scores + k * kTile + v * kWidth;
      const Vf w = weight(load(score), largest[v]);
      total[v] += w;
      store(score, w);
    }
  }
  for (int v = 0; v < V; ++v) {
    const int lane = v * kWidth;
    shrink[v] = weight(load(tile.maximum + lane), largest[v]);
    store(tile.total + lane, fma(load(tile.total + lane), shrink[v], total[v]));
    store(tile.maximum + lane, largest[v]);
  }
}

template <int V>
void attend(const Tile& tile, const PackedHead& head, const Exponential& weight, int d) {
  const int columns = round_up(d, kPanel);
  for (int i = 0; i < columns * kTile; ++i) tile.out[i] = 0.0f;
  for (int i = 0; i < kTile; ++i) tile.maximum[i] = -__builtin_inff();
  for (int i = 0; i < kTile; ++i) tile.total[i] = 0.0f;
  for (int first = 0; first < head.count; first += kAttentionKeyBlock) {
    const int count = head.count - first < kAttentionKeyBlock ? head.count - first : kAttentionKeyBlock;
    Vf largest[V], shrink[V];
    for (int v = 0; v < V; ++v) largest[v] = load(tile.maximum + v * kWidth);
    panel_scores<V>(head.key_panels + int64_t(first) * d, count, d, tile.query, tile.scores, largest);
    weigh_block<V>(tile, weight, count, largest, shrink);
    add_weighted_rows<V>(head.value_rows + int64_t(first) * columns, count, d, tile.scores, shrink,
                         tile.out);
  }
}

void divide_by_total(const Tile& tile, int d) {
  for (int v = 0; v < kTileVectors; ++v) {
    const Vf inverse = 1.0f / load(tile.total + v * kWidth);
    for (int j = 0; j < d; ++j) {
      float* element = tile.out + j * kTile + v * kWidth;
      store(element, load(element) * inverse);
    }
  }
}

void attend_block(const AttentionParams& params, const PackedHead& head, const Tile& tile, int64_t first,
                  int64_t last) {
  const int d = int(params.head_size), columns = round_up(d, kPanel);
  const Exponential weight(d);
  for (int64_t row = first; row < last; row += kTile) {
    const int count = int(last - row < kTile ? last - row : kTile);
    copy_rows(params, params.query, row, count, head.head, nullptr, columns, tile.rows);
    fill_tile(tile.rows, columns, count, d, tile.query);
    const int vectors = (count + kWidth - 1) / kWidth;
    if (vectors == 1) {
      attend<1>(tile, head, weight, d);
    } else if (vectors == 2) {
      attend<2>(tile, head, weight, d);
    } else {
      attend<kTileVectors>(tile, head, weight, d);
    }
    divide_by_total(tile, d);
    store_tile(params, tile.out, row, count, head.head, params.out);
    if (params.maximum == nullptr) continue;
    const int64_t place = head.head * params.batch * params.tokens + row;
    for (int t = 0; t < count; ++t) params.maximum[place + t] = tile.maximum[t];
    for (int t = 0; t < count; ++t) params.total[place + t] = tile.total[t];
  }
}

}  // namespace

void attention_forward(const AttentionParams& params, float* scratch, int64_t begin, int64_t end) {
  const int64_t columns = round_up(int(params.head_size), kPanel);
  Tile tile;
  tile.rows = scratch;
  tile.query = tile.rows + columns * kTile;
  tile.out = tile.query + columns * kTile;
  tile.scores = tile.out + columns * kTile;
  tile.maximum = tile.scores + kAttentionKeyBlock * kTile;
  tile.total = tile.maximum + kTile;
  PackedHead head(params, tile.total + kTile);
  const int64_t rows = params.rows_per_key_set(), blocks = params.query_blocks();
  for (int64_t item = begin; item < end; ++item) {
    head.pack(params, item / blocks);
    const int64_t first = item % blocks * kAttentionQueryBlock;
    const int64_t last = first + kAttentionQueryBlock < rows ? first + kAttentionQueryBlock : rows;
    attend_block(params, head, tile, head.set * rows + first, head.set * rows + last);
  }
}

}  // namespace cbtalk::CBTALK_ISA
