#pragma once

#include <cstdint>
#include <cstring>

#include "cbtalk/host_device.h"

// A float32 as the sum of two numbers that tensor cores multiply exactly: 3xTF32.

namespace cbtalk {

// To the nearest number of 11 bits, ties away from zero, as cvt.rna.tf32 does it.
CBTALK_HOST_DEVICE static inline float round_to_tf32(float x) {
  uint32_t bits;
#ifdef __CUDA_ARCH__
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
#else
  memcpy(&bits, &x, sizeof(bits));
  if ((bits & 0x7f800000u) == 0x7f800000u) return x;
  bits = (bits + 0x1000u) & ~0x1fffu;
#endif
  memcpy(&x, &bits, sizeof(bits));
  return x;
}

struct SplitFloat {
  float big, small;
};

// big + small is x to 2^-22 of its magnitude. The two parts of an infinity are an infinity and a NaN.
CBTALK_HOST_DEVICE static inline SplitFloat split_float(float x) {
  const float big = round_to_tf32(x);
  return {big, round_to_tf32(x - big)};
}

}  // namespace cbtalk
