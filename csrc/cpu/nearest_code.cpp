#include "cbtalk/nearest_code.h"

#include "cbtalk/nearest_code_doubt.h"
#include "cbtalk/ordering.h"
#include "float32_rows.h"

// The search is a matrix product that never stores its result. Score = |e|^2 - 2 z.e, with rows and codes given from a
// centre amid the codes; a tile of kRows rows times kPanel codes is accumulated in registers, starting from |e|^2, over
// a codebook packed as -2e. What is kept of it is, for each row and each lane, the smallest score, its code, and the
// smallest score of the other codes. Lanes meet only once a row, at the end; where the best score is not ahead of all
// others by more than the rounding, the codes that may be the nearest are compared in float64.
//
// packed codebook: panel after panel, each |e|^2 (kPanel) and then -2e as (D, kPanel)
// packed rows:     tile after tile, each z as (D, kRows)

namespace cbtalk::CBTALK_ISA {
namespace {

constexpr int kVectors = 2;
constexpr int kPanel = kVectors * kWidth;
// As many accumulators (kRows * kVectors) as leave registers for the codes and the broadcast row element: of 32 or 16.
constexpr int kRows = kWidth == 16 ? 12 : 6;
static_assert(kNearestCodeGroup % kPanel == 0 && kNearestCodeRowBlock % kRows == 0);

// What is known of a row block while its panels go by; each (rows, kWidth).
struct Best {
  float* score;
  float* second;  // the smallest score of all other codes of the lane
  int32_t* index;

  Best of(int64_t row) const { return {score + row * kWidth, second + row * kWidth, index + row * kWidth}; }
};

// centred (D,) = row - centre; returns its length.
float subtract_centre(const float* row, const float* centre, int64_t D, float* centred) {
  Vf squares = broadcast(0.0f);
  int64_t d = 0;
  for (; d + kWidth <= D; d += kWidth) {
    const Vf difference = load(row + d) - load(centre + d);
    store(centred + d, difference);
    squares = fma(difference, difference, squares);
  }
  float rest = 0.0f;
  for (; d < D; ++d) {
    centred[d] = row[d] - centre[d];
    rest = fma(centred[d], centred[d], rest);
  }
  return __builtin_sqrtf(reduce_add(squares) + rest);
}

// Packs the rows of z that row_of (count,) numbers, and gives their lengths.
void pack_rows(const NearestCodeParams& p, const int64_t* row_of, int64_t count, float* packed, float* lengths,
               float* scratch) {
  float* centred = scratch + p.D;
  for (int64_t tile = 0; tile < count; tile += kRows, packed += kRows * p.D) {
    for (int64_t row = 0; row < kRows; ++row) {
      // The last tile is filled up with copies of the last row; nothing is kept of them.
      const int64_t place = tile + row < count ? tile + row : count - 1;
      const float* z = float32_row(p.z, row_of[place], p.D, scratch);
      lengths[place] = subtract_centre(z, p.centre, p.D, centred);
      for (int64_t d = 0; d < p.D; ++d) packed[d * kRows + row] = centred[d];
    }
  }
}

// z (D, kRows) against panel (1 + D, kPanel), whose first code is `first`; best is that of the tile's first row.
inline void search_tile(const float* z, const float* panel, int64_t D, int32_t first, Best best) {
  Vf score[kRows][kVectors];
#pragma GCC unroll 16
  for (int row = 0; row < kRows; ++row) {
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) score[row][v] = load(panel + v * kWidth);
  }
  for (int64_t d = 0; d < D; ++d) {
    panel += kPanel;
    const Vf code[kVectors] = {load(panel), load(panel + kWidth)};
#pragma GCC unroll 16
    for (int row = 0; row < kRows; ++row) {
      const Vf element = broadcast(z[d * kRows + row]);
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) score[row][v] = fma(element, code[v], score[row][v]);
    }
  }
#pragma GCC unroll 16
  for (int row = 0; row < kRows; ++row) {
    Vf best_score = load(best.score + row * kWidth);
    Vf second = load(best.second + row * kWidth);
    Vi best_index = load(best.index + row * kWidth);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      // Codes come in ascending order, so that strictly less keeps the smallest index of equals.
      const Vi nearer = score[row][v] < best_score;
      second = min(select(nearer, best_score, score[row][v]), second);  // min passes a NaN over
      best_score = select(nearer, score[row][v], best_score);
      best_index = select(nearer, iota() + (first + v * kWidth), best_index);
    }
    store(best.score + row * kWidth, best_score);
    store(best.second + row * kWidth, second);
    store(best.index + row * kWidth, best_index);
  }
}

