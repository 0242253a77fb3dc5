// The parts of flow_warp's GPU kernels that compute once a pixel and cut the work, tested on the host.

#include <cmath>
#include <initializer_list>

#include "cbtalk/cuda/flow_warp_pixel.h"
#include "check.h"
#include "exact_padding.h"

namespace {

using cbtalk::FlowWarpParams;
using cbtalk::Padding;
using cbtalk::PixelMap;
using cbtalk::PixelTaps;

double hat(double distance) { return std::fmax(0, 1 - std::fabs(distance)); }

double exact_resized(const PixelMap& map, int32_t y, int32_t x, int64_t out_height, int64_t out_width) {
  const auto place = [](int32_t at, int64_t size, int64_t target) {
    return target > 1 ? static_cast<double>(at) * static_cast<double>(size - 1) / static_cast<double>(target - 1) : 0.0;
  };
  double sum = 0;
  for (int64_t i = 0; i < map.height; ++i) {
    for (int64_t j = 0; j < map.width; ++j) {
      sum += hat(place(y, map.height, out_height) - static_cast<double>(i)) *
             hat(place(x, map.width, out_width) - static_cast<double>(j)) *
             map.data[i * map.row_stride + j * map.column_stride];
    }
  }
  return sum;
}

void check_maps() {
  float data[64];
  for (int i = 0; i < 64; ++i) data[i] = std::sin(0.7f * static_cast<float>(i));
  for (const int64_t out : {1, 2, 3, 5, 16}) {
    for (const PixelMap& map : {PixelMap{data, 2, 1, 5, 2}, PixelMap{data, 1, 8, 3, 5}, PixelMap{data, 0, 0, 1, 1}}) {
      for (int32_t y = 0; y < out; ++y) {
        for (int32_t x = 0; x < out + 1; ++x) {
          CHECK_NEAR(cbtalk::read_map(map, y, x, out, out + 1), exact_resized(map, y, x, out, out + 1), 2e-6);
        }
      }
    }
  }
  data[1] = NAN;  // a neighbour that is not read must not be seen
  CHECK(cbtalk::read_map({data, 4, 1, 3, 4}, 0, 0, 3, 4) == data[0]);
}

FlowWarpParams one_pixel(const float* flow, const float* occlusion, int64_t height, int64_t width, bool align_corners,
                         Padding padding) {
  FlowWarpParams params{};
  params.batch = params.flows = params.channels = params.out_height = params.out_width = 1;
  params.flow_height = params.flow_width = params.occlusion_height = params.occlusion_width = 1;
  params.height = height, params.width = width;
  params.flow = flow, params.flow_stride[4] = 1;
  params.occlusion = occlusion;
  params.align_corners = align_corners;
  params.padding = padding;
  return params;
}

// The sample at `flow` as the definition says it, in double.
double exact_sample(const FlowWarpParams& params, const float* feature, double flow_x, double flow_y) {
  const auto place = [&](double coordinate, int64_t size) {
    return exact_position(coordinate, size, params.align_corners, params.padding);
  };
  double sum = 0;
  for (int64_t i = 0; i < params.height; ++i) {
    for (int64_t j = 0; j < params.width; ++j) {
      sum += hat(place(flow_y, params.height) - static_cast<double>(i)) *
             hat(place(flow_x, params.width) - static_cast<double>(j)) * feature[i * params.width + j];
    }
  }
  return sum;
}

// The dot products of one channel with grad_output 1 are the four values that the taps read.
void read_taps(const FlowWarpParams& params, const PixelTaps& taps, const float* feature, float values[4]) {
  const float* top = feature + taps.rows.base * params.width + taps.columns.base;
  const int32_t right = cbtalk::step_right(params, 1), down = cbtalk::step_down(params, params.width);
  for (int tap = 0; tap < 4; ++tap) values[tap] = taps.inside ? top[(tap / 2) * down + (tap % 2) * right] : 0.0f;
}

void check_pixels(Padding padding) {
  float feature[35];
  for (int i = 0; i < 35; ++i) feature[i] = std::cos(1.3f * static_cast<float>(i));
  const float occlusion = 0.75f;
  for (const bool align_corners : {false, true}) {
    for (const int64_t height : {1, 2, 5}) {
      for (const int64_t width : {1, 7}) {
        for (float at = -3.43f; at < 3.5f; at += 0.0917f) {
          const float flow[2] = {at, 0.8f * at + 0.1f};
          const FlowWarpParams params = one_pixel(flow, &occlusion, height, width, align_corners, padding);
          const PixelTaps taps = cbtalk::pixel_taps(params, 0, 0, 0);
          float values[4];
          read_taps(params, taps, feature, values);
          double sample = 0;
          for (int tap = 0; tap < 4; ++tap) sample += static_cast<double>(taps.weight(tap)) * values[tap];
          const auto exact = [&](double x, double y) { return exact_sample(params, feature, x, y); };
          CHECK_NEAR(sample, occlusion * exact(flow[0], flow[1]), 3e-6);

          const auto grad = cbtalk::pixel_grad(params, taps, values);
          CHECK_NEAR(grad.occlusion, exact(flow[0], flow[1]), 3e-6);
          const double step = 1e-5;
          const double rise_x = exact(flow[0] + step, flow[1]) - exact(flow[0] - step, flow[1]);
          const double rise_y = exact(flow[0], flow[1] + step) - exact(flow[0], flow[1] - step);
          CHECK_NEAR(grad.x, occlusion * rise_x / (2 * step), 1e-4);
          CHECK_NEAR(grad.y, occlusion * rise_y / (2 * step), 1e-4);
        }
      }
    }
  }
  for (const float wild : {NAN, INFINITY, -INFINITY, 3e38f, -3e38f, 1e10f}) {
    const float flow[2] = {0.0f, wild};
    const bool inside = cbtalk::pixel_taps(one_pixel(flow, nullptr, 5, 7, true, padding), 0, 0, 0).inside;
    CHECK(inside == (padding != Padding::zeros && std::isfinite(wild)));
  }
}

// Every target that reads a source pixel is between its first and last reader, and there are few more.
void check_readers() {
  for (const int32_t source : {1, 2, 3, 31, 32, 64, 255}) {
    for (const int32_t target : {1, 2, 5, 63, 64, 256, 1000}) {
      const float scale = cbtalk::resize_scale(source, target);
      for (int32_t s = 0; s < source; ++s) {
        const auto readers = cbtalk::resize_readers(s, scale, target);
        CHECK(readers.first >= 0 && readers.last < target);
        for (int32_t t = 0; t < target; ++t) {
          const float weight = cbtalk::weight_read(t, s, scale, source);
          CHECK(weight == 0.0f || (readers.first <= t && t <= readers.last));
        }
        if (scale > 0.0f) CHECK(readers.last - readers.first <= static_cast<int32_t>(2.0f / scale) + 6);
      }
    }
  }
}

void check_tiles() {
  for (const int64_t vectors : {1, 3, 4, 5, 8, 16, 31, 32, 64, 1000}) {
    const auto forward = cbtalk::warp_forward_tile(vectors), backward = cbtalk::warp_backward_tile(vectors);
    CHECK(forward.lanes == backward.lanes && forward.lanes >= 4 && forward.lanes <= 32);
    CHECK((forward.lanes & (forward.lanes - 1)) == 0 && (forward.lanes == 32 || forward.lanes >= vectors));
    CHECK(forward.width * forward.height <= cbtalk::kWarpMaxTile);
    CHECK(backward.width * backward.height <= cbtalk::kWarpMaxTile);
    // Backward, every group has exactly one run.
    CHECK(backward.width == cbtalk::kWarpRun && backward.height * backward.lanes == cbtalk::kWarpBackwardThreads);
  }
  FlowWarpParams params{};
  params.batch = 3, params.flows = 2, params.channels = 64, params.out_height = 9, params.out_width = 33;
  CHECK(cbtalk::warp_tiles(params, 8, 8) == 3 * 2 * 2 * 5);
  CHECK(cbtalk::warp_channel_slices(params) == 8);
  params.channels = 3;
  CHECK(cbtalk::warp_channel_slices(params) == 1);
  params.channels = 64, params.out_height = params.out_width = 256, params.batch = 16;
  CHECK(cbtalk::warp_channel_slices(params) == 1);
  params.out_height = params.out_width = 1 << 20;
  CHECK(cbtalk::warp_tiles(params, 8, 4) == int64_t{32} << 35);
}

}  // namespace

int main() {
  check_maps();
  for (const Padding padding : {Padding::zeros, Padding::border, Padding::reflection}) check_pixels(padding);
  check_readers();
  check_tiles();
  return 0;
}
