#include "cbtalk/conv3x3.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "levels.h"

using namespace cbtalk;

namespace {

// With a weight that is 1 at one tap of one pair of channels, the result is the input shifted.
struct Shift {
  int64_t height, width, channels = 20, out_channels = 33;
  int64_t side, shrink;
  std::vector<float> x, weight, bias, y, scratch;

  Shift(int64_t h, int64_t w, int64_t tile) : height(h), width(w), side(tile), shrink(tile == 3 ? 2 : 1), bias(out_channels, 0.5f) {}

  // Winograd's transform of the weight whose only tap is (row 0, column 2), from channel 3 to output 17.
  void run() {
    const float a = 0.6875f, b = 1.5f, at_a = 2 * a * a * (a * a - b * b), at_b = 2 * b * b * (b * b - a * a);
    const float first6[6] = {1 / (a * a * b * b), 1 / at_a, 1 / at_a, 1 / at_b, 1 / at_b, 0};
    const float last6[6] = {0, a * a / at_a, a * a / at_a, b * b / at_b, b * b / at_b, 1};
    const float first4[4] = {-1, 0.5f, 0.5f, 0}, last4[4] = {0, 0.5f, 0.5f, 1};
    const float first3[3] = {-1, 0.5f, 0}, last3[3] = {0, 0.5f, 1};
    const float* first = side == 6 ? first6 : side == 4 ? first4 : first3;
    const float* last = side == 6 ? last6 : side == 4 ? last4 : last3;
    Conv3x3Params p{1, height, width, channels, out_channels, side, 1.0f, nullptr, nullptr, nullptr, nullptr, nullptr};
    weight.assign(p.points() * p.out_panels() * channels * Conv3x3Params::kPanel, 0.0f);
    for (int64_t i = 0; i < side; ++i) {
      for (int64_t j = 0; j < side; ++j) {
        const float value = first[i] * last[j];
        weight[(((i * side + j) * p.out_panels() + 17 / 16) * channels + 3) * Conv3x3Params::kPanel + 17 % 16] = value;
      }
    }
    x.assign(height / shrink * (width / shrink) * channels, 0.0f);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 97);
    y.assign(height * width * out_channels, -1.0f);
    scratch.assign(p.scratch_size(), 0.0f);
    p.x = x.data(), p.weight = weight.data(), p.bias = bias.data(), p.y = y.data();
    conv3x3_forward()(p, scratch.data(), 0, p.blocks());
  }

  float expected(int64_t row, int64_t column, int64_t output) const {
    const int64_t source_row = row - 1, source_column = column + 1;
    if (output != 17 || source_row < 0 || source_column >= width) return 0.5f;
    return x[(source_row / shrink * (width / shrink) + source_column / shrink) * channels + 3] + 0.5f;
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
  at_each_level([] {
    Shift(9, 14, 4).check();
    Shift(23, 31, 4).check();
    Shift(9, 14, 6).check();
    Shift(37, 31, 6).check();
    Shift(10, 14, 3).check();
  });
  return 0;
}