// The best of a row: its lane.
int nearest_lane(const float* score, const int32_t* index) {
  int lane = 0;
  for (int other = 1; other < kWidth; ++other) {
    if (is_nearer(score[other], index[other], score[lane], index[lane])) lane = other;
  }
  return lane;
}

// Whether a score of the row but that of its best code, in `lane`, is at most `bound`.
bool has_rival(Best best, int lane, float bound) {
  best.score[lane] = __builtin_inff();
  const Vf smallest = min(load(best.score), load(best.second));
  return reduce_min(smallest) <= bound;
}

double exact_distance(const float* z, const float* code, int64_t D) {
  double sum = 0.0;
  for (int64_t d = 0; d < D; ++d) {
    const double difference = static_cast<double>(z[d]) - static_cast<double>(code[d]);
    sum += difference * difference;
  }
  return sum;
}

// Of the codes whose scores are at most `bound`, and of those without a number for one, the nearest in float64.
// z is the row, packed its column in a packed tile.
int32_t settle(const NearestCodeParams& p, const float* z, const float* packed, float bound, float* scratch) {
  double best = __builtin_inf();
  int32_t index = 0;
  for (int64_t first = 0; first < p.K; first += kPanel) {
    const float* panel = p.panels + first * (p.D + 1);
    Vf score[kVectors] = {load(panel), load(panel + kWidth)};
    for (int64_t d = 0; d < p.D; ++d) {
      panel += kPanel;
      const Vf element = broadcast(packed[d * kRows]);
      for (int v = 0; v < kVectors; ++v) score[v] = fma(element, load(panel + v * kWidth), score[v]);
    }
    for (int lane = 0; lane < kPanel && first + lane < p.K; ++lane) {
      if (score[lane / kWidth][lane % kWidth] > bound) continue;
      const int32_t k = static_cast<int32_t>(first) + lane;
      const double distance = exact_distance(z, float32_row(p.codebook, k, p.D, scratch), p.D);
      if (distance < best) best = distance, index = k;
    }
  }
  return index;
}

