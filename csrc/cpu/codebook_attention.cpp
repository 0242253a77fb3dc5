// Attention, forward: packing of keys and values, and the softmax with a running maximum, a block of keys at a time.

#include "attention_tiles.h"

namespace cbtalk::CBTALK_ISA {
namespace {

// (count, d) -> (count / 4 rounded up, d, 4). The last panel is filled with its last key, which changes no maximum.
void pack_panels(const AttentionRows& rows, int64_t set, const int32_t* kept, int count, int64_t head, int d,
                 float* panels) {
  for (int k = 0; k < round_up(count, kPanel); ++k) {
    const float* row = row_of(rows, set, kept[k < count ? k : count - 1]) + head * d;
    float* panel = panels + int64_t(k / kPanel) * kPanel * d + k % kPanel;
    for (int j = 0; j < d; ++j) panel[j * kPanel] = row[j];
  }
}

// (count, d) -> (count, d rounded up to 4), zero in the columns added.
void pack_rows(const AttentionRows& rows, int64_t set, const int32_t* kept, int count, int64_t head, int d,
               float* packed) {
  const int columns = round_up(d, kPanel);
  for (int k = 0; k < count; ++k, packed += columns) {
    const float* row = row_of(rows, set, kept[k]) + head * d;
    for (int j = 0; j < columns; ++j) packed[j] = j < d ? row[j] : 0.0f;
  }
}

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

void attend_block(const AttentionParams& params, const PackedHead& packed, const Tile& tile, int64_t first, int64_t last,
                  int64_t head) {
  const int d = int(params.head_size), columns = round_up(d, kPanel);
  const Exponential weight(d);
  for (int64_t row = first; row < last; row += kTile) {
    const int count = int(last - row < kTile ? last - row : kTile);
    copy_rows(params, params.query, row, count, head, nullptr, columns, tile.rows);
    fill_tile(tile.rows, columns, count, d, tile.query);
    const int vectors = (count + kWidth - 1) / kWidth;
    if (vectors == 1) {
      attend<1>(tile, packed, weight, d);
    } else if (vectors == 2) {
      attend<2>(tile, packed, weight, d);
    } else {
      attend<kTileVectors>(tile, packed, weight, d);
    }
    divide_by_total(tile, d);
    store_tile(params, tile.out, row, count, head, params.out);
    const int64_t place = head * params.batch * params.tokens + row;
    for (int t = 0; t < count; ++t) params.maximum[place + t] = tile.maximum[t];
    for (int t = 0; t < count; ++t) params.total[place + t] = tile.total[t];
  }
}

}  // namespace

void attention_pack(const AttentionParams& params, int64_t begin, int64_t end) {
  const int d = int(params.head_size);
  for (int64_t item = begin; item < end; ++item) {
    const int64_t set = item / params.heads, head = item % params.heads;
    const int32_t* kept = params.kept + set * params.keys;
    const PackedHead packed = packed_head(params, set, head);
    pack_panels(params.key, set, kept, packed.count, head, d, packed.key_panels);
    pack_rows(params.value, set, kept, packed.count, head, d, packed.value_rows);
    if (!params.is_backward()) continue;
    pack_panels(params.value, set, kept, packed.count, head, d, packed.value_panels);
    pack_rows(params.key, set, kept, packed.count, head, d, packed.key_rows);
  }
}

void attention_forward(const AttentionParams& params, float* scratch, int64_t begin, int64_t end) {
  const int64_t columns = round_up(int(params.head_size), kPanel);
  Tile tile;
  tile.rows = scratch;
  tile.query = tile.rows + columns * kTile;
  tile.out = tile.query + columns * kTile;
  tile.scores = tile.out + columns * kTile;
  tile.maximum = tile.scores + kAttentionKeyBlock * kTile;
  tile.total = tile.maximum + kTile;
  const int64_t rows = params.rows_per_key_set(), blocks = params.query_blocks();
  for (int64_t item = begin; item < end; ++item) {
    const int64_t set = item / blocks / params.heads, head = item / blocks % params.heads;
    const int64_t first = item % blocks * kAttentionQueryBlock;
    const int64_t last = first + kAttentionQueryBlock < rows ? first + kAttentionQueryBlock : rows;
    attend_block(params, packed_head(params, set, head), tile, set * rows + first, set * rows + last, head);
  }
}

}  // namespace cbtalk::CBTALK_ISA
