#pragma once

// Parameters of the attention kernels of a GPU; without CUDA's headers, so that host tests reach it.

#include <cstdint>

#include "cbtalk/attention_math.h"
#include "cbtalk/storage.h"

namespace cbtalk {

// Heads of 4 and 8 columns do not fill a product of tensor cores, and have kernels of their own.
CBTALK_HOST_DEVICE static inline constexpr bool attention_is_narrow(int64_t head_size) { return head_size < 16; }

// Keys whose gradients a block of threads keeps. Few of them make many blocks, but each block reads all rows.
constexpr int kAttentionBlockKeys = 64;

// Rows of queries, over all heads, from which on twice 16 of them to a warp still make many blocks.
constexpr int64_t kAttentionManyQueries = 1 << 16;

// A (B, T, heads * d) tensor: rows of heads * d adjacent elements; strides in elements.
struct AttentionCudaRows {
  const void* data;
  int64_t batch_stride;
  int64_t row_stride;
};

struct AttentionCudaParams {
  Storage storage;    // of everything that is not float below
  int64_t batch;      // B
  int64_t tokens;     // T, queries of one element of the batch; B * T below 2^31
  int64_t key_sets;   // 1 or B
  int64_t keys;       // K of one key set, at least 1
  int64_t heads;
  int64_t head_size;  // d

  AttentionCudaRows query;  // (B, T, heads * d)
  AttentionCudaRows key;    // (key_sets, K, heads * d)
  AttentionCudaRows value;  // (key_sets, K, heads * d)
  const bool* key_mask;     // (key_sets, K) contiguous, true = ignore; or null

  void* out;  // (B, T, heads * d) contiguous; written forward, read backward
  // Outputs of the forward pass that only the backward pass reads: the largest q.k of a row, and the sum of
  // exp((q.k - maximum) / sqrt(d)). Null where there will be none.
  float* maximum;  // (heads, B, T)
  float* total;    // (heads, B, T)

  // The rest is for the backward pass; null otherwise.
  AttentionCudaRows grad_out;  // (B, T, heads * d)
  void* grad_query;            // (B, T, heads * d) contiguous
  void* grad_key;              // (key_sets, K, heads * d) contiguous
  void* grad_value;            // (key_sets, K, heads * d) contiguous
  float* workspace;            // attention_workspace() floats

  CBTALK_HOST_DEVICE int64_t rows() const { return batch * tokens; }
  CBTALK_HOST_DEVICE int64_t rows_per_key_set() const { return batch * tokens / key_sets; }
  CBTALK_HOST_DEVICE int64_t width() const { return heads * head_size; }
  CBTALK_HOST_DEVICE int64_t key_elements() const { return key_sets * keys * width(); }
  CBTALK_HOST_DEVICE int64_t chunks() const {
    const int64_t element_size = storage == Storage::float32 ? 4 : 2;
    return attention_chunks({rows_per_key_set(), keys, key_sets, heads, head_size, element_size,
                             kAttentionBlockKeys});
  }

  // The workspace: delta, (heads, B, T); where there are several chunks, their sums, (chunks, key_sets, K, heads * d)
  // each.
  CBTALK_HOST_DEVICE float* delta() const { return workspace; }
  CBTALK_HOST_DEVICE float* key_parts() const { return workspace + heads * rows(); }
  CBTALK_HOST_DEVICE float* value_parts() const { return key_parts() + chunks() * key_elements(); }
};

inline int64_t attention_workspace(const AttentionCudaParams& params) {
  return params.heads * params.rows() + (params.chunks() > 1 ? 2 * params.chunks() * params.key_elements() : 0);
}

}  // namespace cbtalk
