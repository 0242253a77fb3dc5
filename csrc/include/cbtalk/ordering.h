#pragma once

#include <cstdint>
#include <cstring>

#include "cbtalk/host_device.h"

// The tie rule of nearest-code search, in one place for every kernel.

namespace cbtalk {

// Whether code `index` at `score` is to be preferred to the best so far: the smaller score, and of equal scores the
// smaller index. A NaN is never preferred, so a search that starts from (infinity, 0) answers 0 where all are NaN.
template <class Score>
CBTALK_HOST_DEVICE static inline bool is_nearer(Score score, int32_t index, Score best_score, int32_t best_index) {
  return (score < best_score) | ((score == best_score) & (index < best_index));
}

// A score as an integer of the same order, and back; -0 becomes 0, which is as near. Not for a NaN.
CBTALK_HOST_DEVICE static inline uint32_t ordered_score(float score) {
  score += 0.0f;
  uint32_t bits;
  memcpy(&bits, &score, sizeof(bits));
  return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

CBTALK_HOST_DEVICE static inline float score_of(uint32_t ordered) {
  const uint32_t bits = (ordered & 0x80000000u) != 0 ? ordered & 0x7fffffffu : ~ordered;
  float score;
  memcpy(&score, &bits, sizeof(score));
  return score;
}

// Score and index as one number, smaller where is_nearer prefers it: for searches that meet in memory.
CBTALK_HOST_DEVICE static inline uint64_t nearest_key(float score, int32_t index) {
  return (static_cast<uint64_t>(ordered_score(score)) << 32) | static_cast<uint32_t>(index);
}

CBTALK_HOST_DEVICE static inline int32_t nearest_key_index(uint64_t key) { return static_cast<int32_t>(key); }

CBTALK_HOST_DEVICE static inline uint32_t nearest_key_score(uint64_t key) { return static_cast<uint32_t>(key >> 32); }

}  // namespace cbtalk
