#pragma once

// The part of flow_warp that is computed once an output pixel, and the tiles of its GPU kernels: no CUDA needed.

#include <cmath>
#include <cstdint>

#include "cbtalk/flow_warp.h"
#include "cbtalk/geometry.h"

namespace cbtalk {

// A component of the flow, or the occlusion, resized to the output while it is read.
struct PixelMap {
  const float* data;
  int64_t row_stride, column_stride;
  int64_t height, width;
};

CBTALK_HOST_DEVICE static inline float read_map(const PixelMap& map, int32_t y, int32_t x, int64_t out_height,
                                                int64_t out_width) {
  if (map.height == out_height && map.width == out_width) return map.data[y * map.row_stride + x * map.column_stride];
  const auto rows = resize_taps(y, resize_scale(map.height, out_height), static_cast<int32_t>(map.height));
  const auto columns = resize_taps(x, resize_scale(map.width, out_width), static_cast<int32_t>(map.width));
  const float* top = map.data + rows.low * map.row_stride;
  const float* bottom = map.data + rows.high * map.row_stride;
  const int64_t left = columns.low * map.column_stride, right = columns.high * map.column_stride;
  const float low = fmaf(bottom[left], rows.high_weight, top[left] * (1.0f - rows.high_weight));
  const float high = fmaf(bottom[right], rows.high_weight, top[right] * (1.0f - rows.high_weight));
  return fmaf(high, columns.high_weight, low * (1.0f - columns.high_weight));
}

CBTALK_HOST_DEVICE static inline PaddedPosition<float> pad_coordinate(float coordinate, int32_t size,
                                                                      const FlowWarpParams& params) {
  const AxisMapping mapping = axis_mapping(size, params.align_corners);
  const auto to_pixels = [&](float inner) { return fmaf(inner, mapping.scale, mapping.shift); };
  switch (params.padding) {
    case Padding::border:
      return padded_position<Padding::border>(coordinate, size, to_pixels);
    case Padding::reflection:
      return padded_position<Padding::reflection>(coordinate, size, to_pixels);
    default:
      return padded_position<Padding::zeros>(coordinate, size, to_pixels);
  }
}

// The taps of a coordinate in [-1, 1]. A NaN and, where zeros are outside, what is far outside have no tap.
CBTALK_HOST_DEVICE static inline SampleTaps<float, int32_t> coordinate_taps(float coordinate, int64_t size,
                                                                            const FlowWarpParams& params) {
  const auto pixels = static_cast<int32_t>(size);
  const PaddedPosition<float> padded = pad_coordinate(coordinate, pixels, params);
  const float bounded = fminf(fmaxf(padded.position, -2.0f), static_cast<float>(size) + 1.0f);
  const float low = floorf(bounded);
  return sample_taps<float, int32_t>(static_cast<int32_t>(low), bounded - low, padded.slope, pixels);
}

struct PixelTaps {
  SampleTaps<float, int32_t> rows, columns;
  float occlusion;
  bool inside;  // whether there is any tap

