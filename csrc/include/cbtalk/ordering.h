#pragma once

#include <cstdint>

#include "cbtalk/host_device.h"

// The tie rule of nearest-code search, in one place for every kernel.

namespace cbtalk {

// Whether code `index` at `score` is to be preferred to the best so far: the smaller score, and of equal scores the
// smaller index. A NaN is never preferred, so a search that starts from (infinity, 0) answers 0 where all are NaN.
CBTALK_HOST_DEVICE static inline bool is_nearer(float score, int32_t index, float best_score, int32_t best_index) {
  return (score < best_score) | ((score == best_score) & (index < best_index));
}

}  // namespace cbtalk
