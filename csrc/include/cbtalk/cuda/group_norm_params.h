#pragma once

// Group normalisation on a GPU, optionally with a SiLU behind it, over channels_last images.
//
// Where a slab (whole groups of one image) fits in the registers of a block, one kernel reads and writes it once.
// Otherwise the pixels of an image are cut into chunks; what they found is joined in a fixed order, without atomics.
// The chunks depend on the image alone, so an image gives the same bits in every batch.

#include <cstdint>
#include <initializer_list>

#include "cbtalk/host_device.h"
#include "cbtalk/storage.h"

namespace cbtalk {

struct GroupNormCudaParams {
  int64_t batch, pixels, channels, groups;
  float eps;
  bool silu;
  Storage storage;      // of x, y, grad_y, grad_x
  const void* x;        // (B, H, W, C)
  const float* weight;  // (C)
  const float* bias;    // (C)
  void* y;              // (B, H, W, C)
  float* mean;          // (B, G): written by the forward pass, read by the backward pass
  float* rstd;          // (B, G)
  const void* grad_y;   // (B, H, W, C)
  void* grad_x;         // (B, H, W, C)
  float* grad_weight;   // (C)
  float* grad_bias;     // (C)
  float* workspace;     // as many floats as the functions below say

  CBTALK_HOST_DEVICE int64_t width() const { return channels / groups; }
  CBTALK_HOST_DEVICE int64_t chunk_pixels() const { return pixels <= 4096 ? 256 : 1024; }
  CBTALK_HOST_DEVICE int64_t chunks() const { return (pixels + chunk_pixels() - 1) / chunk_pixels(); }
  CBTALK_HOST_DEVICE int64_t element_size() const { return storage == Storage::float32 ? 4 : 2; }
  CBTALK_HOST_DEVICE int64_t vector_size() const { return 16 / element_size(); }  // elements of a 16-byte vector

  // The parts of the workspace.
  CBTALK_HOST_DEVICE float* partial() const { return workspace; }  // (B, chunks, 2, C)
  CBTALK_HOST_DEVICE float* sums() const { return partial() + batch * chunks() * 2 * channels; }  // (B, 2, C)
  CBTALK_HOST_DEVICE float* coefficients() const { return sums() + batch * 2 * channels; }  // (B, G, 2)
};

inline int64_t group_norm_forward_workspace(const GroupNormCudaParams& params) {
  return params.batch * params.chunks() * 2 * params.channels;
}

inline int64_t group_norm_backward_workspace(const GroupNormCudaParams& params) {
  return group_norm_forward_workspace(params) + params.batch * 2 * (params.channels + params.groups);
}

// Whether every pixel of these images begins at a multiple of 16 bytes.
inline bool group_norm_aligned(const GroupNormCudaParams& params, const void* first, const void* second,
                               const void* third) {
  const uintptr_t addresses = reinterpret_cast<uintptr_t>(first) | reinterpret_cast<uintptr_t>(second) |
                              reinterpret_cast<uintptr_t>(third);
  return addresses % 16 == 0 && params.channels % params.vector_size() == 0;
}

// A thread of the slab kernels keeps this many vectors of each image that it reads.
constexpr int64_t kSlabVectors = 8;

// Vectors side by side in a slab: 4 (64 bytes of a pixel) where that fits in `threads` threads, else 2 (32 bytes, the
// unit of memory traffic), else 0: there is no slab. The images are aligned.
inline int group_norm_slab_lanes(const GroupNormCudaParams& params, int64_t threads) {
  for (int lanes : {4, 2}) {
    const int64_t slab = lanes * params.vector_size();
    if (params.pixels * lanes <= threads * kSlabVectors && params.channels % slab == 0 && slab % params.width() == 0) {
      return lanes;
    }
  }
  return 0;
}

// Whole warps, so that every thread takes part in the sums.
inline int64_t group_norm_slab_threads(const GroupNormCudaParams& params, int lanes) {
  const int64_t rows = (params.pixels + kSlabVectors - 1) / kSlabVectors;
  return (rows * lanes + 31) / 32 * 32;
}

}  // namespace cbtalk
