#pragma once

// The arithmetic of attention on a GPU that does not need one: the running softmax, and how the work is divided.

#include <cmath>
#include <cstdint>

#include "cbtalk/host_device.h"

namespace cbtalk {

// 2^x. The GPU's instruction errs by at most 2 units in the last place, as exp2f does; that it flushes results below
// 2^-126 to zero is lost beside the largest weight, which is 1.
CBTALK_HOST_DEVICE static inline float power_of_two(float x) {
#ifdef __CUDA_ARCH__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return std::exp2(x);
#endif
}

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

// Keys that a block of threads keeps the gradients of.
constexpr int kAttentionBlockKeys = 128;

CBTALK_HOST_DEVICE static inline int64_t attention_tiles(int64_t size, int64_t tile) {
  return (size + tile - 1) / tile;
}

// Into how many chunks the rows of a key set are divided for the gradients of its keys: enough for some 256 blocks,
// chunks of at least 256 rows. Never a function of the GPU: the chunks decide the order of the sums.
CBTALK_HOST_DEVICE static inline int64_t attention_chunks(int64_t rows, int64_t keys, int64_t key_sets, int64_t heads) {
  const int64_t blocks = attention_tiles(keys, kAttentionBlockKeys) * key_sets * heads;
  const int64_t wanted = 256 / blocks, possible = rows / 256;
  const int64_t chunks = wanted < possible ? wanted : possible;
  return chunks > 1 ? chunks : 1;
}

// Floats that hold a number for each row of each head; whole vectors of 16 bytes, for what lies behind them is aligned.
CBTALK_HOST_DEVICE static inline int64_t attention_delta_size(int64_t heads, int64_t rows) {
  return (heads * rows + 3) / 4 * 4;
}

}  // namespace cbtalk
