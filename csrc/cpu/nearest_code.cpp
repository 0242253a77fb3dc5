#include "cbtalk/nearest_code.h"

#include "cbtalk/nearest_code_doubt.h"
#include "float32_rows.h"
#include "nearest_code_panels.h"

// The search is a matrix product that never stores its result. Score = |e|^2 - 2 z.e, with rows and codes given from a
// centre amid the codes; a tile of kRows rows times kPanel codes is accumulated in registers, starting from |e|^2, over
// a codebook packed as -2e. What is kept of it is, for each row and each lane, the smallest score, its code, and the
// smallest score of the other codes. Lanes meet only once a row, at the end; where the best score is not ahead of all
// others by more than the rounding, the codes that may be the nearest are compared in float64.
//
// packed codebook: that of nearest_code_panels.h
// packed rows:     tile after tile, each z as (D, kRows)

namespace cbtalk::CBTALK_ISA {
namespace {

// As many accumulators (kRows * kVectors) as leave registers for the codes and the broadcast row element: of 32 or 16.
constexpr int kRows = kWidth == 16 ? 12 : 6;
static_assert(kNearestCodeRowBlock % kRows == 0);

// The state of a row block while its panels go by; each (rows, kWidth).
struct Best {
  float* score;
  float* second;  // the smallest score of all other codes of the lane
  int32_t* index;

  Best of(int64_t row) const { return {score + row * kWidth, second + row * kWidth, index + row * kWidth}; }
};

// Packs the rows of z that row_of (count,) numbers, and gives their lengths.
void pack_rows(const NearestCodeParams& p, const int64_t* row_of, int64_t count, float* packed, float* lengths,
               float* scratch) {
  constexpr int kParts = (kRows + kWidth - 1) / kWidth;
  for (int64_t tile = 0; tile < count; tile += kRows, packed += kRows * p.D) {
    for (int64_t row = 0; row < kRows; ++row) {
      // The last tile is filled up with copies of the last row; nothing is kept of them.
      const int64_t place = tile + row < count ? tile + row : count - 1;
      const float* z = float32_row(p.z, row_of[place], p.D, scratch);
      for (int64_t d = 0; d < p.D; ++d) packed[d * kRows + row] = z[d] - p.centre[d];
    }
    Vf squares[kParts] = {};
    for (int64_t d = 0; d < p.D; ++d) {
      for (int part = 0; part < kParts; ++part) {
        // The scratch memory behind the kRows elements is summed in lanes that nobody reads.
        const Vf elements = load(packed + d * kRows + part * kWidth);
        squares[part] = fma(elements, elements, squares[part]);
      }
    }
    for (int64_t row = 0; row < kRows && tile + row < count; ++row) {
      lengths[tile + row] = __builtin_sqrtf(squares[row / kWidth][row % kWidth]);
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
      // Of a score and a NaN, in this order, max gives the NaN, and min then passes it over.
      second = min(max(best_score, score[row][v]), second);
      best_score = min(score[row][v], best_score);
      best_index = select(nearer, iota() + (first + v * kWidth), best_index);
    }
    store(best.score + row * kWidth, best_score);
    store(best.second + row * kWidth, second);
    store(best.index + row * kWidth, best_index);
  }
}

// The code of the smallest score of a row, that score, and the smallest score of all other codes.
struct Winner {
  int32_t index;
  float score, second;
};

// The tie rule of ordering.h, lanes against lanes: of the smallest scores the smallest index.
Winner winner_of(Best best) {
  const Vf scores = load(best.score), seconds = load(best.second);
  const Vi indices = load(best.index);
  const float score = reduce_min(scores);
  const Vi tied = scores == broadcast(score);
  const int32_t index = reduce_min(select(tied, indices, broadcast(INT32_MAX)));
  const Vi won = tied & (indices == broadcast(index));
  return {index, score, reduce_min(select(won, seconds, scores))};
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
  const Winner winner = winner_of(best);
  int32_t index = winner.index;
  const float* code = float32_row(p.codebook, index, p.D, scratch + p.D);
  float distance = squared_distance(z, code, p.D);
  if (length == length) {  // a row with a NaN keeps index 0
    const float reach = length + __builtin_sqrtf(distance);
    const float bound = winner.score + nearest_code_gap(length, reach < longest ? reach : longest, p.D);
    if (!(winner.second > bound)) {
      index = settle(p, z, packed, bound, scratch + p.D);
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
    const float norm = *packed_element(p, k, -1);
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

}  // namespace

void nearest_code_search(const NearestCodeParams& params, float* scratch, int64_t begin, int64_t end) {
  const float longest = longest_code(params);
  for (int64_t row = begin; row < end; row += kNearestCodeRowBlock) {
    const int64_t block_end = row + kNearestCodeRowBlock < end ? row + kNearestCodeRowBlock : end;
    search_block(params, longest, scratch, row, block_end);
  }
}

}  // namespace cbtalk::CBTALK_ISA
