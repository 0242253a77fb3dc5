#include "cbtalk/nearest_code.h"

#include <cmath>
#include <cstdint>
#include <vector>

#include "check.h"
#include "levels.h"

using namespace cbtalk;

namespace {

// The same numbers everywhere, in (-1, 1).
struct Numbers {
  uint32_t state = 1;
  float next() {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
  }
};

struct Search {
  int64_t N, K, D;
  std::vector<float> z, codebook, centre, panels, scratch, distances, codes;
  std::vector<int32_t> table;
  std::vector<int64_t> indices;

  Search(int64_t rows, int64_t code_count, int64_t dim)
      : N(rows), K(code_count), D(dim), z(N * D), codebook(K * D), centre(D), panels(nearest_code_panel_floats(K, D)),
        scratch(nearest_code_scratch_floats(D)), distances(N), codes(N * D), table(nearest_code_table_size(K)), indices(N) {
    Numbers numbers;
    for (float& value : z) value = numbers.next();
    for (float& value : codebook) value = numbers.next();
  }

  void run(int64_t division) {
    NearestCodeParams p{};
    p.z = {z.data(), Storage::float32, D, 1}, p.codebook = {codebook.data(), Storage::float32, D, 1};
    p.centre = centre.data(), p.table = table.data(), p.panels = panels.data();
    p.indices = indices.data(), p.distances = distances.data(), p.codes = codes.data();
    p.N = N, p.K = K, p.D = D;
    nearest_code_centre()(p, scratch.data());
    nearest_code_pack()(p, scratch.data(), 0, nearest_code_groups(K));
    nearest_code_drop_repeated()(p, scratch.data());
    for (int64_t begin = 0; begin < N; begin += division) {
      nearest_code_search()(p, scratch.data(), begin, begin + division < N ? begin + division : N);
    }
  }

  double distance(int64_t row, int64_t k) const {
    double sum = 0.0;
    for (int64_t d = 0; d < D; ++d) {
      const double difference = static_cast<double>(z[row * D + d]) - static_cast<double>(codebook[k * D + d]);
      sum += difference * difference;
    }
    return sum;
  }

  void check() const {
    for (int64_t row = 0; row < N; ++row) {
      CHECK(indices[row] >= 0 && indices[row] < K);
      const double chosen = distance(row, indices[row]);
      for (int64_t k = 0; k < K; ++k) CHECK(chosen <= distance(row, k) + 1e-5 * static_cast<double>(D));
      CHECK_NEAR(distances[row], chosen, 1e-6 * chosen + 1e-12);
      for (int64_t d = 0; d < D; ++d) CHECK(codes[row * D + d] == codebook[indices[row] * D + d]);
    }
  }
};

void test_sizes() {
  for (const int64_t N : {1, 5, 12, 97}) {
    for (const int64_t K : {1, 2, 31, 32, 33, 100}) {
      for (const int64_t D : {1, 3, 16, 33}) {
        Search search(N, K, D);
        search.run(N);
        search.check();
        const std::vector<int64_t> whole = search.indices;
        search.run(7);
        CHECK(search.indices == whole);
      }
    }
  }
}

// Codes so close that float32 scores have them in the wrong order, and far from the origin.
void test_exact() {
  for (const float offset : {0.0f, 1000.0f}) {
    Search search(97, 4000, 1);
    for (float& value : search.z) value += offset;
    for (float& value : search.codebook) value += offset;
    search.run(search.N);
    for (int64_t row = 0; row < search.N; ++row) {
      const double chosen = search.distance(row, search.indices[row]);
      for (int64_t k = 0; k < search.K; ++k) {
        CHECK(chosen < search.distance(row, k) || (chosen == search.distance(row, k) && search.indices[row] <= k));
      }
    }
  }
}

// Every code twice, the second time at every distance from the first that lanes and panels can make.
void test_duplicates() {
  const int64_t K = 70, D = 5;
  for (int64_t shift = 1; shift < K; ++shift) {
    Search search(40, K, D);
    for (int64_t i = shift * D; i < K * D; ++i) search.codebook[i] = search.codebook[i - shift * D];
    search.run(search.N);
    for (const int64_t index : search.indices) CHECK(index < shift);
  }
}

void test_not_a_number() {
  Search search(30, 50, 4);
  const float nan = std::nanf("");
  search.z[3 * 4 + 1] = nan;
  for (int64_t d = 0; d < 4; ++d) search.codebook[8 * 4 + d] = nan;
  search.run(search.N);
  CHECK(search.indices[3] == 0 && std::isnan(search.distances[3]));
  for (const int64_t index : search.indices) CHECK(index != 8);
}

void test_sort_rows() {
  const std::vector<int64_t> indices{2, 0, 2, 3, 0, 2};
  std::vector<int64_t> order(6), begin(6);
  CHECK(nearest_code_sort_rows(indices.data(), 6, 5, order.data(), begin.data()));
  CHECK((order == std::vector<int64_t>{1, 4, 0, 2, 5, 3}));
  CHECK((begin == std::vector<int64_t>{0, 2, 2, 5, 6, 6}));
  CHECK(!nearest_code_sort_rows(indices.data(), 6, 3, order.data(), begin.data()));
  const std::vector<int64_t> ignored{1, -1, 0, -1};
  CHECK(nearest_code_sort_rows(ignored.data(), 4, 2, order.data(), begin.data()));
  CHECK(order[0] == 2 && order[1] == 0 && begin[1] == 1 && begin[2] == 2);
  const int64_t negative = -2;
  CHECK(!nearest_code_sort_rows(&negative, 1, 3, order.data(), begin.data()));
}

}  // namespace

int main() {
  at_each_level([] {
    test_sizes();
    test_exact();
    test_duplicates();
    test_not_a_number();
  });
  test_sort_rows();
  return 0;
}
