#pragma once

// Group normalisation, optionally with a SiLU behind it, over channels_last images.
//
// The pixels of an image are cut into chunks of a fixed size; each pass works on any range of (image, chunk) items, so
// the order of every sum, and with it the result, does not depend on the number of threads.

#include <cstdint>

#include "dispatch.h"

namespace cbtalk {

struct GroupNormParams {
  int64_t batch, pixels, channels, groups;
  float eps;
  bool silu;
  bool bfloat16;         // x, y, grad_y, grad_x hold bfloat16 instead of float32
  const void* x;         // (B, H, W, C)
  const float* weight;   // (C)
  const float* bias;     // (C)
  void* y;               // (B, H, W, C)
  float* mean;           // (B, G): written by the forward pass, read by the backward pass
  float* rstd;           // (B, G)
  const void* grad_y;    // (B, H, W, C)
  void* grad_x;          // (B, H, W, C)
  float* grad_weight;    // (C)
  float* grad_bias;      // (C)
  float* partial;        // (B, chunks, 2, C): what each chunk adds to the two sums of a channel
  float* coefficients;   // (B, kGroupNormCoefficients, C)

  static constexpr int64_t kChunk = 256;  // pixels: 64 KiB of 64 channels, well inside a second-level cache

  int64_t chunks() const { return (pixels + kChunk - 1) / kChunk; }
  int64_t items() const { return batch * chunks(); }
  int64_t partial_size() const { return items() * 2 * channels; }
  int64_t coefficients_size() const { return batch * 6 * channels; }
};

// Per chunk and channel: the mean, and the sum of squared distances from it.
CBTALK_CPU_KERNEL(group_norm_moments, (const GroupNormParams& params, int64_t begin, int64_t end))

// y from x and the coefficients.
CBTALK_CPU_KERNEL(group_norm_apply, (const GroupNormParams& params, int64_t begin, int64_t end))

// Per chunk and channel: the sums of the gradient ahead of the SiLU, and of that times the normalised input.
CBTALK_CPU_KERNEL(group_norm_gradient_sums, (const GroupNormParams& params, int64_t begin, int64_t end))

// grad_x from x, grad_y and the coefficients.
CBTALK_CPU_KERNEL(group_norm_input_gradient, (const GroupNormParams& params, int64_t begin, int64_t end))

// The moments of all chunks joined: mean, rstd and the coefficients of the images [begin, end).
void group_norm_join_moments(const GroupNormParams& params, int64_t begin, int64_t end);

// Coefficients of the images [begin, end) from mean and rstd, for the backward pass.
void group_norm_restore(const GroupNormParams& params, int64_t begin, int64_t end);

// The gradient sums of all chunks joined: grad_weight, grad_bias, and the coefficients of every image.
void group_norm_join_gradients(const GroupNormParams& params);

}  // namespace cbtalk