  // Top left, top right, bottom left, bottom right; times the occlusion.
  CBTALK_HOST_DEVICE float weight(int tap) const {
    return rows.weight[tap / 2] * columns.weight[tap % 2] * occlusion;
  }
};

// The place at which output pixel (y, x) of an image b * N + n reads.
CBTALK_HOST_DEVICE static inline PixelTaps pixel_taps(const FlowWarpParams& params, int64_t image, int32_t y,
                                                      int32_t x) {
  const int64_t b = image / params.flows, n = image - b * params.flows;
  PixelMap map = {params.flow + b * params.flow_stride[0] + n * params.flow_stride[1], params.flow_stride[2],
                  params.flow_stride[3], params.flow_height, params.flow_width};
  PixelTaps taps;
  const float flow_x = read_map(map, y, x, params.out_height, params.out_width);
  map.data += params.flow_stride[4];
  const float flow_y = read_map(map, y, x, params.out_height, params.out_width);
  taps.columns = coordinate_taps(flow_x, params.width, params);
  taps.rows = coordinate_taps(flow_y, params.height, params);
  taps.inside = taps.rows.weight[0] + taps.rows.weight[1] > 0.0f &&
                taps.columns.weight[0] + taps.columns.weight[1] > 0.0f;
  taps.occlusion = 1.0f;
  if (params.occlusion != nullptr) {
    const PixelMap occlusion = {params.occlusion + b * params.occlusion_stride[0], params.occlusion_stride[2],
                                params.occlusion_stride[3], params.occlusion_height, params.occlusion_width};
    taps.occlusion = read_map(occlusion, y, x, params.out_height, params.out_width);
  }
  return taps;
}

// From a tap to its right and its lower neighbour; 0 where the feature has one column or one row.
CBTALK_HOST_DEVICE static inline int32_t step_right(const FlowWarpParams& params, int64_t column_stride) {
  return params.width > 1 ? static_cast<int32_t>(column_stride) : 0;
}

CBTALK_HOST_DEVICE static inline int32_t step_down(const FlowWarpParams& params, int64_t row_stride) {
  return params.height > 1 ? static_cast<int32_t>(row_stride) : 0;
}

// Gradients to the coordinates in [-1, 1] and to the occlusion; dot[tap] is the sum over channels of
// grad_output * feature, 0 outside.
struct PixelGrad {
  float x, y, occlusion;
};

CBTALK_HOST_DEVICE static inline PixelGrad pixel_grad(const FlowWarpParams& params, const PixelTaps& taps,
                                                      const float dot[4]) {
  const auto& rows = taps.rows;
  const auto& columns = taps.columns;
  const float top = fmaf(columns.weight[1], dot[1], columns.weight[0] * dot[0]);
  const float bottom = fmaf(columns.weight[1], dot[3], columns.weight[0] * dot[2]);
  const float top_slope = fmaf(columns.slope[1], dot[1], columns.slope[0] * dot[0]);
  const float bottom_slope = fmaf(columns.slope[1], dot[3], columns.slope[0] * dot[2]);
  const float x_scale = axis_mapping(params.width, params.align_corners).scale;
  const float y_scale = axis_mapping(params.height, params.align_corners).scale;
  return {fmaf(rows.weight[1], bottom_slope, rows.weight[0] * top_slope) * x_scale * taps.occlusion,
          fmaf(rows.slope[1], bottom, rows.slope[0] * top) * y_scale * taps.occlusion,
          fmaf(rows.weight[1], bottom, rows.weight[0] * top)};
}

// Resizing along one axis, the other way round: the targets [first, last] that may read `source`, with a margin for
// the rounding of the division, and the weight with which each does.
struct ResizeReaders {
  int32_t first, last;
};

CBTALK_HOST_DEVICE static inline ResizeReaders resize_readers(int32_t source, float scale, int64_t target_size) {
  const int32_t end = static_cast<int32_t>(target_size) - 1;
  if (!(scale > 0.0f)) return {0, end};
  const float inverse = 1.0f / scale;
  const int32_t first = static_cast<int32_t>(static_cast<float>(source - 1) * inverse) - 1;
  const int32_t last = static_cast<int32_t>(static_cast<float>(source + 1) * inverse) + 2;
  return {first > 0 ? first : 0, last < end ? last : end};
}

CBTALK_HOST_DEVICE static inline float weight_read(int32_t target, int32_t source, float scale, int64_t size) {
  const auto taps = resize_taps(target, scale, static_cast<int32_t>(size));
  return (taps.low == source ? 1.0f - taps.high_weight : 0.0f) + (taps.high == source ? taps.high_weight : 0.0f);
}

// channels_last: a block works on a tile of output pixels, a group of lanes (at least four) on a pixel, a lane on a
// vector of channels. Not tuned on a GPU yet.
constexpr int kWarpThreads = 256;
constexpr int kWarpRun = 8;            // backward: pixels of a row that a group works through
constexpr int kWarpBackwardThreads = 128;
constexpr int kWarpMaxTile = 256;

struct WarpTile {
  int lanes;          // of a group: a power of two from 4 to 32
  int width, height;  // pixels
};

static inline int warp_group_lanes(int64_t vectors) {
  int lanes = 4;
  while (lanes < 32 && lanes < vectors) lanes *= 2;
  return lanes;
}

static inline WarpTile warp_forward_tile(int64_t vectors) {
  const int lanes = warp_group_lanes(vectors);
  if (vectors > 32) return {lanes, 4, 4};
  return {lanes, 8, lanes == 32 ? 4 : 8};
}

static inline WarpTile warp_backward_tile(int64_t vectors) {
  const int lanes = warp_group_lanes(vectors);
  return {lanes, kWarpRun, kWarpBackwardThreads / lanes};
}

static inline int64_t warp_tiles(const FlowWarpParams& params, int width, int height) {
  const int64_t across = (params.out_width + width - 1) / width, down = (params.out_height + height - 1) / height;
  return params.batch * params.flows * across * down;
}

// NCHW: a warp works on 32 pixels of a row; `slices` of the 8 warps of a block share the channels of the same pixels.
static inline int warp_channel_slices(const FlowWarpParams& params) {
  constexpr int64_t kThreadsOfACard = 132 * 2048;
  const int64_t pixels = params.batch * params.flows * params.out_height * params.out_width;
  int slices = 8;
  while (slices > 1 && (params.channels < 8 * slices || pixels * slices >= 2 * kThreadsOfACard)) slices /= 2;
  return slices;
}

}  // namespace cbtalk
