#pragma once

// softmax(Q K^T / sqrt(d)) V per head, forward and backward, on the CPU.
//
// A key set is what a query attends to. codebook_attention has one, the codebook, for every element of the batch;
// self_attention has one for each element. Nothing is repeated for the batch: the B * T query rows are divided evenly
// over the key sets, in order.
//
// Calls, in order; each (begin, end) range may be split over threads in any way, with the same result:
//   forward:  list_kept_keys -> attention_pack [0, pack_items) -> attention_forward [0, forward_items)
//   backward: list_kept_keys -> attention_pack -> attention_backward [0, backward_items)
//             -> attention_sum_key_gradients [0, pack_items)

#include <cstdint>

#include "dispatch.h"

namespace cbtalk {

// A (B, T, heads * d) tensor: rows of heads * d adjacent floats; strides in elements.
struct AttentionRows {
  const float* data;
  int64_t batch_stride;
  int64_t row_stride;

  const float* row(int64_t batch, int64_t token) const { return data + batch * batch_stride + token * row_stride; }
};

struct AttentionParams {
  int64_t batch;      // B
  int64_t tokens;     // T, queries of one element of the batch
  int64_t key_sets;   // 1 or B
  int64_t keys;       // K of one key set, at least 1
  int64_t heads;
  int64_t head_size;  // d

  AttentionRows query;   // (B, T, heads * d)
  AttentionRows key;     // (key_sets, K, heads * d)
  AttentionRows value;   // (key_sets, K, heads * d)
  const bool* key_mask;  // (key_sets, K) contiguous, true = ignore; or null

  int32_t* kept;        // (key_sets, K): the keys that are attended to, in ascending order
  int32_t* kept_count;  // (key_sets)
  float* packed;        // attention_packed_size floats

  float* out;  // (B, T, heads * d) contiguous; read by the backward pass
  float* lse;  // (heads, B, T): log2 of the sum over the keys of 2^(q.k log2(e) / sqrt(d)); written forward, read backward

  AttentionRows grad_out;  // (B, T, heads * d)
  float* partial;          // attention_partial_size floats
  float* grad_query;       // (B, T, heads * d) contiguous
  float* grad_key;         // (key_sets, K, heads * d) contiguous
  float* grad_value;       // (key_sets, K, heads * d) contiguous

  int64_t rows() const { return batch * tokens; }
  int64_t rows_per_key_set() const { return rows() / key_sets; }
};

// Floats of one head's keys or values when packed: padded to whole panels of 4 keys, or to whole fours of columns.
constexpr int64_t attention_packed_matrix(const AttentionParams& p) {
  return ((p.keys + 3) / 4 * 4) * ((p.head_size + 3) / 4 * 4);
}

// Rows of queries of one work item: a multiple of every level's tile.
constexpr int64_t kAttentionQueryBlock = 192;

// The backward pass sums the gradients of keys and values over at most this many parts of a key set's queries; a
// function of the sizes alone, so that the result does not depend on the number of threads.
constexpr int64_t kAttentionChunkRows = 4 * kAttentionQueryBlock;
constexpr int64_t kAttentionMaxChunks = 8;

constexpr int64_t attention_blocks(const AttentionParams& p) {
  return (p.rows_per_key_set() + kAttentionQueryBlock - 1) / kAttentionQueryBlock;
}

constexpr int64_t attention_chunks(const AttentionParams& p) {
  const int64_t chunks = (p.rows_per_key_set() + kAttentionChunkRows - 1) / kAttentionChunkRows;
  return chunks < kAttentionMaxChunks ? chunks : kAttentionMaxChunks;
}

constexpr int64_t attention_pack_items(const AttentionParams& p) { return p.key_sets * p.heads; }
constexpr int64_t attention_forward_items(const AttentionParams& p) { return attention_pack_items(p) * attention_blocks(p); }
constexpr int64_t attention_backward_items(const AttentionParams& p) { return attention_pack_items(p) * attention_chunks(p); }

// Keys in panels, values in rows; the backward pass also wants the values in panels and the keys in rows.
constexpr int64_t attention_packed_size(const AttentionParams& p, bool backward) {
  return attention_pack_items(p) * attention_packed_matrix(p) * (backward ? 4 : 2);
}

constexpr int64_t attention_partial_size(const AttentionParams& p) {
  return attention_backward_items(p) * p.keys * p.head_size * 2;
}

// Fills kept and kept_count; a key set whose keys are all masked keeps them all.
void list_kept_keys(const AttentionParams& params);

// Floats of scratch memory that one thread needs, aligned to 64 bytes.
CBTALK_CPU_KERNEL(attention_forward_scratch, (const AttentionParams& params), int64_t)
CBTALK_CPU_KERNEL(attention_backward_scratch, (const AttentionParams& params), int64_t)
