#pragma once

#include <cstdint>
#include <cstring>

#include "cbtalk/host_device.h"

// A float32 as the sum of two numbers that tensor cores multiply exactly: 3xTF32.

namespace cbtalk {

// The first 11 bits of a number, which are all that tensor cores read of it. Rounding to the nearest takes a GPU four
// instructions, this one.
CBTALK_HOST_DEVICE static inline float truncate_to_tf32(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  bits &= ~0x1fffu;
  memcpy(&x, &bits, sizeof(bits));
  return x;
}

struct SplitFloat {
  float big, small;
};

// big + small is x. What tensor cores read of small is less than it by at most 3 * 2^-23 |x|. The two parts of an
// infinity are an infinity and a NaN; of a NaN, small is one.
CBTALK_HOST_DEVICE static inline SplitFloat split_float(float x) {
  const float big = truncate_to_tf32(x);
  return {big, x - big};
}

}  // namespace cbtalk
