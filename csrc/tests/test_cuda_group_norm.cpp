// The arithmetic of group_norm's GPU kernels on the host, and how they are launched.

#include <cmath>

#include "cbtalk/cuda/group_norm_params.h"
#include "cbtalk/group_norm_math.h"
#include "check.h"

namespace {

using cbtalk::Moments;

double input(int i) { return std::sin(0.37 * i) * 2 + 1000; }

template <class Real>
Moments<Real> moments_of(int begin, int end) {
  Moments<Real> moments{};
  Real count = 0;
  for (int i = begin; i < end; ++i) {
    const auto weights = cbtalk::join_weights<Real>(count, 1);
    moments = cbtalk::join(weights, moments, {static_cast<Real>(input(i)), 0});
    count = weights.count;
  }
  return moments;
}

// Joined from parts of any size, in the dtype of the kernels, against the definition in double.
template <class Real>
void check_join(double tolerance) {
  constexpr int kCount = 1000;
  double mean = 0, squares = 0;
  for (int i = 0; i < kCount; ++i) mean += input(i) / kCount;
  for (int i = 0; i < kCount; ++i) squares += std::pow(input(i) - mean, 2);
  for (int cut : {0, 1, 17, 500, 999, kCount}) {
    const auto weights = cbtalk::join_weights<Real>(static_cast<Real>(cut), static_cast<Real>(kCount - cut));
    CHECK(weights.count == kCount);
    const Moments<Real> joined = cbtalk::join(weights, moments_of<Real>(0, cut), moments_of<Real>(cut, kCount));
    CHECK_NEAR(joined.mean, mean, tolerance * 1000);
    CHECK_NEAR(joined.squares, squares, tolerance * squares * 1000);  // a thousand times the deviation is the mean
  }
}

void check_empty_sets() {
  const auto none = cbtalk::join_weights(0.0f, 0.0f);
  CHECK(none.count == 0 && none.share == 0 && none.product == 0);
  const auto first = cbtalk::join(cbtalk::join_weights(0.0f, 8.0f), {0.0f, 0.0f}, Moments<float>{3.0f, 2.0f});
  CHECK(first.mean == 3.0f && first.squares == 2.0f);
  const auto second = cbtalk::join(cbtalk::join_weights(8.0f, 0.0f), Moments<float>{3.0f, 2.0f}, {0.0f, 0.0f});
  CHECK(second.mean == 3.0f && second.squares == 2.0f);
}

template <bool exact_division>
void check_silu() {
  for (float x = -30; x <= 30; x += 0.01f) {
    const double exact = static_cast<double>(x), sigmoid = 1 / (1 + std::exp(-exact));
    // The exponent is rounded at its own size, and log2(e) is, too: e^-x errs by 1.25 |x| roundings.
    const double rounding = std::ldexp(1.0, -24) * (4 + 1.25 * std::fabs(exact));
    CHECK_NEAR(cbtalk::silu<exact_division>(x), exact * sigmoid, rounding * std::fabs(exact * sigmoid));
    CHECK_NEAR(cbtalk::silu_slope<exact_division>(x), sigmoid * (1 + exact * (1 - sigmoid)), rounding);
  }
  CHECK(cbtalk::silu<exact_division>(-200.0f) == 0 && cbtalk::silu_slope<exact_division>(-200.0f) == 0);
  CHECK(cbtalk::silu<exact_division>(200.0f) == 200 && cbtalk::silu_slope<exact_division>(200.0f) == 1);
  CHECK(std::isnan(cbtalk::silu<exact_division>(NAN)) && std::isnan(cbtalk::silu_slope<exact_division>(NAN)));
}

// The terms against a difference quotient: 5 numbers, one group, weight w and gradient g each.
void check_input_gradient() {
  constexpr int kCount = 5;
  const double x[kCount] = {0.3, -1.2, 2.5, 0.9, -0.4}, w[kCount] = {1.5, -0.5, 0.7, 2.0, 1.0};
  const double g[kCount] = {0.2, 1.0, -0.6, 0.4, -1.3};
  const auto loss = [&](int moved, double by) {
    double mean = 0, squares = 0, sum = 0;
    const auto at = [&](int i) { return x[i] + (i == moved ? by : 0); };
    for (int i = 0; i < kCount; ++i) mean += at(i) / kCount;
    for (int i = 0; i < kCount; ++i) squares += std::pow(at(i) - mean, 2);
    const double rstd = cbtalk::reciprocal_deviation(squares, kCount, 1e-6);
    for (int i = 0; i < kCount; ++i) sum += g[i] * w[i] * (at(i) - mean) * rstd;
    return sum;
  };
  double mean = 0, squares = 0, weighted_sum = 0, weighted_product = 0;
  for (double value : x) mean += value / kCount;
  for (double value : x) squares += std::pow(value - mean, 2);
  const double rstd = cbtalk::reciprocal_deviation(squares, kCount, 1e-6);
  for (int i = 0; i < kCount; ++i) {
    weighted_sum += w[i] * g[i];
    weighted_product += w[i] * g[i] * (x[i] - mean) * rstd;
  }
  const auto terms = cbtalk::input_gradient_terms(rstd, weighted_sum, weighted_product, kCount);
  for (int i = 0; i < kCount; ++i) {
    const double expected = (loss(i, 1e-6) - loss(i, -1e-6)) / 2e-6;
    CHECK_NEAR(w[i] * rstd * g[i] + (x[i] - mean) * terms.slope + terms.offset, expected, 1e-6);
  }
}

cbtalk::GroupNormCudaParams image(int64_t channels, int64_t side, int64_t groups, cbtalk::Storage storage) {
  cbtalk::GroupNormCudaParams params{};
  params.batch = 16;
  params.pixels = side * side;
  params.channels = channels;
  params.groups = groups;
  params.storage = storage;
  return params;
}

void check_launches() {
  using cbtalk::Storage;
  auto params = image(64, 256, 32, Storage::float32);
  CHECK(params.chunks() == 64 && cbtalk::group_norm_slab_lanes(params, 512) == 0);
  CHECK(cbtalk::group_norm_forward_workspace(params) == 16 * 64 * 2 * 64);
  CHECK(params.coefficients() - params.workspace + 16 * 32 * 2 == cbtalk::group_norm_backward_workspace(params));
  params.pixels += 1;
  CHECK(params.chunks() == 65);

  for (Storage storage : {Storage::float32, Storage::float16, Storage::bfloat16}) {
    params = image(256, 32, 32, storage);  // a group is 8 channels
    CHECK(cbtalk::group_norm_slab_lanes(params, 512) == 4);
    CHECK(cbtalk::group_norm_slab_threads(params, 4) == 512);
    params.pixels += 1;  // no longer in 512 threads by 8 vectors
    CHECK(cbtalk::group_norm_slab_lanes(params, 512) == 2);
    params.pixels = 2049;
    CHECK(cbtalk::group_norm_slab_lanes(params, 512) == 0);
  }
  params = image(96, 8, 8, Storage::float32);  // 12 channels to a group: no slab holds whole groups
  CHECK(cbtalk::group_norm_slab_lanes(params, 512) == 0);
  params = image(64, 1, 32, Storage::float32);
  CHECK(cbtalk::group_norm_slab_lanes(params, 512) == 4 && cbtalk::group_norm_slab_threads(params, 4) == 32);

  alignas(16) const char memory[32]{};
  CHECK(cbtalk::group_norm_aligned(params, memory, memory + 16, nullptr));
  CHECK(!cbtalk::group_norm_aligned(params, memory, memory + 4, nullptr));
  params.channels = 6;  // a pixel is 24 bytes
  CHECK(!cbtalk::group_norm_aligned(params, memory, memory, memory));

  // More than 2^31 elements: every size is 64 bits.
  params = image(256, 4096, 32, Storage::float16);
  params.batch = 64;
  CHECK(params.chunks() * params.chunk_pixels() == 4096 * 4096);
  CHECK(cbtalk::group_norm_forward_workspace(params) == int64_t{64} * 16384 * 2 * 256);
}

}  // namespace

int main() {
  check_join<float>(1e-6);
  check_join<double>(1e-14);
  check_empty_sets();
  check_silu<true>();
  check_silu<false>();
  check_input_gradient();
  check_launches();
}
