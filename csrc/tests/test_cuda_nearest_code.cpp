// The nearest-code kernels' parts that run on the host as well: keys, the split of 3xTF32, how far its scores can
// be trusted, the hash table of equal codes, sizes.

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include "cbtalk/cuda/nearest_code_doubt.h"
#include "cbtalk/cuda/nearest_code_sizes.h"
#include "cbtalk/cuda/nearest_code_table.h"
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
        CHECK(nearest_key_index(nearest_key(a, i)) == i && score_of(nearest_key_score(nearest_key(a, i))) == a);
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
    CHECK((bits_of(parts.big) & 0x1fffu) == 0 && parts.big + parts.small == x);
    CHECK(std::fabs(static_cast<double>(parts.small)) < std::ldexp(magnitude, -10));
    const double unread = std::fabs(static_cast<double>(parts.small) - truncate_to_tf32(parts.small));
    CHECK(unread <= 3 * std::ldexp(magnitude, -23));
  }
  CHECK(truncate_to_tf32(1.0f + 0x1.ffcp-11f) == 1.0f && truncate_to_tf32(-1.0f - 0x1.ffcp-11f) == -1.0f);
  CHECK(split_float(0.0f).big == 0.0f && split_float(0.0f).small == 0.0f);
  // float16 and bfloat16 have nothing left over.
  CHECK(split_float(65504.0f).small == 0.0f && split_float(0x1.fep100f).small == 0.0f);
  CHECK(std::isnan(split_float(std::nanf("")).big));
  CHECK(std::isinf(split_float(std::numeric_limits<float>::infinity()).big));
}

// Two lanes that meet know the best and the second best of all that they have seen.
void test_nearest() {
  using nearest_code::Nearest;
  const float infinity = std::numeric_limits<float>::infinity(), nan = std::nanf("");
  const std::vector<float> values{-1.0f, 0.0f, 2.0f, infinity, nan};
  for (int choice = 0; choice < 5 * 5 * 5 * 5; ++choice) {
    const float scores[4] = {values[choice % 5], values[choice / 5 % 5], values[choice / 25 % 5], values[choice / 125]};
    Nearest<float> lanes[2];
    std::vector<float> sorted;
    for (int code = 0; code < 4; ++code) {
      lanes[code % 2].take(scores[code], code);
      if (!std::isnan(scores[code])) sorted.push_back(scores[code]);
    }
    sorted.insert(sorted.end(), 2, infinity);
    std::sort(sorted.begin(), sorted.end());
    const auto first = static_cast<int32_t>(std::find(scores, scores + 4, sorted[0]) - scores);
    for (int i = 0; i < 2; ++i) {
      Nearest<float> met = lanes[i];
      met.take(lanes[1 - i]);
      CHECK(met.best == sorted[0] && met.second == sorted[1]);
      CHECK(met.index == (sorted[0] < infinity ? first : 0));
    }
  }
}

// The sum of terms as the worst of tensor cores would have it: each term, and their sum, cut to 24 bits of the largest.
double truncated_sum(std::vector<double> terms) {
  double largest = 0.0, sum = 0.0;
  for (const double term : terms) largest = std::max(largest, std::fabs(term));
  if (largest == 0.0) return 0.0;
  const double unit = std::ldexp(1.0, std::ilogb(largest) - 23);
  for (const double term : terms) sum += std::trunc(term / unit) * unit;
  const double sum_unit = std::ldexp(1.0, std::ilogb(sum == 0.0 ? largest : sum) - 23);
  return std::trunc(sum / sum_unit) * sum_unit;
}

// |e|^2 - 2 z.e as the search computes it.
float score_of_search(const std::vector<float>& z, const std::vector<float>& e) {
  float product = 0.0f;
  for (size_t first = 0; first < z.size(); first += 8) {
    double part = 0.0;
    for (int product_of = 0; product_of < 3; ++product_of) {
      for (size_t half = first; half < first + 8; half += 4) {
        std::vector<double> terms{part};
        for (size_t d = half; d < half + 4; ++d) {
          const SplitFloat zs = split_float(z[d]), es = split_float(e[d]);
          const double z_part = truncate_to_tf32(product_of == 0 ? zs.small : zs.big);
          terms.push_back(z_part * truncate_to_tf32(product_of == 1 ? es.small : es.big));
        }
        part = truncated_sum(terms);
      }
    }
    product += static_cast<float>(part);
  }
  float norms[32] = {};
  for (size_t d = 0; d < e.size(); ++d) norms[d % 32] = std::fma(e[d], e[d], norms[d % 32]);
  for (int lanes = 16; lanes > 0; lanes /= 2) {
    for (int lane = 0; lane < lanes; ++lane) norms[lane] += norms[lane + lanes];
  }
  return std::fma(-2.0f, product, norms[0]);
}

