#include "cbtalk/geometry.h"

#include <cmath>
#include <initializer_list>

#include "check.h"

namespace {

using cbtalk::AxisMapping;
using cbtalk::ResizeTaps;
using cbtalk::SampleTaps;

SampleTaps<float, int32_t> taps_at(float position, int32_t size) {
  const float low = std::floor(position);
  return cbtalk::sample_taps<float, int32_t>(static_cast<int32_t>(low), position - low, size);
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

}  // namespace

int main() {
  check_mapping();
  check_resize();
  check_sampling();
  return 0;
}
