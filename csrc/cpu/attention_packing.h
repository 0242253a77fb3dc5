#pragma once

// The keys and values of one head as the products of attention_tiles.h read them: close together, without the masked.
// Every thread packs the head it works on into its own scratch memory: 3 % of the work of a head of size 32 with 1024
// queries, and what was just packed is still in the second-level cache.

#include "cbtalk/codebook_attention.h"

namespace cbtalk::CBTALK_ISA {

constexpr int kPanel = 4;  // keys, or columns of values, that a product handles at once

static inline int round_up(int value, int multiple) { return (value + multiple - 1) / multiple * multiple; }

static inline const float* row_of(const AttentionRows& rows, int64_t batch, int64_t token) {
  return rows.data + batch * rows.batch_stride + token * rows.row_stride;
}

// (count, d) -> (count / 4 rounded up, d, 4). The last panel is filled with its last key, which changes no maximum.
static inline void pack_panels(const AttentionRows& rows, int64_t set, const int32_t* kept, int count, int64_t head,
                               int d, float* panels) {
  for (int k = 0; k < round_up(count, kPanel); ++k) {
    const float* row = row_of(rows, set, kept[k < count ? k : count - 1]) + head * d;
    float* panel = panels + int64_t(k / kPanel) * kPanel * d + k % kPanel;
    for (int j = 0; j < d; ++j) panel[j * kPanel] = row[j];
  }
}

// (count, d) -> (count, d rounded up to 4), zero in the columns added.
static inline void pack_rows(const AttentionRows& rows, int64_t set, const int32_t* kept, int count, int64_t head,
                             int d, float* packed) {
  const int columns = round_up(d, kPanel);
  for (int k = 0; k < count; ++k, packed += columns) {
    const float* row = row_of(rows, set, kept[k]) + head * d;
    for (int j = 0; j < columns; ++j) packed[j] = j < d ? row[j] : 0.0f;
  }
}

struct PackedHead {
  int64_t set = -1, head = -1;
  int count = 0;        // kept keys
  float* key_panels;    // (count / 4 rounded up, d, 4)
  float* value_rows;    // (count, d rounded up to 4)
  float* value_panels;  // backward: as key_panels
  float* key_rows;      // backward: as value_rows

  PackedHead(const AttentionParams& params, float* memory)
      : key_panels(memory), value_rows(memory + params.packed_matrix()),
        value_panels(memory + 2 * params.packed_matrix()), key_rows(memory + 3 * params.packed_matrix()) {}

  // Packs head `item` of all key sets' heads, unless it is the one that is packed.
  void pack(const AttentionParams& params, int64_t item) {
    if (set * params.heads + head == item && count > 0) return;
    set = item / params.heads;
    head = item % params.heads;
    count = params.kept_count[set];
    const int d = int(params.head_size);
    const int32_t* kept = params.kept + set * params.keys;
    pack_panels(params.key, set, kept, count, head, d, key_panels);
    pack_rows(params.value, set, kept, count, head, d, value_rows);
    if (!params.is_backward()) return;
    pack_panels(params.value, set, kept, count, head, d, value_panels);
    pack_rows(params.key, set, kept, count, head, d, key_rows);
  }
};

}  // namespace cbtalk::CBTALK_ISA
