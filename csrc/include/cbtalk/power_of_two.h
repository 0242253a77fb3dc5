#pragma once

#include <cmath>

#include "cbtalk/host_device.h"

namespace cbtalk {

// 2^x. The GPU's instruction errs by at most 2 units in the last place, as exp2f does; results below 2^-126 it flushes
// to zero, which is lost beside the 1 that they are added to: the largest weight of a softmax, and 1 + e^-x.
CBTALK_HOST_DEVICE static inline float power_of_two(float x) {
#ifdef __CUDA_ARCH__
  float result;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return std::exp2(x);
#endif
}

}  // namespace cbtalk
