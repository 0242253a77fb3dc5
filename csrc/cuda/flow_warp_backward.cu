// flow_warp, backward. Gradients to the maps are summed in one fixed order; those to the feature too where asked.

#include "cbtalk/cuda/flow_warp.h"
#include "flow_warp_elements.cuh"

namespace cbtalk {
namespace {

__device__ inline void store_pixel_grad(const FlowWarpCudaGradParams& params, const PixelTaps& taps, int64_t pixel,
                                        const float dot[4]) {
  const PixelGrad grad = pixel_grad(params.forward, taps, dot);
  if (params.grad_flow_pixels != nullptr) {
    params.grad_flow_pixels[2 * pixel] = grad.x;
    params.grad_flow_pixels[2 * pixel + 1] = grad.y;
  }
  if (params.grad_occlusion_pixels != nullptr) params.grad_occlusion_pixels[pixel] = grad.occlusion;
}

// Sums that a group has still to add to four neighbouring pixels of grad_feature. Along a row of output pixels the taps
// often stay or move by one pixel: their sums stay in registers and memory sees one addition instead of several.
template <int kCount>
struct PendingTaps {
  float at[4][kCount];
  float* target = nullptr;  // of the top left one
  int32_t right, down;

  __device__ void clear(int tap) {
#pragma unroll
    for (int k = 0; k < kCount; ++k) at[tap][k] = 0.0f;
  }

  __device__ void flush_column(int column) {
    add_elements(target + column * right, at[column]);
    add_elements(target + column * right + down, at[2 + column]);
  }

  // Makes `next` the top left pixel.
  __device__ void move_to(float* next) {
    if (next == target) return;
    const bool by_one = target != nullptr && next == target + right;
    if (target != nullptr) flush_column(0);
    if (target != nullptr && !by_one) flush_column(1);
#pragma unroll
    for (int row = 0; row < 4; row += 2) {
#pragma unroll
      for (int k = 0; k < kCount; ++k) at[row][k] = by_one ? at[row + 1][k] : 0.0f;
      clear(row + 1);
    }
    target = next;
  }

