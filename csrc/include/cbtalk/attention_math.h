#pragma once

// The arithmetic of attention on a GPU that does not need one: the running softmax, and how the work is divided.

#include <cmath>
#include <cstdint>

#include "cbtalk/host_device.h"
#include "cbtalk/power_of_two.h"

namespace cbtalk {

// exp((score - maximum) / sqrt(d)) with scale = log2(e) / sqrt(d). The difference is taken first: of logits of 10^4,
// a product rounds by more than a weight may err.
CBTALK_HOST_DEVICE static inline float attention_weight(float score, float maximum, float scale) {
  return power_of_two((score - maximum) * scale);
}

struct RaisedMaximum {
  float maximum;  // what the weights of the new scores refer to: finite, also before the first key that counts
  float fade;     // what the sums so far are worth under it
};

// Takes the largest of some more scores into the running maximum, which begins at -infinity. A NaN does not raise it:
// it reaches the result through its own weight.
CBTALK_HOST_DEVICE static inline RaisedMaximum raise_maximum(float& maximum, float largest, float scale) {
  const float raised = fmaxf(maximum, largest);
  const float finite = raised == -INFINITY ? 0.0f : raised;
  const float fade = attention_weight(maximum, finite, scale);
  maximum = raised;
  return {finite, fade};
}

CBTALK_HOST_DEVICE static inline int64_t attention_tiles(int64_t size, int64_t tile) {
  return (size + tile - 1) / tile;
}

// The grid and the memory of a backward pass, as far as they decide its chunks.
struct AttentionSizes {
  int64_t rows;          // of queries of one key set
  int64_t keys;          // K of one key set
  int64_t key_sets;
  int64_t heads;
  int64_t head_size;     // d
  int64_t element_size;  // bytes
  int64_t block_keys;    // whose gradients a block of threads keeps
};

// Into how many chunks the rows of a key set are divided for the gradients of its keys: enough for some 256 blocks,
// chunks of at least 256 rows, and float32 sums of the chunks that take at most a tenth of the memory of the pass's
// inputs and outputs. Where not all can be had, the blocks give way: at batch 1, an H200 is left half empty or more.
// Never a function of the GPU: the chunks decide the order of the sums.
CBTALK_HOST_DEVICE static inline int64_t attention_chunks(const AttentionSizes& sizes) {
  const int64_t columns = sizes.key_sets * sizes.heads * sizes.head_size;
  // query, out and their gradients, maximum and total; key, value and their gradients.
  const int64_t row_bytes = (4 * columns * sizes.element_size + 8 * sizes.key_sets * sizes.heads) * sizes.rows;
  const int64_t key_bytes = 4 * columns * sizes.element_size * sizes.keys;
  const int64_t affordable = (row_bytes + key_bytes) / 10 / (2 * 4 * columns * sizes.keys);
  const int64_t wanted = 256 / (attention_tiles(sizes.keys, sizes.block_keys) * sizes.key_sets * sizes.heads);
  const int64_t longest = sizes.rows / 256;
  int64_t chunks = wanted < longest ? wanted : longest;
  chunks = chunks < affordable ? chunks : affordable;
  return chunks > 1 ? chunks : 1;
}

}  // namespace cbtalk
