#include "cbtalk/nearest_code.h"

#include "cbtalk/ordering.h"
#include "float32_rows.h"

// The search is a matrix product that never stores its result. Score = |e|^2 - 2 z.e; a tile of kRows rows times
// kPanel codes is accumulated in registers, starting from |e|^2, over a codebook packed as -2e. What is kept of it is,
// for each row and each lane, the smallest score and its code. Lanes meet only once a row, at the end.
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

// What is known of a row block while its panels go by.
struct Best {
  float* score;    // (rows, kWidth)
  int32_t* index;  // (rows, kWidth)
};

// row_of (count,) numbers the rows of z that are packed.
void pack_rows(const NearestCodeParams& p, const int64_t* row_of, int64_t count, float* packed, float* scratch) {
  for (int64_t tile = 0; tile < count; tile += kRows, packed += kRows * p.D) {
    for (int64_t row = 0; row < kRows; ++row) {
      // The last tile is filled up with copies of the last row; nothing is kept of them.
      const float* z = float32_row(p.z, row_of[tile + row < count ? tile + row : count - 1], p.D, scratch);
      for (int64_t d = 0; d < p.D; ++d) packed[d * kRows + row] = z[d];
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
    Vi best_index = load(best.index + row * kWidth);
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      // Codes come in ascending order, so that strictly less keeps the smallest index of equals.
      const Vi nearer = score[row][v] < best_score;
      best_score = select(nearer, score[row][v], best_score);
      best_index = select(nearer, iota() + (first + v * kWidth), best_index);
    }
    store(best.score + row * kWidth, best_score);
    store(best.index + row * kWidth, best_index);
  }
}

// The lanes meet in halves; score and index (kWidth,) are overwritten.
int32_t nearest_lane(float* score, int32_t* index) {
#pragma GCC unroll 4
  for (int half = kWidth / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) {
      const bool other = is_nearer(score[lane + half], index[lane + half], score[lane], index[lane]);
      score[lane] = other ? score[lane + half] : score[lane];
      index[lane] = other ? index[lane + half] : index[lane];
    }
  }
  return index[0];
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

// Writes what is made of the row's code.
void finish_row(const NearestCodeParams& p, int64_t row, int32_t index, float* scratch) {
  const float* z = float32_row(p.z, row, p.D, scratch);
  const float* code = float32_row(p.codebook, index, p.D, scratch + p.D);
  p.indices[row] = index;
  p.distances[row] = squared_distance(z, code, p.D);
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

void search_block(const NearestCodeParams& p, float* scratch, int64_t begin, int64_t end) {
  float* packed = scratch;  // (tiles, D, kRows)
  Best best;
  best.score = packed + kNearestCodeRowBlock * p.D;
  best.index = reinterpret_cast<int32_t*>(best.score + kNearestCodeRowBlock * kWidth);
  float* row_scratch = best.score + 2 * kNearestCodeRowBlock * kNearestCodeGroup;
  int64_t row_of[kNearestCodeRowBlock], count = 0;
  for (int64_t row = begin; row < end; ++row) {
    if (p.ignored != nullptr && p.ignored[row]) {
      ignore_row(p, row, row_scratch);
    } else {
      row_of[count++] = row;
    }
  }
  pack_rows(p, row_of, count, packed, row_scratch);
  for (int64_t i = 0; i < kNearestCodeRowBlock * kWidth; ++i) {
    best.score[i] = __builtin_inff();
    best.index[i] = 0;
  }
  // A panel stays in the first-level cache while the rows of the block go by.
  for (int64_t first = 0; first < p.K; first += kPanel) {
    const float* panel = p.panels + first * (p.D + 1);
    for (int64_t row = 0; row < count; row += kRows) {
      search_tile(packed + row * p.D, panel, p.D, static_cast<int32_t>(first),
                  {best.score + row * kWidth, best.index + row * kWidth});
    }
  }
  for (int64_t row = 0; row < count; ++row) {
    const int32_t index = nearest_lane(best.score + row * kWidth, best.index + row * kWidth);
    finish_row(p, row_of[row], index, row_scratch);
  }
}

void pack_panel(const NearestCodeParams& p, int64_t first, float* panel, float* scratch) {
  double norm[kPanel] = {};
  for (int64_t lane = 0; lane < kPanel; ++lane) {
    const bool exists = first + lane < p.K;
    const float* code = exists ? float32_row(p.codebook, first + lane, p.D, scratch) : nullptr;
    for (int64_t d = 0; d < p.D; ++d) panel[(1 + d) * kPanel + lane] = exists ? -2.0f * code[d] : 0.0f;
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

void nearest_code_pack(const NearestCodeParams& params, float* scratch, int64_t begin, int64_t end) {
  for (int64_t first = begin * kNearestCodeGroup; first < end * kNearestCodeGroup; first += kPanel) {
    pack_panel(params, first, params.panels + first * (params.D + 1), scratch);
  }
}

void nearest_code_search(const NearestCodeParams& params, float* scratch, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; row += kNearestCodeRowBlock) {
    const int64_t block_end = row + kNearestCodeRowBlock < end ? row + kNearestCodeRowBlock : end;
    search_block(params, scratch, row, block_end);
  }
}

}  // namespace cbtalk::CBTALK_ISA