// Directly, as sum (z - e)^2, in 16 interleaved sums at every level.
float squared_distance(const float* z, const float* code, int64_t D) {
  constexpr int kSums = 16;
  float sums[kSums] = {};
  int64_t d = 0;
  for (; d + kSums <= D; d += kSums) {
    for (int lane = 0; lane < kSums; ++lane) {
      const float difference = z[d + lane] - code[d + lane];
      sums[lane] += difference * difference;
    }
  }
  for (int lane = 0; d < D; ++d, ++lane) {
    const float difference = z[d] - code[d];
    sums[lane] += difference * difference;
  }
#pragma GCC unroll 4
  for (int half = kSums / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

// Settles which code is the row's, and writes what is made of it. packed is the row's column in a packed tile.
void finish_row(const NearestCodeParams& p, int64_t row, const float* packed, float length, float longest, Best best,
                float* scratch) {
  const float* z = float32_row(p.z, row, p.D, scratch);
  const int lane = nearest_lane(best.score, best.index);
  const float score = best.score[lane];
  int32_t index = best.index[lane];
  const float* code = float32_row(p.codebook, index, p.D, scratch + p.D);
  float distance = squared_distance(z, code, p.D);
  if (length == length) {  // a row with a NaN keeps index 0
    const float reach = length + __builtin_sqrtf(distance);
    const float bound = score + nearest_code_gap(length, reach < longest ? reach : longest, p.D);
    if (!(bound < __builtin_inff()) || has_rival(best, lane, bound)) {
      index = settle(p, z, packed, bound < __builtin_inff() ? bound : __builtin_inff(), scratch + p.D);
      code = float32_row(p.codebook, index, p.D, scratch + p.D);
      distance = squared_distance(z, code, p.D);
    }
  }
  p.indices[row] = index;
  p.distances[row] = distance;
  if (p.codes != nullptr) store_row(code, p.codes, p.z.storage, row, p.D);
  if (p.rows != nullptr) store_row(code, p.rows, p.codebook.storage, row, p.D);
}

void ignore_row(const NearestCodeParams& p, int64_t row, float* scratch) {
  p.indices[row] = -1;
  p.distances[row] = 0.0f;
  for (int64_t d = 0; d < p.D; ++d) scratch[d] = 0.0f;
  if (p.codes != nullptr) store_row(scratch, p.codes, p.z.storage, row, p.D);
  if (p.rows != nullptr) store_row(scratch, p.rows, p.codebook.storage, row, p.D);
}

// The length of the longest code that is a number.
float longest_code(const NearestCodeParams& p) {
  float squared = 0.0f;
  for (int64_t k = 0; k < p.K; ++k) {
    const float norm = p.panels[k / kPanel * kPanel * (p.D + 1) + k % kPanel];
    if (norm > squared) squared = norm;
  }
  return __builtin_sqrtf(squared);
}

void search_block(const NearestCodeParams& p, float longest, float* scratch, int64_t begin, int64_t end) {
  float* packed = scratch;  // (tiles, D, kRows)
  Best best;
  best.score = packed + kNearestCodeRowBlock * p.D;
  best.second = best.score + kNearestCodeRowBlock * kWidth;
  best.index = reinterpret_cast<int32_t*>(best.second + kNearestCodeRowBlock * kWidth);
  float* row_scratch = best.score + 3 * kNearestCodeRowBlock * kNearestCodeGroup;
  float lengths[kNearestCodeRowBlock];
  int64_t row_of[kNearestCodeRowBlock], count = 0;
  for (int64_t row = begin; row < end; ++row) {
    if (p.ignored != nullptr && p.ignored[row]) {
      ignore_row(p, row, row_scratch);
    } else {
      row_of[count++] = row;
    }
  }
  pack_rows(p, row_of, count, packed, lengths, row_scratch);
  for (int64_t i = 0; i < kNearestCodeRowBlock * kWidth; ++i) {
    best.score[i] = best.second[i] = __builtin_inff();
    best.index[i] = 0;
  }
  // A panel stays in the first-level cache while the rows of the block go by.
  for (int64_t first = 0; first < p.K; first += kPanel) {
    const float* panel = p.panels + first * (p.D + 1);
    for (int64_t row = 0; row < count; row += kRows) {
      search_tile(packed + row * p.D, panel, p.D, static_cast<int32_t>(first), best.of(row));
    }
  }
  for (int64_t row = 0; row < count; ++row) {
    const float* column = packed + row / kRows * kRows * p.D + row % kRows;
    finish_row(p, row_of[row], column, lengths[row], longest, best.of(row), row_scratch);
  }
}

void pack_panel(const NearestCodeParams& p, int64_t first, float* panel, float* scratch) {
  double norm[kPanel] = {};
  for (int64_t lane = 0; lane < kPanel; ++lane) {
    const bool exists = first + lane < p.K;
    const float* code = exists ? float32_row(p.codebook, first + lane, p.D, scratch) : nullptr;
    for (int64_t d = 0; d < p.D; ++d) panel[(1 + d) * kPanel + lane] = exists ? -2.0f * (code[d] - p.centre[d]) : 0.0f;
  }
  for (int64_t d = 0; d < p.D; ++d) {
    const float* elements = panel + (1 + d) * kPanel;  // -2e, exact
    for (int64_t lane = 0; lane < kPanel; ++lane) {
      norm[lane] += 0.25 * static_cast<double>(elements[lane]) * static_cast<double>(elements[lane]);
    }
  }
  // What fills up the last panel is never nearer than anything.
  for (int64_t lane = 0; lane < kPanel; ++lane) {
    panel[lane] = first + lane < p.K ? static_cast<float>(norm[lane]) : __builtin_inff();
  }
}

}  // namespace

void nearest_code_centre(const NearestCodeParams& params, float* scratch) {
  // The mean of some of the codes: any point amid them will do.
  constexpr int64_t kSamples = 64;
  const auto& p = params;
  double* sum = reinterpret_cast<double*>(scratch);  // (D,)
  for (int64_t d = 0; d < p.D; ++d) sum[d] = 0.0;
  int64_t count = 0;
  for (int64_t k = 0; k < p.K; k += p.K / kSamples + 1) {
    const float* code = float32_row(p.codebook, k, p.D, scratch + 2 * p.D);
    float finite = 0.0f;  // and NaN where an element is not
    for (int64_t d = 0; d < p.D; ++d) finite += 0.0f * code[d];
    if (finite != 0.0f) continue;
    for (int64_t d = 0; d < p.D; ++d) sum[d] += static_cast<double>(code[d]);
    ++count;
  }
  for (int64_t d = 0; d < p.D; ++d) p.centre[d] = count == 0 ? 0.0f : static_cast<float>(sum[d] / count);
}

void nearest_code_pack(const NearestCodeParams& params, float* scratch, int64_t begin, int64_t end) {
  for (int64_t first = begin * kNearestCodeGroup; first < end * kNearestCodeGroup; first += kPanel) {
    pack_panel(params, first, params.panels + first * (params.D + 1), scratch);
  }
}

void nearest_code_search(const NearestCodeParams& params, float* scratch, int64_t begin, int64_t end) {
  const float longest = longest_code(params);
  for (int64_t row = begin; row < end; row += kNearestCodeRowBlock) {
    const int64_t block_end = row + kNearestCodeRowBlock < end ? row + kNearestCodeRowBlock : end;
    search_block(params, longest, scratch, row, block_end);
  }
}

}  // namespace cbtalk::CBTALK_ISA
