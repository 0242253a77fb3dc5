#include "cbtalk/geometry.h"

#include <cmath>
#include <initializer_list>

#include "check.h"
#include "exact_padding.h"

namespace {

using cbtalk::AxisMapping;
using cbtalk::PaddedPosition;
using cbtalk::Padding;
using cbtalk::ResizeTaps;
using cbtalk::SampleTaps;

SampleTaps<float, int32_t> taps_at(float position, int32_t size) {
  const float low = std::floor(position);
  return cbtalk::sample_taps<float, int32_t>(static_cast<int32_t>(low), position - low, 1.0f, size);
}

// The sample of `values` at `position` with zeros outside, as the definition says it: a hat function on every pixel.
double exact_sample(const float* values, int32_t size, float position) {
  double sum = 0;
  for (int32_t i = 0; i < size; ++i) {
    const double distance = std::fabs(static_cast<double>(position) - i);
    if (distance < 1) sum += (1 - distance) * values[i];
  }
  return sum;
}

void check_mapping() {
  for (const int64_t size : {1, 2, 7, 256}) {
    const AxisMapping centres = cbtalk::axis_mapping(size, true), edges = cbtalk::axis_mapping(size, false);
    CHECK(-centres.scale + centres.shift == 0.0f);
    CHECK(centres.scale + centres.shift == static_cast<float>(size - 1));
    CHECK(-edges.scale + edges.shift == -0.5f);
    CHECK(edges.scale + edges.shift == static_cast<float>(size) - 0.5f);
  }
}

void check_resize() {
  CHECK(cbtalk::resize_scale(64, 1) == 0.0f);
  for (const int32_t source : {1, 2, 5, 64}) {
    for (const int32_t target : {1, 2, 5, 64, 256}) {
      const float scale = cbtalk::resize_scale(source, target);
      for (int32_t t = 0; t < target; ++t) {
        const ResizeTaps<float, int32_t> taps = cbtalk::resize_taps(t, scale, source);
        CHECK(taps.low >= 0 && taps.low <= taps.high && taps.high < source);
        const double expected = target > 1 ? static_cast<double>(t) * (source - 1) / (target - 1) : 0.0;
        CHECK_NEAR(taps.low * (1 - taps.high_weight) + taps.high * taps.high_weight, expected, 1e-5);
      }
    }
  }
}

void check_sampling() {
  const float values[6] = {3.0f, -1.0f, 4.0f, 1.0f, -5.0f, 9.0f};
  for (const int32_t size : {1, 2, 3, 6}) {
    const int32_t step = size > 1 ? 1 : 0;
    for (float position = -3.0f; position <= static_cast<float>(size) + 2.0f; position += 0.125f) {
      const SampleTaps<float, int32_t> taps = taps_at(position, size);
      CHECK(taps.base >= 0 && taps.base + step < size);
      const float value = taps.weight[0] * values[taps.base] + taps.weight[1] * values[taps.base + step];
      CHECK_NEAR(value, exact_sample(values, size, position), 1e-6);
      // Positions are multiples of 1/8: between two of them the sample is linear, to the right of each.
      const float slope = taps.slope[0] * values[taps.base] + taps.slope[1] * values[taps.base + step];
      const double rise = exact_sample(values, size, position + 0.0625f) - exact_sample(values, size, position);
      CHECK_NEAR(slope, rise * 16, 1e-5);
    }
  }
}

template <Padding kPadding>
PaddedPosition<float> padded(float coordinate, int32_t size, bool align_corners) {
  const AxisMapping mapping = cbtalk::axis_mapping(size, align_corners);
  return cbtalk::padded_position<kPadding>(coordinate, size,
                                           [&](float inner) { return inner * mapping.scale + mapping.shift; });
}

template <Padding kPadding>
void check_padding() {
  for (const bool align_corners : {false, true}) {
    for (const int32_t size : {1, 2, 3, 6}) {
      const float scale = cbtalk::axis_mapping(size, align_corners).scale;
      for (float coordinate = -9.03f; coordinate < 9.1f; coordinate += 0.0171f) {
        double slope;
        const double position = exact_position(coordinate, size, align_corners, kPadding, &slope);
        const PaddedPosition<float> found = padded<kPadding>(coordinate, size, align_corners);
        CHECK_NEAR(found.position, position, 1e-5);
        CHECK_NEAR(found.slope * scale, slope, 1e-6);
      }
      if constexpr (kPadding == Padding::zeros) continue;
      const float last = static_cast<float>(size - 1);
      for (const float far : {-3e38f, -1e10f, 1e10f, 3e38f}) {
        const float position = padded<kPadding>(far, size, align_corners).position;
        CHECK(0.0f <= position && position <= last);
      }
      for (const float edge : {-1.0f, 1.0f}) {  // the border itself has no gradient
        const PaddedPosition<float> at_edge = padded<kPadding>(edge, size, align_corners);
        CHECK(at_edge.position == (edge < 0 ? 0.0f : last) && at_edge.slope == 0.0f);
      }
      for (const float wild : {NAN, INFINITY, -INFINITY}) {
        const auto taps = taps_at(padded<kPadding>(wild, size, align_corners).position, size);
        CHECK(taps.weight[0] == 0.0f && taps.weight[1] == 0.0f);
      }
    }
  }
}

// Large coordinates are mirrored without a rounding, as fmod is exact.
void check_mirror() {
  for (const float start : {0.3f, 1.7f, 1e3f, 123456.7f, 1.6777215e7f, 3.3554432e7f, 1e10f, 3e38f}) {
    float coordinate = start;
    for (int i = 0; i < 50; ++i, coordinate = std::nextafter(coordinate, INFINITY)) {
      const double rest = std::fmod(static_cast<double>(coordinate), 4.0);
      const double mirrored = rest <= 1 ? rest : (rest <= 3 ? 2 - rest : rest - 4);
      CHECK(cbtalk::mirror(coordinate).position == static_cast<float>(mirrored));
      CHECK(cbtalk::mirror(-coordinate).position == -static_cast<float>(mirrored));
      if (rest != 1 && rest != 3) CHECK(cbtalk::mirror(coordinate).slope == (rest > 1 && rest < 3 ? -1.0f : 1.0f));
    }
  }
}

}  // namespace

int main() {
  check_padding<Padding::zeros>();
  check_padding<Padding::border>();
  check_padding<Padding::reflection>();
  check_mirror();
  check_mapping();
  check_resize();
  check_sampling();
  return 0;
}
