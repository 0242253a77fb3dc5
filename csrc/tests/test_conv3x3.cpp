#include "cbtalk/conv3x3.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"

using namespace cbtalk;

namespace {

// With a weight that is 1 at one tap of one pair of channels, the result is the input shifted.
struct Shift {
  int64_t height, width, channels = 20, out_channels = 33;
  bool upsample;
  std::vector<float> x, weight, bias, y, scratch;

  Shift(int64_t h, int64_t w, bool up) : height(h), width(w), upsample(up), bias(out_channels, 0.5f) {}

  // Winograd's transform of the weight whose only tap is (row 0, column 2), from channel 3 to output 17.
  void run() {
    const int64_t side = upsample ? 3 : 4;
    const float first[4] = {1, 0.5f, 0.5f, 0};
    const float last4[4] = {0, 0.5f, 0.5f, 1}, first3[3] = {1, 0.5f, 0}, last3[3] = {0, 0.5f, 1};
    Conv3x3Params p{1, height, width, channels, out_channels, upsample, 1.0f, nullptr, nullptr, nullptr, nullptr, nullptr};
    weight.assign(p.points() * p.out_panels() * channels * Conv3x3Params::kPanel, 0.0f);
    for (int64_t i = 0; i < side; ++i) {
      for (int64_t j = 0; j < side; ++j) {
        const float value = upsample ? first3[i] * last3[j] : first[i] * last4[j];
        weight[(((i * side + j) * p.out_panels() + 17 / 16) * channels + 3) * Conv3x3Params::kPanel + 17 % 16] = value;
      }
    }
    const int64_t half = upsample ? 2 : 1;
    x.assign(height / half * (width / half) * channels, 0.0f);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 97);
    y.assign(height * width * out_channels, -1.0f);
    scratch.assign(p.scratch_size(), 0.0f);
    p.x = x.data(), p.weight = weight.data(), p.bias = bias.data(), p.y = y.data();
    conv3x3_forward()(p, scratch.data(), 0, p.blocks());
  }

  float expected(int64_t row, int64_t column, int64_t output) const {
    const int64_t half = upsample ? 2 : 1, source_row = row - 1, source_column = column + 1;
    if (output != 17 || source_row < 0 || source_column >= width) return 0.5f;
    return x[(source_row / half * (width / half) + source_column / half) * channels + 3] + 0.5f;
  }

  void check() {
    run();
    for (int64_t row = 0; row < height; ++row) {
      for (int64_t column = 0; column < width; ++column) {
        for (int64_t output = 0; output < out_channels; ++output) {
          CHECK_NEAR(y[(row * width + column) * out_channels + output], expected(row, column, output), 1e-4);
        }
      }
    }
  }
};

}  // namespace

int main() {
  for (const char* level : {"baseline", "avx2", "avx512"}) {
    set_level(level);
    Shift(9, 14, false).check();
    Shift(23, 31, false).check();
    Shift(10, 14, true).check();
  }
  return 0;
}
