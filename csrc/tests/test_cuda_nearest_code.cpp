// What the nearest-code kernels for a GPU compute on the host as well: keys, the split of 3xTF32, sizes.

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cbtalk/cuda/nearest_code_sizes.h"
#include "cbtalk/ordering.h"
#include "cbtalk/tf32.h"
#include "check.h"

using namespace cbtalk;

namespace {

uint32_t bits_of(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}

float float_of(uint32_t bits) {
  float x;
  memcpy(&x, &bits, sizeof(x));
  return x;
}

// Keys compare as is_nearer does, and give the index back.
void test_keys() {
  const float infinity = std::numeric_limits<float>::infinity();
  const float tiny = std::numeric_limits<float>::denorm_min(), most = std::numeric_limits<float>::max();
  const std::vector<float> scores{-infinity, -most, -1.5f, -tiny, -0.0f, 0.0f, tiny, 1e-20f, 1.0f, 1.5f, most, infinity};
  const std::vector<int32_t> indices{0, 1, 65536, std::numeric_limits<int32_t>::max()};
  for (const float a : scores) {
    for (const float b : scores) {
      for (const int32_t i : indices) {
        CHECK(nearest_key_index(nearest_key(a, i)) == i);
        for (const int32_t j : indices) {
          CHECK((nearest_key(a, i) < nearest_key(b, j)) == is_nearer(a, i, b, j));
        }
      }
    }
  }
  CHECK(nearest_key(infinity, indices.back()) < std::numeric_limits<uint64_t>::max());  // what a search starts from
}

void test_split() {
  uint32_t state = 1;
  for (int i = 0; i < 200000; ++i) {
    state = state * 1664525u + 1013904223u;
    // Exponents at which neither part leaves the range of normal numbers.
    const uint32_t exponent = 30 + (state >> 8) % 200;
    const float x = float_of((state & 0x807fffffu) | (exponent << 23));
    const SplitFloat parts = split_float(x);
    const double magnitude = std::fabs(static_cast<double>(x));
    CHECK((bits_of(parts.big) & 0x1fffu) == 0 && (bits_of(parts.small) & 0x1fffu) == 0);
    CHECK(std::fabs(static_cast<double>(x) - parts.big) <= std::ldexp(magnitude, -11));
    CHECK(std::fabs(static_cast<double>(x) - parts.big - parts.small) <= std::ldexp(magnitude, -22));
  }
  CHECK(round_to_tf32(1.0f + 0x1p-11f) == 1.0f + 0x1p-10f);  // half way: away from zero
  CHECK(round_to_tf32(-1.0f - 0x1p-11f) == -1.0f - 0x1p-10f);
  CHECK(round_to_tf32(1.0f + 0x1p-12f) == 1.0f);
  CHECK(split_float(0.0f).big == 0.0f && split_float(0.0f).small == 0.0f);
  // float16 and bfloat16 have nothing left over.
  CHECK(split_float(65504.0f).small == 0.0f && split_float(0x1.fep100f).small == 0.0f);
  CHECK(std::isnan(split_float(std::nanf("")).big));
  CHECK(std::isinf(split_float(std::numeric_limits<float>::infinity()).big));
}

// A product of split rows is as near to the exact one as the kernels' bound says.
void test_product_of_split_numbers() {
  uint32_t state = 7;
  const auto next = [&state] {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
  };
  for (int row = 0; row < 200; ++row) {
    double exact = 0.0, split = 0.0, z_length = 0.0, e_length = 0.0;
    for (int d = 0; d < 256; ++d) {
      const float z = next(), e = next();
      const SplitFloat zs = split_float(z), es = split_float(e);
      exact += static_cast<double>(z) * e;
      split += static_cast<double>(zs.small) * es.big + static_cast<double>(zs.big) * es.small +
               static_cast<double>(zs.big) * es.big;
      z_length += static_cast<double>(z) * z;
      e_length += static_cast<double>(e) * e;
    }
    CHECK_NEAR(split, exact, 3 * 0x1p-22 * std::sqrt(z_length * e_length));
  }
}

void test_sizes() {
  using namespace nearest_code;
  static_assert(panels(1) == 1 && panels(128) == 1 && panels(129) == 2);
  static_assert(padded_depth(1) == 16 && padded_depth(16) == 16 && padded_depth(17) == 32);
  static_assert(splits(16384, 1024) == 1 && splits(1024, 1024) == 8 && splits(1, 100) == 1);
  static_assert(splits(1, int64_t{1} << 30) == kBlocksWanted);
  static_assert(winner_blocks(1) == 1 && winner_blocks(int64_t{1} << 33) == 1024);
  static_assert(chunks(64) == 1 && chunks(65) == 2);
  static_assert(workspace_bytes(1, 1, 1) == 16 + 128 * 17 * 4);
  static_assert(workspace_bytes(int64_t{1} << 40, int64_t{1} << 30, 1024) > int64_t{1} << 41);
  for (const int64_t N : {1, 8, 9, 100, 8191, 8192, 100000}) {
    CHECK(partial_bytes(N) % 16 == 0 && partial_bytes(N) >= 8 * winner_blocks(N));
    for (const int64_t K : {1, 127, 128, 1024, 5000}) {
      const int64_t count = splits(N, K);
      CHECK(count >= 1 && count <= panels(K));
      CHECK(count == 1 || count * ceil_div(N, kRowTile) <= kBlocksWanted);
      // The shares of the blocks follow on one another, and none is empty.
      for (int64_t y = 0; y < count; ++y) CHECK(panels(K) * y / count < panels(K) * (y + 1) / count);
    }
  }
}

}  // namespace

int main() {
  test_keys();
  test_split();
  test_product_of_split_numbers();
  test_sizes();
  return 0;
}
