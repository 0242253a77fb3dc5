#pragma once

// Elements of flow_warp's tensors as floats, one or a vector of 16 bytes at a time.

#include "cbtalk/cuda/flow_warp_pixel.h"
#include "elements.cuh"

namespace cbtalk {

// kCount is 1, or as many as fill 16 bytes; then the pointers are multiples of 16 bytes.
template <class T, int kCount>
struct alignas(sizeof(T) * kCount) Elements {
  T at[kCount];
};

template <int kCount, class T>
__device__ static inline void load_elements(const T* source, float (&values)[kCount]) {
  const auto elements = *reinterpret_cast<const Elements<T, kCount>*>(source);
#pragma unroll
  for (int i = 0; i < kCount; ++i) values[i] = widen(elements.at[i]);
}

template <int kCount, class T>
__device__ static inline void store_elements(T* target, const float (&values)[kCount]) {
  Elements<T, kCount> elements;
#pragma unroll
  for (int i = 0; i < kCount; ++i) elements.at[i] = narrow<T>(values[i]);
  *reinterpret_cast<Elements<T, kCount>*>(target) = elements;
}

#if __CUDA_ARCH__ >= 900
constexpr int kAtomicVector = 4;
#else
constexpr int kAtomicVector = 1;
#endif

// target[0, kCount) += values, atomically each; four at a time from sm_90 on.
template <int kCount>
__device__ static inline void add_elements(float* target, const float (&values)[kCount]) {
  if constexpr (kCount % 4 == 0 && kAtomicVector == 4) {
#if __CUDA_ARCH__ >= 900
#pragma unroll
    for (int i = 0; i < kCount; i += 4) {
      const float4 four = make_float4(values[i], values[i + 1], values[i + 2], values[i + 3]);
      atomicAdd(reinterpret_cast<float4*>(target + i), four);
    }
#endif
  } else {
#pragma unroll
    for (int i = 0; i < kCount; ++i) atomicAdd(target + i, values[i]);
  }
}

// The image and the first pixel of a block's tile.
struct TileOrigin {
  int64_t image;
  int32_t y, x;
};

__device__ static inline TileOrigin tile_origin(const FlowWarpParams& params, int width, int height) {
  const int64_t across = (params.out_width + width - 1) / width, down = (params.out_height + height - 1) / height;
  const int64_t row = blockIdx.x / across, image = row / down;
  return {image, static_cast<int32_t>((row - image * down) * height),
          static_cast<int32_t>((blockIdx.x - row * across) * width)};
}

static inline bool is_aligned(const void* pointer) { return reinterpret_cast<uintptr_t>(pointer) % 16 == 0; }

// Whether the channels of every pixel are whole vectors of 16 bytes that begin at multiples of 16 bytes.
static inline bool fills_vectors(const FlowWarpParams& params, const void* dense, const void* grad_feature) {
  const int64_t vector = params.storage == Storage::float32 ? 4 : 8;
  const int64_t all = params.channels | params.feature_stride[0] | params.feature_stride[2] | params.feature_stride[3];
  return all % vector == 0 && is_aligned(params.feature) && is_aligned(dense) && is_aligned(grad_feature);
}

// Blocks of a grid along x; 0 where they are too many.
static inline unsigned grid_blocks(int64_t blocks) {
  return blocks < (int64_t{1} << 31) ? static_cast<unsigned>(blocks) : 0;
}

}  // namespace cbtalk
