#pragma once

// softmax(Q K^T / sqrt(d)) V per head on the CPU, forward and backward.
//
// A key set is what a query attends to. codebook_attention has one, the codebook, for every element of the batch;
// self_attention has one for each element. Nothing is repeated for the batch: the B * T query rows are divided evenly
// over the key sets, in order.
//
// In this order, each range split over threads in any way with the same result:
//   forward   list_kept_keys, attention_forward [0, forward_items)
//   backward  list_kept_keys, attention_backward [0, backward_items), attention_key_gradients [0, key_items)

#include <cstdint>

#include "dispatch.h"

namespace cbtalk {

// A (B, T, heads * d) tensor: rows of heads * d adjacent floats; strides in elements.
struct AttentionRows {
  const float* data;
  int64_t batch_stride;
  int64_t row_stride;
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

  float* out;  // (B, T, heads * d) contiguous; written forward, read backward
  // The log-sum-exp in two parts that lose nothing to each other, written forward and read backward: the maximum over
  // the keys of q.k, and the sum of exp((q.k - maximum) / sqrt(d)). Null where there will be no backward pass.
  float* maximum;  // (heads, B, T)
  float* total;    // (heads, B, T)

  // The rest is for the backward pass; null otherwise.
  AttentionRows grad_out;  // (B, T, heads * d)
  float* partial;          // partial_size() floats
  float* grad_query;       // (B, T, heads * d) contiguous
  float* grad_key;         // (key_sets, K, heads * d) contiguous
  float* grad_value;       // (key_sets, K, heads * d) contiguous

  // Defined in attention_sizes.cpp, once for every level.
  bool is_backward() const;
  int64_t rows_per_key_set() const;
  int64_t query_blocks() const;  // of the rows of a key set, forward
  int64_t query_chunks() const;  // of the rows of a key set, backward
  int64_t key_items() const;
  int64_t forward_items() const;
  int64_t backward_items() const;

  // Sizes in floats. Scratch is what one thread needs, aligned to 64 bytes.
  int64_t packed_matrix() const;
  int64_t partial_columns() const;
  int64_t partial_size() const;
  int64_t forward_scratch() const;
  int64_t backward_scratch() const;
};

// Rows of queries of one work item of the forward pass: a multiple of every level's tile.
constexpr int kAttentionQueryBlock = 192;

// Rows of queries that the backward pass keeps packed at a time.
constexpr int kAttentionBackwardRows = 4 * kAttentionQueryBlock;

// Keys whose scores are held at a time; with a tile of at most 64 queries they stay in the first-level cache.
constexpr int kAttentionKeyBlock = 64;

// Fills kept and kept_count; a key set whose keys are all masked keeps them all.
void list_kept_keys(const AttentionParams& params);

CBTALK_CPU_KERNEL(attention_forward, (const AttentionParams& params, float* scratch, int64_t begin, int64_t end))
CBTALK_CPU_KERNEL(attention_backward, (const AttentionParams& params, float* scratch, int64_t begin, int64_t end))
CBTALK_CPU_KERNEL(attention_key_gradients, (const AttentionParams& params, int64_t begin, int64_t end))

}  // namespace cbtalk
