#pragma once

// The packed codebook of the nearest-code search: panel after panel of kPanel codes, each |e|^2 (kPanel) and then -2e as
// (D, kPanel), where e is a code given from the centre.

#include "cbtalk/nearest_code.h"
#include "simd.h"

namespace cbtalk::CBTALK_ISA {

constexpr int kVectors = 2;
constexpr int kPanel = kVectors * kWidth;
static_assert(kNearestCodeGroup % kPanel == 0);

// Element d of code k in the packed codebook, |e|^2 being element -1.
static inline float* packed_element(const NearestCodeParams& p, int64_t k, int64_t d) {
  return p.panels + k / kPanel * kPanel * (p.D + 1) + (d + 1) * kPanel + k % kPanel;
}

}  // namespace cbtalk::CBTALK_ISA
