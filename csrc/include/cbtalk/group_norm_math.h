#pragma once

// The formulas of group normalisation that do not depend on how the work is cut. The one place of each, for the C++ of
// the CPU and of the GPU. Everything is static: the CPU kernels are compiled once an instruction level.

#include <cmath>

#include "cbtalk/host_device.h"
#include "cbtalk/power_of_two.h"

namespace cbtalk {

// Mean of a set of numbers, and the sum of their squared distances from it.
template <class Real>
struct Moments {
  Real mean, squares;
};

// How much each of two sets counts when they are joined: depends on their sizes alone.
template <class Real>
struct JoinWeights {
  Real count;    // of both
  Real share;    // second / count
  Real product;  // first * second / count
};

template <class Real>
CBTALK_HOST_DEVICE static inline JoinWeights<Real> join_weights(Real first, Real second) {
  const Real count = first + second;
  const Real share = count > 0 ? second / count : Real(0);
  return {count, share, first * share};
}

// Chan, Golub and LeVeque (1983): no difference of large numbers, whatever the mean.
template <class Real>
CBTALK_HOST_DEVICE static inline Moments<Real> join(const JoinWeights<Real>& weights, Moments<Real> first,
                                                    Moments<Real> second) {
  const Real delta = second.mean - first.mean;
  return {first.mean + delta * weights.share, first.squares + second.squares + delta * delta * weights.product};
}

CBTALK_HOST_DEVICE static inline double reciprocal_deviation(double squares, double count, double eps) {
  return 1.0 / sqrt(squares / count + eps);
}

// grad_x = weight rstd g + (x - mean) slope + offset, with g the gradient ahead of the SiLU:
//   rstd (w g - mean of w g - x^ (mean of w g x^)), x^ = (x - mean) rstd, the means over the group.
struct InputGradientTerms {
  float slope, offset;
};

CBTALK_HOST_DEVICE static inline InputGradientTerms input_gradient_terms(double rstd, double weighted_sum,
                                                                         double weighted_product, double count) {
  return {static_cast<float>(-rstd * rstd * weighted_product / count),
          static_cast<float>(-rstd * weighted_sum / count)};
}

// a / b. A result of 16 bits needs no exact one: the GPU's reciprocal errs by one unit in the last place of float32, and is
// zero where b is 2^126 or more.
template <bool exact>
CBTALK_HOST_DEVICE static inline float quotient(float a, float b) {
#ifdef __CUDA_ARCH__
  if constexpr (!exact) {
    float reciprocal;
    asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(reciprocal) : "f"(b));
    return a * reciprocal;
  }
#endif
  return a / b;
}

CBTALK_HOST_DEVICE static inline float exp_of_minus(float x) { return power_of_two(x * -1.44269504f); }

template <bool exact>
CBTALK_HOST_DEVICE static inline float silu(float x) {
  return quotient<exact>(x, 1.0f + exp_of_minus(x));
}

// d silu(x) / d x
template <bool exact>
CBTALK_HOST_DEVICE static inline float silu_slope(float x) {
  const float sigmoid = quotient<exact>(1.0f, 1.0f + exp_of_minus(x));
  return sigmoid * fmaf(x, 1.0f - sigmoid, 1.0f);
}

}  // namespace cbtalk
