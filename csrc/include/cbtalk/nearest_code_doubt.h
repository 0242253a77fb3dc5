#pragma once

#include <cstdint>

// The bound below which float32 cannot tell the nearest code.

namespace cbtalk {

// A code whose float32 score is more than this above the best one is not the nearest; infinite where nothing is known.
//
// The score of a code e for a row z, both given from a common centre, is s = |e|^2 - 2 z.e, and A = |e|^2 + 2 |z| |e|
// bounds it and all its partial sums. With u = 2^-24 the computed score errs by at most (D + 4) u A to first order:
// D u for the chain of D sums; u for rounding each product where there is no fused multiply-add; u for rounding |e|^2,
// which is summed in float64; 2 u because z and e are rounded when the centre is subtracted. Two scores are compared,
// and best + gap is rounded: 2 (D + 6) u A. The factor 1.25 is for higher orders and for the lengths' own error, which
// D <= 2^20 keeps below 7 % each. What underflows, flushed to zero or not, is less than what 2^-50 adds to the lengths;
// up to 2^60 nothing overflows.
//
// reach bounds |e| for both codes: that of the longest code, or |z| and the distance to any code, as a code longer than
// that is farther away.
static inline float nearest_code_gap(float z_length, float reach, int64_t D) {
  constexpr float kTiny = 0x1p-50f, kHuge = 0x1p60f;
  if (!(z_length <= kHuge && reach <= kHuge && D <= int64_t{1} << 20)) return __builtin_inff();
  z_length += kTiny, reach += kTiny;
  return 0x1p-23f * 1.25f * static_cast<float>(D + 6) * reach * (reach + 2.0f * z_length);
}

}  // namespace cbtalk
