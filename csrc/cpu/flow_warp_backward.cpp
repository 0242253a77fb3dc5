// flow_warp, backward. Every gradient element is summed in one fixed order by one thread.

#include "flow_warp_tile.h"

namespace cbtalk::CBTALK_ISA {
namespace {

// To the feature.

// NCHW: adds the tile's share to the planes of channels [first, last) of grad_feature.
template <class Storage>
void scatter_planes(const FlowWarpGradParams& params, const Tile& tile, TapSteps step, int64_t first, int64_t last) {
  const FlowWarpParams& forward = params.forward;
  const int64_t plane_size = forward.height * forward.width, out_plane = forward.out_height * forward.out_width;
  const int64_t b = tile.image / forward.flows;
  for (int64_t c = first; c < last; ++c) {
    float* plane = params.grad_feature + (b * forward.channels + c) * plane_size;
    const Storage* grad = static_cast<const Storage*>(params.grad_output) +
                          (tile.image * forward.channels + c) * out_plane + tile.first_pixel;
    for (int i = 0; i < tile.count; ++i) {
      if (!tile.inside[i]) continue;
      const float value = widen(grad[i]);
      float* top = plane + tile.offset[i];
      if (i % 16 == 0) {  // the next channel's lines, as in the forward
        __builtin_prefetch(top + plane_size, 1, 2);
        __builtin_prefetch(top + plane_size + step.down, 1, 2);
        __builtin_prefetch(grad + out_plane + i, 0, 2);
      }
      float* bottom = top + step.down;
      top[0] = fma(value, tile.weight[0][i], top[0]);
      top[step.right] = fma(value, tile.weight[1][i], top[step.right]);
      bottom[0] = fma(value, tile.weight[2][i], bottom[0]);
      bottom[step.right] = fma(value, tile.weight[3][i], bottom[step.right]);
    }
  }
}

// target[0, count) += grad * weight
template <class Storage>
inline void add_scaled(float* target, const Storage* grad, float weight, int64_t count) {
  int64_t c = 0;
  for (; c + kWidth <= count; c += kWidth) store(target + c, fma(load(grad + c), broadcast(weight), load(target + c)));
  if (const int left = static_cast<int>(count - c); left > 0) {
    store_first(target + c, fma(load_first(grad + c, left), broadcast(weight), load_first(target + c, left)), left);
  }
}

// channels_last: adds the tile's share to channels [first, last) of every pixel of grad_feature.
template <class Storage>
void scatter_pixels(const FlowWarpGradParams& params, const Tile& tile, TapSteps step, int64_t first, int64_t last) {
  const FlowWarpParams& forward = params.forward;
  const int64_t C = forward.channels, b = tile.image / forward.flows;
  float* image = params.grad_feature + b * forward.height * forward.width * C + first;
  const Storage* grad = static_cast<const Storage*>(params.grad_output) +
                        (tile.image * forward.out_height * forward.out_width + tile.first_pixel) * C + first;
  const int64_t steps[4] = {0, step.right, step.down, step.down + step.right};
  for (int i = 0; i < tile.count; ++i, grad += C) {
    if (!tile.inside[i]) continue;
    for (int tap = 0; tap < 4; ++tap) {
      add_scaled(image + tile.offset[i] + steps[tap], grad, tile.weight[tap][i], last - first);
    }
  }
}

void clear_channels(const FlowWarpGradParams& params, int64_t b, int64_t first, int64_t last) {
  const FlowWarpParams& forward = params.forward;
  const int64_t C = forward.channels, pixels = forward.height * forward.width;
  float* image = params.grad_feature + b * pixels * C;
  if (!forward.channels_last) {
    __builtin_memset(image + first * pixels, 0, static_cast<size_t>((last - first) * pixels) * sizeof(float));
    return;
  }
  for (int64_t pixel = 0; pixel < pixels; ++pixel) {
    __builtin_memset(image + pixel * C + first, 0, static_cast<size_t>(last - first) * sizeof(float));
  }
}

// The gradient of channels [first, last) of source image b: from all its flows, pixel after pixel.
template <class Storage>
void scatter_channels(const FlowWarpGradParams& params, Tile& tile, int64_t b, int64_t first, int64_t last) {
  FlowWarpParams dense = params.forward;  // reads as the forward did, but the offsets are those of grad_feature
  const int64_t C = dense.channels, W = dense.width;
  dense.feature_stride[2] = dense.channels_last ? W * C : W;
  dense.feature_stride[3] = dense.channels_last ? C : 1;
  const TapSteps step = tap_steps(dense);
  const int64_t rows = dense.flows * dense.out_height;
  clear_channels(params, b, first, last);
  for_each_tile(dense, b * rows, (b + 1) * rows, tile, [&] {
    if (dense.channels_last) {
      scatter_pixels<Storage>(params, tile, step, first, last);
    } else {
      scatter_planes<Storage>(params, tile, step, first, last);
    }
  });
}

// To the flow and the occlusion, at the size of the output.

// For each pixel of a tile and each of its four taps, sum over the channels of grad_output * feature.
struct TapDots {
  alignas(64) float dot[4][kPadded];
};

template <class Storage>
void dot_planes(const FlowWarpGradParams& params, const Tile& tile, TapDots& dots) {
  const FlowWarpParams& forward = params.forward;
  const TapSteps step = tap_steps(forward);
  const int64_t out_plane = forward.out_height * forward.out_width;
  const Storage* plane = static_cast<const Storage*>(forward.feature) +
                         tile.image / forward.flows * forward.feature_stride[0];
  const Storage* grad = static_cast<const Storage*>(params.grad_output) + tile.image * forward.channels * out_plane +
                        tile.first_pixel;
  __builtin_memset(&dots, 0, sizeof dots);
  for (int64_t c = 0; c < forward.channels; ++c, plane += forward.feature_stride[1], grad += out_plane) {
    for (int i = 0; i < tile.count; i += kWidth) {
      const Vf value = tile.count - i >= kWidth ? load(grad + i) : load_first(grad + i, tile.count - i);
      const Storage* next = plane + forward.feature_stride[1] + tile.offset[i];
      __builtin_prefetch(next, 0, 2);  // as in the forward
      __builtin_prefetch(next + step.down, 0, 2);
      __builtin_prefetch(grad + out_plane + i, 0, 2);
      const Pairs top = gather_pairs(plane, tile.offset + i, step.right);
      const Pairs bottom = gather_pairs(plane + step.down, tile.offset + i, step.right);
      store(dots.dot[0] + i, fma(value, top.left, load(dots.dot[0] + i)));
      store(dots.dot[1] + i, fma(value, top.right, load(dots.dot[1] + i)));
      store(dots.dot[2] + i, fma(value, bottom.left, load(dots.dot[2] + i)));
      store(dots.dot[3] + i, fma(value, bottom.right, load(dots.dot[3] + i)));
    }
  }
}

using Quad = float __attribute__((vector_size(16)));

// The sum over the lanes of each of four vectors, in an order that does not depend on the compiler.
inline Quad reduce_add_each(const Vf sums[4]) {
  Quad folded[4];
  for (int tap = 0; tap < 4; ++tap) {
    Quad quads[kWidth / 4];
    __builtin_memcpy(quads, &sums[tap], sizeof quads);
    folded[tap] = quads[0];
    for (int i = 1; i < kWidth / 4; ++i) folded[tap] += quads[i];
  }
  const Quad even01 = __builtin_shufflevector(folded[0], folded[1], 0, 4, 2, 6);
  const Quad odd01 = __builtin_shufflevector(folded[0], folded[1], 1, 5, 3, 7);
  const Quad even23 = __builtin_shufflevector(folded[2], folded[3], 0, 4, 2, 6);
  const Quad odd23 = __builtin_shufflevector(folded[2], folded[3], 1, 5, 3, 7);
  const Quad first = even01 + odd01, second = even23 + odd23;  // two partial sums of taps 0, 1 and of taps 2, 3
  return __builtin_shufflevector(first, second, 0, 1, 4, 5) + __builtin_shufflevector(first, second, 2, 3, 6, 7);
}

template <class Storage>
void dot_pixels(const FlowWarpGradParams& params, const Tile& tile, TapDots& dots) {
  const FlowWarpParams& forward = params.forward;
  const TapSteps step = tap_steps(forward);
  const int64_t C = forward.channels;
  const int64_t steps[4] = {0, step.right, step.down, step.down + step.right};
  const Storage* image = static_cast<const Storage*>(forward.feature) +
                           tile.image / forward.flows * forward.feature_stride[0];
  const Storage* grad = static_cast<const Storage*>(params.grad_output) +
                        (tile.image * forward.out_height * forward.out_width + tile.first_pixel) * C;
  for (int i = 0; i < tile.count; ++i, grad += C) {
    if (!tile.inside[i]) continue;
    Vf sums[4] = {};
    int64_t c = 0;
    for (; c + kWidth <= C; c += kWidth) {
      const Vf value = load(grad + c);
      for (int tap = 0; tap < 4; ++tap) {
        sums[tap] = fma(value, load(image + tile.offset[i] + steps[tap] + c), sums[tap]);
      }
    }
    if (const int left = static_cast<int>(C - c); left > 0) {
      const Vf value = load_first(grad + c, left);
      for (int tap = 0; tap < 4; ++tap) {
        sums[tap] = fma(value, load_first(image + tile.offset[i] + steps[tap] + c, left), sums[tap]);
      }
    }
    const Quad totals = reduce_add_each(sums);
    for (int tap = 0; tap < 4; ++tap) dots.dot[tap][i] = totals[tap];
  }
}

// Gradients of a tile's pixels, to the coordinates in [-1, 1] and to the occlusion.
struct PixelGrads {
  alignas(64) float x[kPadded];
  alignas(64) float y[kPadded];
  alignas(64) float occlusion[kPadded];
};

template <Padding kPadding>
void pixel_grads(const FlowWarpParams& params, const Tile& tile, const TapDots& dots, PixelGrads& grads) {
  const Axis x_axis = make_axis(params.width, params.align_corners);
  const Axis y_axis = make_axis(params.height, params.align_corners);
  const Vf x_scale = broadcast(x_axis.mapping.scale), y_scale = broadcast(y_axis.mapping.scale);
  for (int i = 0; i < tile.count; i += kWidth) {
    const SampleTaps<Vf, Vi> rows = axis_taps<kPadding>(tile.y + i, y_axis);
    const SampleTaps<Vf, Vi> columns = axis_taps<kPadding>(tile.x + i, x_axis);
    const Vi inside = load(tile.inside + i);
    Vf dot[4];
    for (int tap = 0; tap < 4; ++tap) dot[tap] = (Vf)((Vi)load(dots.dot[tap] + i) & inside);
    const Vf top = fma(columns.weight[1], dot[1], columns.weight[0] * dot[0]);
    const Vf bottom = fma(columns.weight[1], dot[3], columns.weight[0] * dot[2]);
    const Vf top_slope = fma(columns.slope[1], dot[1], columns.slope[0] * dot[0]);
    const Vf bottom_slope = fma(columns.slope[1], dot[3], columns.slope[0] * dot[2]);
    const Vf occlusion = load(tile.occlusion + i);
    store(grads.x + i, fma(rows.weight[1], bottom_slope, rows.weight[0] * top_slope) * x_scale * occlusion);
    store(grads.y + i, fma(rows.slope[1], bottom, rows.slope[0] * top) * y_scale * occlusion);
    store(grads.occlusion + i, fma(rows.weight[1], bottom, rows.weight[0] * top));
  }
}

// From the size of the output to that of the flow and the occlusion, first along the rows, then across them.

// The transpose of read_row along one row: adds what the columns [first, first + count) give to `target`.
void spread_row(const float* grads, int count, int32_t first, int64_t width, int64_t out_width, float* target,
                int64_t target_stride) {
  if (width == out_width) {
    for (int i = 0; i < count; ++i) target[(first + i) * target_stride] = grads[i];
    return;
  }
  if (first == 0) {
    for (int64_t column = 0; column < width; ++column) target[column * target_stride] = 0.0f;
  }
  const float scale = resize_scale(width, out_width);
  for (int i = 0; i < count; ++i) {
    const auto taps = resize_taps(first + i, scale, static_cast<int32_t>(width));
    float* low = target + taps.low * target_stride;
    float* high = target + taps.high * target_stride;
    *low = fma(grads[i], 1.0f - taps.high_weight, *low);
    *high = fma(grads[i], taps.high_weight, *high);
  }
}

void spread_tile(const FlowWarpGradParams& params, const Tile& tile, const PixelGrads& grads) {
  const FlowWarpParams& forward = params.forward;
  const int64_t Wo = forward.out_width;
  const int columns = static_cast<int>(tile.count < Wo ? tile.count : Wo);
  const auto first = static_cast<int32_t>(tile.first_pixel % Wo);
  for (int at = 0; at < tile.count; at += columns) {
    const int64_t row = tile.image * forward.out_height + (tile.first_pixel + at) / Wo;
    if (params.grad_flow != nullptr) {
      float* target = params.grad_flow_rows + row * forward.flow_width * 2;
      spread_row(grads.x + at, columns, first, forward.flow_width, Wo, target, 2);
      spread_row(grads.y + at, columns, first, forward.flow_width, Wo, target + 1, 2);
    }
    if (params.grad_occlusion != nullptr) {
      float* target = params.grad_occlusion_rows + row * forward.occlusion_width;
      spread_row(grads.occlusion + at, columns, first, forward.occlusion_width, Wo, target, 1);
    }
  }
}

template <class Storage>
void backward_rows(const FlowWarpGradParams& params, int64_t begin, int64_t end) {
  Tile tile;
  TapDots dots;
  PixelGrads grads;
  for_each_tile(params.forward, begin, end, tile, [&] {
    if (params.forward.channels_last) {
      dot_pixels<Storage>(params, tile, dots);
    } else {
      dot_planes<Storage>(params, tile, dots);
    }
    with_padding(params.forward.padding,
                 [&]<Padding kPadding>() { pixel_grads<kPadding>(params.forward, tile, dots, grads); });
    spread_tile(params, tile, grads);
  });
}

// The transpose of read_row across the rows: target (width) = the sum over images and output rows y of
// rows[image][y], each times the weight that y gave to `row`.
void gather_rows(const float* rows, int64_t images, int64_t out_height, int64_t width, int64_t height, int64_t row,
                 float* target) {
  const float scale = resize_scale(height, out_height);
  for (int64_t column = 0; column < width; ++column) target[column] = 0.0f;
  for (int64_t image = 0; image < images; ++image) {
    for (int64_t y = 0; y < out_height; ++y, rows += width) {
      const auto taps = resize_taps(static_cast<int32_t>(y), scale, static_cast<int32_t>(height));
      if (taps.low == row) add_scaled(target, rows, 1.0f - taps.high_weight, width);
      if (taps.high == row) add_scaled(target, rows, taps.high_weight, width);
    }
  }
}

}  // namespace

void flow_warp_backward_feature(const FlowWarpGradParams& params, int64_t begin, int64_t end) {
  const int64_t C = params.forward.channels, blocks = warp_channel_blocks(C);
  Tile tile;
  for (int64_t block = begin, next; block < end; block = next) {
    const int64_t b = block / blocks;
    next = (b + 1) * blocks < end ? (b + 1) * blocks : end;
    const int64_t first = (block - b * blocks) * kWarpChannelBlock;
    const int64_t last = (next - b * blocks) * kWarpChannelBlock < C ? (next - b * blocks) * kWarpChannelBlock : C;
    if (params.forward.storage == Storage::float32) {
      scatter_channels<float>(params, tile, b, first, last);
    } else {
      scatter_channels<Bfloat16>(params, tile, b, first, last);
    }
  }
}

void flow_warp_backward_rows(const FlowWarpGradParams& params, int64_t begin, int64_t end) {
  if (params.forward.storage == Storage::float32) {
    backward_rows<float>(params, begin, end);
  } else {
    backward_rows<Bfloat16>(params, begin, end);
  }
}

void flow_warp_backward_flow(const FlowWarpGradParams& params, int64_t begin, int64_t end) {
  const FlowWarpParams& forward = params.forward;
  const int64_t Ho = forward.out_height, h = forward.flow_height, width = forward.flow_width * 2;
  for (int64_t row = begin; row < end; ++row) {
    gather_rows(params.grad_flow_rows + row / h * Ho * width, 1, Ho, width, h, row % h, params.grad_flow + row * width);
  }
}

void flow_warp_backward_occlusion(const FlowWarpGradParams& params, int64_t begin, int64_t end) {
  const FlowWarpParams& forward = params.forward;
  const int64_t N = forward.flows, Ho = forward.out_height;
  const int64_t h = forward.occlusion_height, width = forward.occlusion_width;
  for (int64_t row = begin; row < end; ++row) {
    gather_rows(params.grad_occlusion_rows + row / h * N * Ho * width, N, Ho, width, h, row % h,
                params.grad_occlusion + row * width);
  }
}

}  // namespace cbtalk::CBTALK_ISA
