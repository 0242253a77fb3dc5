// flow_warp, forward. Taps and weights are computed once a pixel; every output element is written once.

#include "flow_warp_tile.h"

namespace cbtalk::CBTALK_ISA {
namespace {

// NCHW: a vector is kWidth pixels of one channel.
template <class Storage>
void warp_planes(const FlowWarpParams& params, const Tile& tile) {
  const TapSteps step = tap_steps(params);
  const int64_t out_plane = params.out_height * params.out_width;
  const Storage* plane = static_cast<const Storage*>(params.feature) +
                         tile.image / params.flows * params.feature_stride[0];
  Storage* output = static_cast<Storage*>(params.output) + tile.image * params.channels * out_plane +
                    tile.first_pixel;
  for (int64_t c = 0; c < params.channels; ++c, plane += params.feature_stride[1], output += out_plane) {
    for (int i = 0; i < tile.count; i += kWidth) {
      // A tile is too short for the hardware to notice the stream, so the next channel's lines are fetched by name. The
      // pixels of a vector lie in several rows where the flow is steep.
      const Storage* next = plane + params.feature_stride[1];
      for (int lane = 0; lane < kWidth; lane += kWidth / 4) {
        __builtin_prefetch(next + tile.offset[i + lane], 0, 2);
        __builtin_prefetch(next + tile.offset[i + lane] + step.down, 0, 2);
      }
      __builtin_prefetch(output + out_plane + i, 1, 3);
      const Pairs top = gather_pairs(plane, tile.offset + i, step.right);
      const Pairs bottom = gather_pairs(plane + step.down, tile.offset + i, step.right);
      Vf value = top.left * load(tile.weight[0] + i);
      value = fma(top.right, load(tile.weight[1] + i), value);
      value = fma(bottom.left, load(tile.weight[2] + i), value);
      value = fma(bottom.right, load(tile.weight[3] + i), value);
      value = (Vf)((Vi)value & load(tile.inside + i));  // a zero weight would let a NaN through
      if (tile.count - i >= kWidth) {
        store(output + i, value);
      } else {
        store_first(output + i, value, tile.count - i);
      }
    }
  }
}

// channels_last: a vector is kWidth channels of one pixel.
template <class Storage>
void warp_pixels(const FlowWarpParams& params, const Tile& tile) {
  const TapSteps step = tap_steps(params);
  const int64_t C = params.channels;
  const Storage* image = static_cast<const Storage*>(params.feature) +
                           tile.image / params.flows * params.feature_stride[0];
  Storage* output = static_cast<Storage*>(params.output) +
                    (tile.image * params.out_height * params.out_width + tile.first_pixel) * C;
  for (int i = 0; i < tile.count; ++i, output += C) {
    if (!tile.inside[i]) {
      __builtin_memset(output, 0, static_cast<size_t>(C) * sizeof(Storage));
      continue;
    }
    const Storage* top = image + tile.offset[i];
    const Storage* bottom = top + step.down;
    const Vf weight[4] = {broadcast(tile.weight[0][i]), broadcast(tile.weight[1][i]), broadcast(tile.weight[2][i]),
                          broadcast(tile.weight[3][i])};
    const auto blend = [&](Vf top_left, Vf top_right, Vf bottom_left, Vf bottom_right) {
      Vf value = top_left * weight[0];
      value = fma(top_right, weight[1], value);
      value = fma(bottom_left, weight[2], value);
      return fma(bottom_right, weight[3], value);
    };
    int64_t c = 0;
    for (; c + kWidth <= C; c += kWidth) {
      store(output + c, blend(load(top + c), load(top + step.right + c), load(bottom + c),
                              load(bottom + step.right + c)));
    }
    if (const int left = static_cast<int>(C - c); left > 0) {
      store_first(output + c,
                  blend(load_first(top + c, left), load_first(top + step.right + c, left), load_first(bottom + c, left),
                        load_first(bottom + step.right + c, left)),
                  left);
    }
  }
}

template <class Storage>
void warp_rows(const FlowWarpParams& params, int64_t begin, int64_t end) {
  Tile tile;
  if (params.channels_last) {
    for_each_tile(params, begin, end, tile, [&] { warp_pixels<Storage>(params, tile); });
  } else {
    for_each_tile(params, begin, end, tile, [&] { warp_planes<Storage>(params, tile); });
  }
}

}  // namespace

void flow_warp_forward(const FlowWarpParams& params, int64_t begin, int64_t end) {
  if (params.storage == Storage::float32) {
    warp_rows<float>(params, begin, end);
  } else {
    warp_rows<Bfloat16>(params, begin, end);
  }
}

}  // namespace cbtalk::CBTALK_ISA