double length_of(const std::vector<float>& x) {
  double sum = 0.0;
  for (const float element : x) sum += static_cast<double>(element) * element;
  return std::sqrt(sum);
}

// Distance of a score of the search from the exact one, as a share of half of what gap_in_doubt says of two.
double share_of_doubt(const std::vector<float>& z, const std::vector<float>& e) {
  double exact = 0.0;
  for (size_t d = 0; d < z.size(); ++d) exact += static_cast<double>(e[d]) * (static_cast<double>(e[d]) - 2.0 * z[d]);
  const float gap = nearest_code::gap_in_doubt(static_cast<float>(length_of(z)), static_cast<float>(length_of(e)),
                                               static_cast<int64_t>(z.size()));
  return std::fabs(score_of_search(z, e) - exact) / (0.5 * gap);
}

// A score is as near as gap_in_doubt says. Elements lie in [least, 1) * scale.
void check_scores(int D, float least, float z_scale, float e_scale) {
  uint32_t state = 7;
  const auto next = [&state, least] {
    state = state * 1664525u + 1013904223u;
    return least + (1.0f - least) * static_cast<float>(state >> 8) / 16777216.0f;
  };
  for (int row = 0; row < 50; ++row) {
    std::vector<float> z(static_cast<size_t>(D)), e(static_cast<size_t>(D));
    for (int d = 0; d < D; ++d) z[d] = z_scale * next(), e[d] = e_scale * next();
    CHECK(share_of_doubt(z, e) <= 1.0);
  }
}

// The first 11 bits of each element leave out as much as they can, and all products but the first of eight are so small
// that tensor cores truncate most of them. A bound narrower by 26 % is too narrow; that of a split by rounding was.
void check_worst_score() {
  constexpr float kRest = 0x1.fffp-11f;
  std::vector<float> z(8, 0x1.68p-12f * (1.0f + kRest)), e(8, 0x1.68p-22f * (1.0f + kRest));
  z[0] = 1.0f + 0x1p-10f + kRest;
  e[0] = 0x1p-10f * (1.0f + 0x3p-10f + kRest);
  const double share = share_of_doubt(z, e);
  CHECK(share <= 1.0 && share > 0.745);
}

void test_doubt() {
  for (const int D : {16, 32, 256}) {
    for (const float least : {-1.0f, 0.0f, 0.9f}) {
      check_scores(D, least, 1.0f, 1.0f);
      check_scores(D, least, 1.0f, 1e-3f);
      check_scores(D, least, 1e-3f, 1.0f);
      check_scores(D, least, 1e-22f, 1e-22f);  // the products are no normal numbers
    }
  }
  check_worst_score();
  const float infinity = std::numeric_limits<float>::infinity();
  for (const float length : {infinity, std::nanf("")}) {
    CHECK(!(infinity > nearest_code::gap_in_doubt(length, 1.0f, 8)));
    CHECK(!(infinity > nearest_code::gap_in_doubt(1.0f, length, 8)));
  }
  CHECK(nearest_code::gap_in_doubt(1.0f, 1.0f, 256) < 3e-5f);  // or more than a few rows would be searched again
}

void test_mix() {
  using nearest_code::mix;
  CHECK(mix(-0.0f, 5) == mix(0.0f, 5));
  std::vector<uint32_t> hashes;
  for (uint32_t column = 0; column < 300; ++column) {
    for (const float element : {0.0f, 1.0f, -1.0f, 1.0f + 0x1p-23f, 0x1p-149f}) hashes.push_back(mix(element, column));
  }
  std::sort(hashes.begin(), hashes.end());
  CHECK(std::adjacent_find(hashes.begin(), hashes.end()) == hashes.end());
}

