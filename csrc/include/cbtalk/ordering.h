#pragma once

#include <cstdint>
#include <cstring>

#include "cbtalk/host_device.h"

// The tie rule of nearest-code search, in one place for every kernel.

namespace cbtalk {

// Whether code `index` at `score` is to be preferred to the best so far: the smaller score, and of equal scores the
// smaller index. A NaN is never preferred, so a search that starts from (infinity, 0) answers 0 where all are NaN.
CBTALK_HOST_DEVICE static inline bool is_nearer(float score, int32_t index, float best_score, int32_t best_index) {
  return (score < best_score) | ((score == best_score) & (index < best_index));
}

// Score and index as one number, smaller where is_nearer prefers it: for searches that meet in memory. The score must
// not be a NaN.
CBTALK_HOST_DEVICE static inline uint64_t nearest_key(float score, int32_t index) {
  score += 0.0f;  // -0 is as near as 0
  uint32_t bits;
  memcpy(&bits, &score, sizeof(bits));
  bits = (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
  return (static_cast<uint64_t>(bits) << 32) | static_cast<uint32_t>(index);
}

CBTALK_HOST_DEVICE static inline int32_t nearest_key_index(uint64_t key) { return static_cast<int32_t>(key); }

}  // namespace cbtalk
