#pragma once

#include <cmath>
#include <cstdint>

#include "cbtalk/host_device.h"
#include "cbtalk/ordering.h"

// The codes that the search on a GPU keeps, and the cases in which float32 cannot tell the nearest of them.

namespace cbtalk::nearest_code {

template <class Score>
struct Nearest {
  Score best = INFINITY;
  Score second = INFINITY;  // the smallest score of all other codes
  int32_t index = 0;        // of the best

  // Codes come in ascending order, so that strictly less keeps the smallest index of equals. A NaN is not less.
  CBTALK_HOST_DEVICE void take(Score score, int32_t code) {
    const bool nearer = score < best;
    second = fmin(second, nearer ? best : score);
    best = nearer ? score : best;
    index = nearer ? code : index;
  }

  // The nearest of codes that `this` has not seen, in any order.
  CBTALK_HOST_DEVICE void take(const Nearest& other) {
    const bool nearer = is_nearer(other.best, other.index, best, index);
    second = fmin(fmin(second, other.second), nearer ? best : other.best);
    best = nearer ? other.best : best;
    index = nearer ? other.index : index;
  }
};

// Two scores |e|^2 - 2 z.e of the search that are further apart than this are in the right order. With u = 2^-24, z.e
// errs by at most (D / 8 + 54) u |z| |e|:
//   28 u for what is left out. z = z1 + z2 + z3, the first 11 bits, the next that tensor cores read, again 11, and the
//     last, at most 3 * 2^-23 |z|; e likewise. Missing are z1 e3 and z3 e1, 6 u each, and (z2 + z3) (e2 + e3), below
//     2^-20 |z| |e| or 16 u. All may have one sign.
//   24 u for steps of 8 columns, in which tensor cores may truncate every addend and every sum to 24 bits of the
//     largest: at most twice four addends and a sum, 2 u each, and a little for the products of the parts that follow.
//   (D / 8 + 2) u for the float32 sums of the steps.
// |e|^2 errs by (D / 32 + 6) u of itself, and the score by u for being joined. Here is twice that, for two scores;
// 0.3 D instead of D / 4 and 114 instead of 110 cover products of errors, and what is added to the lengths whatever
// underflows. An infinity or a NaN leaves every order open.
CBTALK_HOST_DEVICE static inline float gap_in_doubt(float z_length, float e_length, int64_t D) {
  constexpr float kTiny = 0x1p-40f;
  z_length += kTiny, e_length += kTiny;
  return 0x1p-23f * (0.3f * static_cast<float>(D) + 114.0f) * e_length * (z_length + 0.125f * e_length);
}

}  // namespace cbtalk::nearest_code