// The table that codes of these hashes leave, entered in this order; `later` collects those that came after another.
std::vector<uint64_t> table_of(const std::vector<uint32_t>& hashes, const std::vector<int32_t>& order,
                               std::vector<int32_t>& later) {
  using namespace nearest_code;
  std::vector<uint64_t> table(static_cast<size_t>(table_slots(static_cast<int64_t>(hashes.size()))));
  const auto raise = [&table](uint64_t slot, uint64_t entry) {
    const uint64_t found = table[slot];
    table[slot] = std::max(found, entry);
    return found;
  };
  for (const int32_t code : order) {
    const SameHash met = enter(hashes[code], code, static_cast<int64_t>(table.size()), raise);
    if (met.later < 0) continue;
    CHECK(met.first < met.later && hashes[met.first] == hashes[met.later]);
    later.push_back(met.later);
  }
  std::sort(later.begin(), later.end());
  return table;
}

// All codes but the first of each hash are found, in whatever order they are entered and wherever their slots lie.
void test_table() {
  const uint32_t all_bits = std::numeric_limits<uint32_t>::max();
  const std::vector<std::vector<uint32_t>> cases{
      {0, 0, 0, 0, 0},
      {all_bits, all_bits, 0, 0, all_bits - 1},                  // from the last slot to the first
      {7, 7 + 16, 7 + 32, 7, 7 + 16, 8, 8, 9, 7 + 32, 7 + 48},  // one slot for several hashes
      {1, 2, 3, 4, 5, 6, 7},
      {3},
  };
  for (const std::vector<uint32_t>& hashes : cases) {
    std::vector<int32_t> order, expected;
    for (size_t code = 0; code < hashes.size(); ++code) {
      order.push_back(static_cast<int32_t>(code));
      if (std::find(hashes.begin(), hashes.begin() + static_cast<int64_t>(code), hashes[code]) !=
          hashes.begin() + static_cast<int64_t>(code)) {
        expected.push_back(static_cast<int32_t>(code));
      }
    }
    std::vector<int32_t> first_later;
    const std::vector<uint64_t> first_table = table_of(hashes, order, first_later);
    CHECK(first_later == expected);
    for (int permutation = 0; permutation < 2000 && std::next_permutation(order.begin(), order.end()); ++permutation) {
      std::vector<int32_t> later;
      CHECK(table_of(hashes, order, later) == first_table);
      CHECK(later == expected);
    }
  }
}

void test_sizes() {
  using namespace nearest_code;
  static_assert(panels(1) == 1 && panels(128) == 1 && panels(129) == 2);
  static_assert(padded_depth(1) == 16 && padded_depth(16) == 16 && padded_depth(17) == 32);
  static_assert(table_slots(1) == 2 && table_slots(2) == 4 && table_slots(1024) == 2048 && table_slots(1025) == 4096);
  static_assert(splits(1, 16384, 1024) == 1 && splits(1, 1024, 1024) == 8 && splits(1, 1, 100) == 1);
  static_assert(splits(4, 1024, 1024) == 4 && splits(1000, 1, 1024) == 1);
  static_assert(splits(1, 1, int64_t{1} << 30) == kBlocksWanted);
  static_assert(winner_blocks(1) == 1 && winner_blocks(int64_t{1} << 33) == 1024);
  static_assert(chunks(64) == 1 && chunks(65) == 2);
  static_assert(key_bytes(1, 1 << 15) == 2 && key_bytes(1, (1 << 15) + 1) == 4 && key_bytes(64, 1024) == 4);
  static_assert(workspace_bytes(1, 1, 1, 1) == 2 * 8 + 128 * 4 + 16 + 16 + 128 * 16 * 4);
  static_assert(workspace_bytes(1, int64_t{1} << 40, int64_t{1} << 30, 1024) > int64_t{1} << 41);
  for (const int64_t H : {1, 3, 4, 8}) {
    for (const int64_t N : {1, 8, 9, 100, 8191, 8192, 100000}) {
      CHECK(partial_bytes(H, N) % 16 == 0);
      for (const int64_t K : {1, 127, 128, 1024, 5000}) {
        CHECK(zero_bytes(H, K) % 16 == 0);
        const int64_t count = splits(H, N, K);
        CHECK(count >= 1 && count <= panels(K));
        CHECK(count == 1 || H * count * ceil_div(N, kRowTile) <= kBlocksWanted);
        // The shares of the blocks follow on one another, and none is empty.
        for (int64_t y = 0; y < count; ++y) CHECK(panels(K) * y / count < panels(K) * (y + 1) / count);
      }
    }
  }
}

}  // namespace

int main() {
  test_keys();
  test_split();
  test_nearest();
  test_doubt();
  test_mix();
  test_table();
  test_sizes();
  return 0;
}
