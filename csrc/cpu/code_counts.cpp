#include "cbtalk/nearest_code.h"

// Counts over the indices of a nearest-code search: one thread, a few nanoseconds a row.

namespace cbtalk {

bool nearest_code_sort_rows(const int64_t* indices, int64_t N, int64_t K, int64_t* row_order, int64_t* code_begin) {
  for (int64_t k = 0; k <= K; ++k) code_begin[k] = 0;
  for (int64_t row = 0; row < N; ++row) {
    if (indices[row] < -1 || indices[row] >= K) return false;
    if (indices[row] >= 0) ++code_begin[indices[row]];
  }
  int64_t total = 0;
  for (int64_t k = 0; k <= K; ++k) code_begin[k] = total += code_begin[k];
  // Each code_begin[k] is where code k ends; going backwards, every row moves it one down, to where code k begins.
  for (int64_t row = N - 1; row >= 0; --row) {
    if (indices[row] >= 0) row_order[--code_begin[indices[row]]] = row;
  }
  return true;
}

double nearest_code_tally(const int64_t* indices, const float* distances, int64_t N, int64_t K, int64_t* counts) {
  for (int64_t k = 0; k < K; ++k) counts[k] = 0;
  double total = 0.0;
  for (int64_t row = 0; row < N; ++row) {
    if (indices[row] >= 0) ++counts[indices[row]];
    total += static_cast<double>(distances[row]);
  }
  return total;
}

}  // namespace cbtalk
