#include <cmath>
#include <limits>
#include <vector>

#include "check.h"
#include "levels.h"
#include "simd_probe.h"

namespace {

// The distance between neighbouring floats at `value`; at least the smallest subnormal.
double unit_in_last_place(double value) {
  const float magnitude = static_cast<float>(std::fabs(value));
  return static_cast<double>(std::nextafter(magnitude, std::numeric_limits<float>::infinity())) - magnitude;
}

using ArrayFunction = void (*)(const float*, float*, int64_t);

void check_exponential(ArrayFunction function, double (*exact)(double), float lowest, float highest) {
  const int64_t count = 1 << 16;
  std::vector<float> input(count), output(count);
  for (int64_t i = 0; i < count; ++i) input[i] = lowest + (highest - lowest) * static_cast<float>(i) / count;
  function(input.data(), output.data(), count);
  for (int64_t i = 0; i < count; ++i) {
    const double expected = exact(input[i]);
    CHECK_NEAR(output[i], expected, 2 * unit_in_last_place(expected));
  }
}

void check_exponential_limits(ArrayFunction function) {
  const float infinity = std::numeric_limits<float>::infinity();
  const float input[16] = {-infinity, infinity, NAN, 0.0f, -200.0f, 200.0f, -1e30f, 1e30f, -0.0f};
  float output[16];
  function(input, output, 16);
  CHECK(output[0] == 0.0f && output[1] == infinity && std::isnan(output[2]) && output[3] == 1.0f);
  CHECK(output[4] == 0.0f && output[5] == infinity && output[6] == 0.0f && output[7] == infinity && output[8] == 1.0f);
}

void check_partial_copy() {
  for (int64_t count = 0; count < 40; ++count) {
    std::vector<float> input(count), output(count + 16, -1.0f);
    for (int64_t i = 0; i < count; ++i) input[i] = static_cast<float>(i + 1);
    cbtalk::probe_partial_copy()(input.data(), output.data(), count);
    for (int64_t i = 0; i < count; ++i) CHECK(output[i] == input[i]);
    for (int64_t i = count; i < count + 16; ++i) CHECK(output[i] == -1.0f);
  }
}

void check_reductions() {
  float input[64], result[3];
  for (int i = 0; i < 64; ++i) input[i] = static_cast<float>((i * 29) % 64) - 20.0f;
  cbtalk::probe_reductions()(input, result, 64);
  CHECK(result[0] == 64 * 63 / 2 - 64 * 20 && result[1] == 43.0f && result[2] == -20.0f);
}

void check_select() {
  float input[16];
  int32_t result[16];
  for (int i = 0; i < 16; ++i) input[i] = static_cast<float>(i % 3) * 0.4f;
  cbtalk::probe_select_smaller()(input, result, 16);
  for (int i = 0; i < 16; ++i) CHECK(result[i] == (input[i] < 0.5f ? 1 : 0));
}

}  // namespace

int main() {
  at_each_level([] {
    check_exponential(cbtalk::probe_exp(), std::exp, -104.0f, 88.7f);
    check_exponential(cbtalk::probe_exp(), std::exp, -1.0f, 1.0f);
    check_exponential(cbtalk::probe_exp2(), std::exp2, -150.0f, 127.9f);
    check_exponential(cbtalk::probe_exp2(), std::exp2, -1.0f, 1.0f);
    check_exponential_limits(cbtalk::probe_exp());
    check_exponential_limits(cbtalk::probe_exp2());
    check_partial_copy();
    check_reductions();
    check_select();
  });
  CHECK(!cbtalk::set_level("neon"));
  return 0;
}
