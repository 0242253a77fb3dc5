// flow_warp, forward. Taps and weights are computed once a pixel; every output element is written once.

#include "cbtalk/cuda/flow_warp.h"
#include "flow_warp_elements.cuh"

namespace cbtalk {
namespace {

// channels_last. A group of lanes a pixel, kCount channels a lane.
template <class T, int kCount>
__global__ __launch_bounds__(kWarpThreads) void warp_pixels_fwd_kernel(const __grid_constant__ FlowWarpParams params,
                                                                       WarpTile tile) {
  __shared__ int32_t offsets[kWarpMaxTile];  // of the top left tap from the image's first element; -1: no tap
  __shared__ float4 weights[kWarpMaxTile];
  const TileOrigin origin = tile_origin(params, tile.width, tile.height);
  const int count = tile.width * tile.height;
  for (int i = threadIdx.x; i < count; i += kWarpThreads) {
    const int32_t y = origin.y + i / tile.width, x = origin.x + i % tile.width;
    if (y >= params.out_height || x >= params.out_width) continue;
    const PixelTaps taps = pixel_taps(params, origin.image, y, x);
    offsets[i] = taps.inside ? static_cast<int32_t>(taps.rows.base * params.feature_stride[2] +
                                                    taps.columns.base * params.feature_stride[3])
                             : -1;
    weights[i] = make_float4(taps.weight(0), taps.weight(1), taps.weight(2), taps.weight(3));
  }
  __syncthreads();

  const int32_t right = step_right(params, params.feature_stride[3]), down = step_down(params, params.feature_stride[2]);
  const int channels = static_cast<int>(params.channels);
  const int groups = kWarpThreads / tile.lanes;
  const int lane = static_cast<int>(threadIdx.x) % tile.lanes;
  const T* image = static_cast<const T*>(params.feature) + origin.image / params.flows * params.feature_stride[0];
  for (int i = static_cast<int>(threadIdx.x) / tile.lanes; i < count; i += groups) {
    const int32_t y = origin.y + i / tile.width, x = origin.x + i % tile.width;
    if (y >= params.out_height || x >= params.out_width) continue;
    T* output = static_cast<T*>(params.output) +
                ((origin.image * params.out_height + y) * params.out_width + x) * params.channels;
    const int32_t offset = offsets[i];
    const float4 weight = weights[i];
#pragma unroll 2
    for (int c = lane * kCount; c < channels; c += tile.lanes * kCount) {
      float values[kCount] = {};
      if (offset >= 0) {
        const T* top = image + offset + c;
        float top_left[kCount], top_right[kCount], bottom_left[kCount], bottom_right[kCount];
        load_elements(top, top_left);
        load_elements(top + right, top_right);
        load_elements(top + down, bottom_left);
        load_elements(top + down + right, bottom_right);
#pragma unroll
        for (int k = 0; k < kCount; ++k) {
          const float upper = fmaf(top_right[k], weight.y, top_left[k] * weight.x);
          values[k] = fmaf(bottom_right[k], weight.w, fmaf(bottom_left[k], weight.z, upper));
        }
      }
      store_elements(output + c, values);
    }
  }
}

// NCHW. A lane a pixel, a warp 32 pixels of a row and every slices-th channel.
template <class T>
__global__ __launch_bounds__(kWarpThreads) void warp_planes_fwd_kernel(const __grid_constant__ FlowWarpParams params,
                                                                       int slices) {
  const int rows = 8 / slices, warp = threadIdx.x / 32;
  const TileOrigin origin = tile_origin(params, 32, rows);
  const int32_t y = origin.y + warp / slices, x = origin.x + static_cast<int32_t>(threadIdx.x) % 32;
  if (y >= params.out_height || x >= params.out_width) return;
  const PixelTaps taps = pixel_taps(params, origin.image, y, x);
  const float weight[4] = {taps.weight(0), taps.weight(1), taps.weight(2), taps.weight(3)};
  const int32_t right = step_right(params, params.feature_stride[3]), down = step_down(params, params.feature_stride[2]);
  const int64_t out_plane = params.out_height * params.out_width;
  const T* top = static_cast<const T*>(params.feature) + origin.image / params.flows * params.feature_stride[0] +
                 taps.rows.base * params.feature_stride[2] + taps.columns.base * params.feature_stride[3];
  T* output = static_cast<T*>(params.output) + origin.image * params.channels * out_plane + y * params.out_width + x;
#pragma unroll 4
  for (int64_t c = warp % slices; c < params.channels; c += slices) {
    float value = 0.0f;
    if (taps.inside) {
      const T* at = top + c * params.feature_stride[1];
      value = fmaf(widen(at[right]), weight[1], widen(at[0]) * weight[0]);
      value = fmaf(widen(at[down]), weight[2], value);
      value = fmaf(widen(at[down + right]), weight[3], value);
    }
    output[c * out_plane] = narrow<T>(value);
  }
}

}  // namespace

cudaError_t flow_warp_forward_cuda(const FlowWarpParams& params, cudaStream_t stream) {
  with_storage(params.storage, [&](auto element) {
    using T = decltype(element);
    constexpr int kVector = 16 / sizeof(T);
    if (!params.channels_last) {
      const int slices = warp_channel_slices(params);
      warp_planes_fwd_kernel<T><<<grid_blocks(warp_tiles(params, 32, 8 / slices)), kWarpThreads, 0, stream>>>(params,
                                                                                                             slices);
      return;
    }
    const bool vectors = fills_vectors(params, params.output, nullptr);
    const WarpTile tile = warp_forward_tile(vectors ? params.channels / kVector : params.channels);
    const unsigned blocks = grid_blocks(warp_tiles(params, tile.width, tile.height));
    if (vectors) {
      warp_pixels_fwd_kernel<T, kVector><<<blocks, kWarpThreads, 0, stream>>>(params, tile);
    } else {
      warp_pixels_fwd_kernel<T, 1><<<blocks, kWarpThreads, 0, stream>>>(params, tile);
    }
  });
  return cudaGetLastError();
}

}  // namespace cbtalk
