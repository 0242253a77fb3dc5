// The passes of group_norm joined over chunks, against the definition in double.

#include "cbtalk/group_norm.h"

#include <cmath>
#include <vector>

#include "check.h"
#include "levels.h"

namespace {

constexpr int64_t kPixels = 3 * cbtalk::GroupNormParams::kChunk + 5, kChannels = 20, kGroups = 4;

double input(int64_t image, int64_t pixel, int64_t channel) {
  return std::sin(0.37 * static_cast<double>(pixel) + static_cast<double>(channel * channel)) * 2 +
         static_cast<double>(image) + 3;
}

double exact(int64_t image, int64_t pixel, int64_t channel, bool silu) {
  const int64_t width = kChannels / kGroups, first = channel / width * width;
  double sum = 0, squares = 0;
  for (int64_t p = 0; p < kPixels; ++p) {
    for (int64_t c = first; c < first + width; ++c) sum += input(image, p, c);
  }
  const double count = static_cast<double>(kPixels * width), mean = sum / count;
  for (int64_t p = 0; p < kPixels; ++p) {
    for (int64_t c = first; c < first + width; ++c) squares += std::pow(input(image, p, c) - mean, 2);
  }
  const double value = (input(image, pixel, channel) - mean) / std::sqrt(squares / count + 1e-6) * 1.5 - 0.25;
  return silu ? value / (1 + std::exp(-value)) : value;
}

void check_forward(bool silu) {
  const int64_t batch = 2, size = batch * kPixels * kChannels;
  std::vector<float> x(size), y(size), weight(kChannels, 1.5f), bias(kChannels, -0.25f), mean(batch * kGroups);
  std::vector<float> rstd(batch * kGroups);
  for (int64_t i = 0; i < size; ++i) {
    x[i] = static_cast<float>(input(i / (kPixels * kChannels), i / kChannels % kPixels, i % kChannels));
  }
  cbtalk::GroupNormParams params{};
  params.batch = batch;
  params.pixels = kPixels;
  params.channels = kChannels;
  params.groups = kGroups;
  params.eps = 1e-6f;
  params.silu = silu;
  params.x = x.data();
  params.y = y.data();
  params.weight = weight.data();
  params.bias = bias.data();
  params.mean = mean.data();
  params.rstd = rstd.data();
  std::vector<float> partial(params.partial_size()), coefficients(params.coefficients_size());
  params.partial = partial.data();
  params.coefficients = coefficients.data();
  cbtalk::group_norm_moments()(params, 0, params.items());
  cbtalk::group_norm_join_moments(params, 0, batch);
  cbtalk::group_norm_apply()(params, 0, params.items());
  for (int64_t pixel : {int64_t{0}, params.kChunk - 1, params.kChunk, kPixels - 1}) {
    for (int64_t channel = 0; channel < kChannels; ++channel) {
      for (int64_t image = 0; image < batch; ++image) {
        const double found = y[(image * kPixels + pixel) * kChannels + channel];
        CHECK_NEAR(found, exact(image, pixel, channel, silu), 3e-6);
      }
    }
  }
}

}  // namespace

int main() {
  at_each_level([] {
    check_forward(false);
    check_forward(true);
  });
}