  __device__ void finish() {
    if (target == nullptr) return;
    flush_column(0);
    flush_column(1);
  }
};

// The sum of each of four values over a group of 4 to 32 lanes: lane 4 * i + tap of the group gets that of `tap`.
__device__ inline float sum_each_of_four(const float (&values)[4], int lane, int lanes) {
  const bool odd = lane & 1, second = lane & 2;
  float low = (odd ? values[1] : values[0]) + __shfl_xor_sync(~0u, odd ? values[0] : values[1], 1);
  float high = (odd ? values[3] : values[2]) + __shfl_xor_sync(~0u, odd ? values[2] : values[3], 1);
  float sum = (second ? high : low) + __shfl_xor_sync(~0u, second ? low : high, 2);
  for (int step = 4; step < lanes; step *= 2) sum += __shfl_xor_sync(~0u, sum, step);
  return sum;
}

// channels_last. A group of lanes a run of pixels in a row, kCount channels a lane.
template <class T, int kCount, bool kFeature, bool kDots>
__global__ __launch_bounds__(kWarpBackwardThreads, 4) void warp_pixels_bwd_kernel(
    const __grid_constant__ FlowWarpCudaGradParams params, WarpTile tile) {
  __shared__ int32_t offsets[kWarpMaxTile];  // of the top left tap from the image's first element; -1: no tap
  __shared__ int32_t pixels[kWarpMaxTile];   // y * W + x of the top left tap
  __shared__ float weights[kWarpMaxTile][4];
  __shared__ float dots[kDots ? kWarpMaxTile : 1][4];
  const FlowWarpParams& forward = params.forward;
  const TileOrigin origin = tile_origin(forward, tile.width, tile.height);
  const int count = tile.width * tile.height;
  const auto exists = [&](int i) {
    return origin.y + i / tile.width < forward.out_height && origin.x + i % tile.width < forward.out_width;
  };
  for (int i = threadIdx.x; i < count; i += kWarpBackwardThreads) {
    offsets[i] = -1;
    if constexpr (kDots) {
      for (int tap = 0; tap < 4; ++tap) dots[i][tap] = 0.0f;
    }
    if (!exists(i)) continue;
    const PixelTaps taps = pixel_taps(forward, origin.image, origin.y + i / tile.width, origin.x + i % tile.width);
    if (!taps.inside) continue;
    offsets[i] = static_cast<int32_t>(taps.rows.base * forward.feature_stride[2] +
                                      taps.columns.base * forward.feature_stride[3]);
    pixels[i] = static_cast<int32_t>(taps.rows.base * forward.width + taps.columns.base);
    for (int tap = 0; tap < 4; ++tap) weights[i][tap] = taps.weight(tap);
  }
  __syncthreads();

  const int32_t right = step_right(forward, forward.feature_stride[3]);
  const int32_t down = step_down(forward, forward.feature_stride[2]);
  const int channels = static_cast<int>(forward.channels);
  const int lane = static_cast<int>(threadIdx.x) % tile.lanes;
  const int first = static_cast<int>(threadIdx.x) / tile.lanes * kWarpRun;  // of the group's run
  const int64_t b = origin.image / forward.flows;
  const T* image = static_cast<const T*>(forward.feature) + b * forward.feature_stride[0];
  float* to_image = params.grad_feature + b * forward.height * forward.width * channels;
  const T* grads = static_cast<const T*>(params.grad_output) +
                   ((origin.image * forward.out_height + origin.y + first / tile.width) * forward.out_width +
                    origin.x) * channels;
  // All lanes of a warp go through as many rounds, so that they meet in the shuffles.
  for (int begin = 0; begin < channels; begin += tile.lanes * kCount) {
    const int c = begin + lane * kCount;
    PendingTaps<kCount> pending;
    if constexpr (kFeature) {
      pending.right = step_right(forward, channels);
      pending.down = step_down(forward, forward.width * channels);
      for (int tap = 0; tap < 4; ++tap) pending.clear(tap);
    }
    for (int i = 0; i < kWarpRun; ++i) {
      const int32_t offset = offsets[first + i];
      float dot[4] = {};
      if (offset >= 0 && c < channels) {
        float grad[kCount];
        load_elements(grads + static_cast<int64_t>(i) * channels + c, grad);
        if constexpr (kDots) {
#pragma unroll
          for (int tap = 0; tap < 4; ++tap) {
            float values[kCount];
            load_elements(image + offset + (tap / 2) * down + (tap % 2) * right + c, values);
#pragma unroll
            for (int k = 0; k < kCount; ++k) dot[tap] = fmaf(grad[k], values[k], dot[tap]);
          }
        }
        if constexpr (kFeature) {
          pending.move_to(to_image + static_cast<int64_t>(pixels[first + i]) * channels + c);
#pragma unroll
          for (int tap = 0; tap < 4; ++tap) {
            const float weight = weights[first + i][tap];
#pragma unroll
            for (int k = 0; k < kCount; ++k) pending.at[tap][k] = fmaf(grad[k], weight, pending.at[tap][k]);
          }
        }
      }
      if constexpr (kDots) {
        const float sum = sum_each_of_four(dot, lane, tile.lanes);
        if (lane < 4) dots[first + i][lane] += sum;  // no other thread touches this one before the barrier
      }
    }
    if constexpr (kFeature) pending.finish();
  }

  if constexpr (kDots) {
    __syncthreads();
    for (int i = threadIdx.x; i < count; i += kWarpBackwardThreads) {
      if (!exists(i)) continue;
      const int32_t y = origin.y + i / tile.width, x = origin.x + i % tile.width;
      store_pixel_grad(params, pixel_taps(forward, origin.image, y, x),
                       (origin.image * forward.out_height + y) * forward.out_width + x, dots[i]);
    }
  }
}

// NCHW. A lane a pixel, a warp 32 pixels of a row and every slices-th channel.
template <class T, bool kFeature, bool kDots>
__global__ __launch_bounds__(kWarpThreads) void warp_planes_bwd_kernel(
    const __grid_constant__ FlowWarpCudaGradParams params, int slices) {
  __shared__ float dots[kDots ? 4 : 1][kWarpThreads];
  const FlowWarpParams& forward = params.forward;
  const int rows = 8 / slices, warp = threadIdx.x / 32;
  const TileOrigin origin = tile_origin(forward, 32, rows);
  const int32_t y = origin.y + warp / slices, x = origin.x + static_cast<int32_t>(threadIdx.x) % 32;
  const bool exists = y < forward.out_height && x < forward.out_width;
  PixelTaps taps = {};
  if (exists) taps = pixel_taps(forward, origin.image, y, x);
  const int64_t b = origin.image / forward.flows;
  const int64_t pixel = (origin.image * forward.out_height + y) * forward.out_width + x;
  float dot[4] = {};
  if (taps.inside) {
    const int32_t right = step_right(forward, forward.feature_stride[3]);
    const int32_t down = step_down(forward, forward.feature_stride[2]);
    const int32_t to_right = step_right(forward, 1), to_down = step_down(forward, forward.width);
    const int64_t plane = forward.height * forward.width, out_plane = forward.out_height * forward.out_width;
    const T* top = static_cast<const T*>(forward.feature) + b * forward.feature_stride[0] +
                   taps.rows.base * forward.feature_stride[2] + taps.columns.base * forward.feature_stride[3];
    float* target = params.grad_feature + b * forward.channels * plane + taps.rows.base * forward.width +
                    taps.columns.base;
    const T* grads = static_cast<const T*>(params.grad_output) + origin.image * forward.channels * out_plane +
                     y * forward.out_width + x;
#pragma unroll 2
    for (int64_t c = warp % slices; c < forward.channels; c += slices) {
      const float grad = widen(grads[c * out_plane]);
      if constexpr (kDots) {
        const T* at = top + c * forward.feature_stride[1];
        dot[0] = fmaf(grad, widen(at[0]), dot[0]);
        dot[1] = fmaf(grad, widen(at[right]), dot[1]);
        dot[2] = fmaf(grad, widen(at[down]), dot[2]);
        dot[3] = fmaf(grad, widen(at[down + right]), dot[3]);
      }
      if constexpr (kFeature) {
        float* to = target + c * plane;
        atomicAdd(to, grad * taps.weight(0));
        atomicAdd(to + to_right, grad * taps.weight(1));
        atomicAdd(to + to_down, grad * taps.weight(2));
        atomicAdd(to + to_down + to_right, grad * taps.weight(3));
      }
    }
  }
  if constexpr (kDots) {
    for (int tap = 0; tap < 4; ++tap) dots[tap][threadIdx.x] = dot[tap];
    __syncthreads();
    if (!exists || warp % slices != 0) return;
    for (int slice = 1; slice < slices; ++slice) {
      for (int tap = 0; tap < 4; ++tap) dot[tap] += dots[tap][threadIdx.x + 32 * slice];
    }
    store_pixel_grad(params, taps, pixel, dot);
  }
}

// From the size of the output to that of a map: a warp an element of the map, over the pixels that read it, 8 columns of 4
// rows at a time.
// pixels (targets * images, Ho, Wo, kParts), grad (targets, h, w, kParts).
template <int kParts>
__global__ __launch_bounds__(kWarpThreads) void warp_map_bwd_kernel(const float* pixels, float* grad, int64_t targets,
                                                                    int64_t images, int64_t out_height,
                                                                    int64_t out_width, int64_t height, int64_t width) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int64_t element = blockIdx.x * int64_t{kWarpThreads / 32} + threadIdx.x / 32;
  if (element >= targets * height * width) return;
  const auto column = static_cast<int32_t>(element % width);
  const auto row = static_cast<int32_t>(element / width % height);
  const int64_t target = element / width / height;
  const float y_scale = resize_scale(height, out_height), x_scale = resize_scale(width, out_width);
  const ResizeReaders ys = resize_readers(row, y_scale, out_height);
  const ResizeReaders xs = resize_readers(column, x_scale, out_width);
  float sum[kParts] = {};
  for (int64_t image = target * images; image < (target + 1) * images; ++image) {
    const float* plane = pixels + image * out_height * out_width * kParts;
    for (int32_t x = xs.first + lane % 8; x <= xs.last; x += 8) {
      const float x_weight = weight_read(x, column, x_scale, width);
#pragma unroll 1
      for (int32_t y = ys.first + lane / 8; y <= ys.last; y += 4) {
        const float weight = x_weight * weight_read(y, row, y_scale, height);
        if (weight == 0.0f) continue;
        for (int part = 0; part < kParts; ++part) {
          sum[part] = fmaf(weight, plane[(y * out_width + x) * kParts + part], sum[part]);
        }
      }
    }
  }
  for (int part = 0; part < kParts; ++part) {
    for (int step = 16; step > 0; step /= 2) sum[part] += __shfl_xor_sync(~0u, sum[part], step);
    if (lane == 0) grad[element * kParts + part] = sum[part];
  }
}

template <int kParts>
cudaError_t sum_over_readers(const FlowWarpParams& params, const float* pixels, float* grad, int64_t targets,
                             int64_t height, int64_t width, cudaStream_t stream) {
  const int64_t warps = targets * height * width;
  const unsigned blocks = grid_blocks((warps + kWarpThreads / 32 - 1) / (kWarpThreads / 32));
  warp_map_bwd_kernel<kParts><<<blocks, kWarpThreads, 0, stream>>>(pixels, grad, targets,
                                                                   params.batch * params.flows / targets,
                                                                   params.out_height, params.out_width, height, width);
  return cudaGetLastError();
}

// Calls body(std::bool_constant<feature>(), std::bool_constant<dots>()); at least one of them is true.
template <class Body>
void with_needs(bool feature, bool dots, Body body) {
  if (feature && dots) {
    body(std::true_type(), std::true_type());
  } else if (feature) {
    body(std::true_type(), std::false_type());
  } else {
    body(std::false_type(), std::true_type());
  }
}

cudaError_t backward_pixels(const FlowWarpCudaGradParams& params, bool feature, bool dots, cudaStream_t stream) {
  const FlowWarpParams& forward = params.forward;
  with_storage(forward.storage, [&](auto element) {
    with_needs(feature, dots, [&](auto is_feature, auto is_dots) {
      using T = decltype(element);
      constexpr bool kFeature = decltype(is_feature)::value, kDots = decltype(is_dots)::value;
      constexpr int kVector = 16 / sizeof(T);
      if (!forward.channels_last) {
        const int slices = warp_channel_slices(forward);
        const unsigned blocks = grid_blocks(warp_tiles(forward, 32, 8 / slices));
        warp_planes_bwd_kernel<T, kFeature, kDots><<<blocks, kWarpThreads, 0, stream>>>(params, slices);
        return;
      }
      const bool vectors = fills_vectors(forward, params.grad_output, params.grad_feature);
      const WarpTile tile = warp_backward_tile(vectors ? forward.channels / kVector : forward.channels);
      const unsigned blocks = grid_blocks(warp_tiles(forward, tile.width, tile.height));
      if (vectors) {
        warp_pixels_bwd_kernel<T, kVector, kFeature, kDots>
            <<<blocks, kWarpBackwardThreads, 0, stream>>>(params, tile);
      } else {
        warp_pixels_bwd_kernel<T, 1, kFeature, kDots><<<blocks, kWarpBackwardThreads, 0, stream>>>(params, tile);
      }
    });
  });
  return cudaGetLastError();
}

// Deterministic grad_feature: the output pixels are sorted by the pixel they read, and every pixel of the feature
// sums over those that read it.

__global__ __launch_bounds__(kWarpThreads) void warp_keys_kernel(const __grid_constant__ FlowWarpCudaGradParams params) {
  const FlowWarpParams& forward = params.forward;
  const int64_t out_plane = forward.out_height * forward.out_width;
  const int64_t pixel = blockIdx.x * int64_t{kWarpThreads} + threadIdx.x;
  if (pixel >= forward.batch * forward.flows * out_plane) return;
  const int64_t image = pixel / out_plane, within = pixel - image * out_plane;
  const PixelTaps taps = pixel_taps(forward, image, static_cast<int32_t>(within / forward.out_width),
                                    static_cast<int32_t>(within % forward.out_width));
  const int64_t b = image / forward.flows;
  params.keys[pixel] = taps.inside ? (b * forward.height + taps.rows.base) * forward.width + taps.columns.base
                                   : forward.batch * forward.height * forward.width;
  for (int tap = 0; tap < 4; ++tap) params.weights[4 * pixel + tap] = taps.weight(tap);
}

// starts[key] = how many of the sorted keys are smaller.
__global__ __launch_bounds__(kWarpThreads) void warp_starts_kernel(const int64_t* sorted_keys, int64_t count,
                                                                   int64_t* starts, int64_t keys) {
  const int64_t key = blockIdx.x * int64_t{kWarpThreads} + threadIdx.x;
  if (key >= keys) return;
  int64_t low = 0, high = count;
  while (low < high) {
    const int64_t middle = low + (high - low) / 2;
    if (sorted_keys[middle] < key) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  starts[key] = low;
}

// A thread an element of grad_feature. Most pixels have four readers or so. Where a flow collapses, one pixel has all
// of them, and its threads walk them alone: to share them out takes the sums of equal pieces in memory and a second
// pass, for flows that no model should give.
template <class T>
__global__ __launch_bounds__(kWarpThreads) void warp_gather_kernel(
    const __grid_constant__ FlowWarpCudaGradParams params) {
  const FlowWarpParams& forward = params.forward;
  const int64_t C = forward.channels, H = forward.height, W = forward.width;
  const int64_t out_plane = forward.out_height * forward.out_width;
  const int64_t element = blockIdx.x * int64_t{kWarpThreads} + threadIdx.x;
  if (element >= forward.batch * C * H * W) return;
  const bool channels_last = forward.channels_last;
  const int64_t c = channels_last ? element % C : element / (H * W) % C;
  const int64_t source = channels_last ? element / C : element / (H * W) / C * (H * W) + element % (H * W);
  const int64_t y = source / W % H, x = source % W;
  const T* grads = static_cast<const T*>(params.grad_output);
  float sum = 0.0f;
  for (int tap = 0; tap < 4; ++tap) {
    // The base whose tap this pixel is; along an axis of one pixel both taps are the base itself.
    const int64_t up = H > 1 ? tap / 2 : 0, left = W > 1 ? tap % 2 : 0;
    if (y < up || x < left || (H > 1 && y - up > H - 2) || (W > 1 && x - left > W - 2)) continue;
    const int64_t base = source - up * W - left;
    const int64_t end = params.starts[base + 1];
#pragma unroll 4
    for (int64_t i = params.starts[base]; i < end; ++i) {
      const int64_t pixel = params.order[i];
      const int64_t image = pixel / out_plane;
      const int64_t at = channels_last ? pixel * C + c : (image * C + c) * out_plane + (pixel - image * out_plane);
      sum = fmaf(widen(grads[at]), params.weights[4 * pixel + tap], sum);
    }
  }
  params.grad_feature[element] = sum;
}

unsigned blocks_of(int64_t threads) { return grid_blocks((threads + kWarpThreads - 1) / kWarpThreads); }

}  // namespace

cudaError_t flow_warp_backward_cuda(const FlowWarpCudaGradParams& params, cudaStream_t stream) {
  const FlowWarpParams& forward = params.forward;
  const bool feature = params.grad_feature != nullptr && !params.deterministic;
  const bool dots = params.grad_flow != nullptr || params.grad_occlusion != nullptr;
  if (feature) {
    const int64_t count = forward.batch * forward.channels * forward.height * forward.width;
    const cudaError_t error =
        cudaMemsetAsync(params.grad_feature, 0, static_cast<size_t>(count) * sizeof(float), stream);
    if (error != cudaSuccess) return error;
  }
  if (feature || dots) {
    const cudaError_t error = backward_pixels(params, feature, dots, stream);
    if (error != cudaSuccess) return error;
  }
  if (params.grad_flow != params.grad_flow_pixels) {
    const cudaError_t error = sum_over_readers<2>(forward, params.grad_flow_pixels, params.grad_flow,
                                                  forward.batch * forward.flows, forward.flow_height,
                                                  forward.flow_width, stream);
    if (error != cudaSuccess) return error;
  }
  if (params.grad_occlusion != params.grad_occlusion_pixels) {
    return sum_over_readers<1>(forward, params.grad_occlusion_pixels, params.grad_occlusion, forward.batch,
                               forward.occlusion_height, forward.occlusion_width, stream);
  }
  return cudaSuccess;
}

cudaError_t flow_warp_keys_cuda(const FlowWarpCudaGradParams& params, cudaStream_t stream) {
  const FlowWarpParams& forward = params.forward;
  const int64_t pixels = forward.batch * forward.flows * forward.out_height * forward.out_width;
  warp_keys_kernel<<<blocks_of(pixels), kWarpThreads, 0, stream>>>(params);
  return cudaGetLastError();
}

cudaError_t flow_warp_gather_feature_cuda(const FlowWarpCudaGradParams& params, const int64_t* sorted_keys,
                                          cudaStream_t stream) {
  const FlowWarpParams& forward = params.forward;
  const int64_t pixels = forward.batch * forward.flows * forward.out_height * forward.out_width;
  const int64_t sources = forward.batch * forward.height * forward.width;
  warp_starts_kernel<<<blocks_of(sources + 1), kWarpThreads, 0, stream>>>(sorted_keys, pixels, params.starts,
                                                                          sources + 1);
  if (const cudaError_t error = cudaGetLastError(); error != cudaSuccess) return error;
  with_storage(forward.storage, [&](auto element) {
    using T = decltype(element);
    warp_gather_kernel<T><<<blocks_of(sources * forward.channels), kWarpThreads, 0, stream>>>(params);
  });
  return cudaGetLastError();
}

}  // namespace cbtalk
