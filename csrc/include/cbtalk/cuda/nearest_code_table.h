#pragma once

#include <cstdint>
#include <cstring>

#include "cbtalk/host_device.h"

// A hash table of codes that finds those which equal an earlier one. A slot is 0, or a hash with the first code of it.
// Of two hashes that meet in a slot the larger stays and the other goes on to the next slot: so the table depends on
// what is entered alone, not on the order, and the codes of one hash meet in one slot.

namespace cbtalk::nearest_code {

// The hash of a code is the sum of these over its columns (MurmurHash3's last step). Equal numbers mix alike, 0 and -0
// too.
CBTALK_HOST_DEVICE static inline uint32_t mix(float element, uint32_t column) {
  element += 0.0f;
  uint32_t bits;
  memcpy(&bits, &element, sizeof(bits));
  bits ^= column * 0x9e3779b9u;
  bits = (bits ^ (bits >> 16)) * 0x85ebca6bu;
  bits = (bits ^ (bits >> 13)) * 0xc2b2ae35u;
  return bits ^ (bits >> 16);
}

// Larger for a larger hash, and of one hash for an earlier code; never 0.
CBTALK_HOST_DEVICE static inline uint64_t table_entry(uint32_t hash, int32_t code) {
  return (static_cast<uint64_t>(hash) << 32) | ~static_cast<uint32_t>(code);
}

CBTALK_HOST_DEVICE static inline int32_t code_of_entry(uint64_t entry) {
  return static_cast<int32_t>(~static_cast<uint32_t>(entry));
}

struct SameHash {
  int32_t first, later;  // two codes; later is -1 where none have met
};

// Enters a code; two codes of one hash that have met on the way. raise(slot, entry) makes a slot the larger of itself
// and entry in one step, and gives what it was.
#ifdef __CUDACC__
#pragma nv_exec_check_disable
#endif
template <class Raise>
CBTALK_HOST_DEVICE SameHash enter(uint32_t hash, int32_t code, int64_t slots, const Raise& raise) {
  uint64_t entry = table_entry(hash, code);
  for (uint64_t slot = hash;; ++slot) {
    const uint64_t found = raise(slot & static_cast<uint64_t>(slots - 1), entry);
    if (found == 0) return {code, -1};
    const uint64_t smaller = found < entry ? found : entry, larger = found < entry ? entry : found;
    if (smaller >> 32 == larger >> 32) return {code_of_entry(larger), code_of_entry(smaller)};
    entry = smaller;
  }
}

}  // namespace cbtalk::nearest_code
