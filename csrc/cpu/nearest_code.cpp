#include "cbtalk/nearest_code.h"

#include "cbtalk/ordering.h"
#include "simd.h"

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

void pack_rows(const NearestCodeParams& p, int64_t begin, int64_t end, float* packed) {
  for (int64_t tile = begin; tile < end; tile += kRows, packed += kRows * p.D) {
    for (int64_t row = 0; row < kRows; ++row) {
      // The last tile is filled up with copies of the last row; nothing is kept of them.
      const float* source = p.z + (tile + row < end ? tile + row : end - 1) * p.z_row_stride;
      for (int64_t d = 0; d < p.D; ++d) packed[d * kRows + row] = source[d * p.z_column_stride];
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
template <bool kAdjacent>
float squared_distance(const float* z, const float* code, int64_t D, int64_t z_stride, int64_t code_stride) {
  if (kAdjacent) z_stride = code_stride = 1;
  constexpr int kSums = 16;
  float sums[kSums] = {};
  int64_t d = 0;
  for (; d + kSums <= D; d += kSums) {
    for (int lane = 0; lane < kSums; ++lane) {
      const float difference = z[(d + lane) * z_stride] - code[(d + lane) * code_stride];
      sums[lane] += difference * difference;
    }
  }
  for (int lane = 0; d < D; ++d, ++lane) {
    const float difference = z[d * z_stride] - code[d * code_stride];
    sums[lane] += difference * difference;
  }
#pragma GCC unroll 4
  for (int half = kSums / 2; half > 0; half /= 2) {
    for (int lane = 0; lane < half; ++lane) sums[lane] += sums[lane + half];
  }
  return sums[0];
}

void finish_row(const NearestCodeParams& p, int64_t row, int32_t index) {
  const float* z = p.z + row * p.z_row_stride;
  const float* code = p.codebook + index * p.codebook_row_stride;
  const bool adjacent = p.z_column_stride == 1 && p.codebook_column_stride == 1;
  p.indices[row] = index;
  p.distances[row] = adjacent ? squared_distance<true>(z, code, p.D, 1, 1)
                              : squared_distance<false>(z, code, p.D, p.z_column_stride, p.codebook_column_stride);
  if (p.codes == nullptr) return;
  for (int64_t d = 0; d < p.D; ++d) p.codes[row * p.D + d] = code[d * p.codebook_column_stride];
}

void search_block(const NearestCodeParams& p, float* scratch, int64_t begin, int64_t end) {
  float* packed = scratch;  // (tiles, D, kRows)
  Best best;
  best.score = packed + kNearestCodeRowBlock * p.D;
  best.index = reinterpret_cast<int32_t*>(best.score + kNearestCodeRowBlock * kWidth);
  pack_rows(p, begin, end, packed);
  for (int64_t i = 0; i < kNearestCodeRowBlock * kWidth; ++i) {
    best.score[i] = __builtin_inff();
    best.index[i] = 0;
  }
  // A panel stays in the first-level cache while the rows of the block go by.
  for (int64_t first = 0; first < p.K; first += kPanel) {
    const float* panel = p.panels + first * (p.D + 1);
    for (int64_t row = 0; row < end - begin; row += kRows) {
      search_tile(packed + row * p.D, panel, p.D, static_cast<int32_t>(first),
                  {best.score + row * kWidth, best.index + row * kWidth});
    }
  }
  for (int64_t row = 0; row < end - begin; ++row) {
    finish_row(p, begin + row, nearest_lane(best.score + row * kWidth, best.index + row * kWidth));
  }
}

void pack_panel(const NearestCodeParams& p, int64_t first, float* panel) {
  double norm[kPanel] = {};
  for (int64_t lane = 0; lane < kPanel; ++lane) {
    const float* code = p.codebook + (first + lane) * p.codebook_row_stride;
    for (int64_t d = 0; d < p.D; ++d) {
      const float element = first + lane < p.K ? code[d * p.codebook_column_stride] : 0.0f;
      panel[(1 + d) * kPanel + lane] = -2.0f * element;
    }
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

// grad = carried + scale * (z - code); carried is null for zero.
template <bool kAdjacent>
void grad_z_row(const float* z, const float* code, const float* carried, float scale, float* grad, int64_t D,
                int64_t z_stride, int64_t code_stride) {
  if (kAdjacent) z_stride = code_stride = 1;
  for (int64_t d = 0; d < D; ++d) {
    const float pull = scale * (z[d * z_stride] - code[d * code_stride]);
    grad[d] = carried == nullptr ? pull : carried[d] + pull;
  }
}

// grad += scale * (code - z)
template <bool kAdjacent>
void add_grad_code(const float* z, const float* code, float scale, float* grad, int64_t D, int64_t z_stride,
                   int64_t code_stride) {
  if (kAdjacent) z_stride = code_stride = 1;
  for (int64_t d = 0; d < D; ++d) grad[d] += scale * (code[d * code_stride] - z[d * z_stride]);
}

bool adjacent(const NearestCodeBackwardParams& p) {
  return p.z_column_stride == 1 && p.codebook_column_stride == 1;
}

}  // namespace

void nearest_code_pack(const NearestCodeParams& params, int64_t begin, int64_t end) {
  for (int64_t first = begin * kNearestCodeGroup; first < end * kNearestCodeGroup; first += kPanel) {
    pack_panel(params, first, params.panels + first * (params.D + 1));
  }
}

void nearest_code_search(const NearestCodeParams& params, float* scratch, int64_t begin, int64_t end) {
  for (int64_t row = begin; row < end; row += kNearestCodeRowBlock) {
    const int64_t block_end = row + kNearestCodeRowBlock < end ? row + kNearestCodeRowBlock : end;
    search_block(params, scratch, row, block_end);
  }
}

void nearest_code_grad_z(const NearestCodeBackwardParams& params, int64_t begin, int64_t end) {
  const auto& p = params;
  auto* grad_row = adjacent(p) ? &grad_z_row<true> : &grad_z_row<false>;
  for (int64_t row = begin; row < end; ++row) {
    const float* carried = p.grad_codes == nullptr ? nullptr : p.grad_codes + row * p.D;
    grad_row(p.z + row * p.z_row_stride, p.codebook + p.indices[row] * p.codebook_row_stride, carried,
             p.z_scale * p.weight[row * p.weight_stride], p.grad_z + row * p.D, p.D, p.z_column_stride,
             p.codebook_column_stride);
  }
}

void nearest_code_grad_codebook(const NearestCodeBackwardParams& params, int64_t begin, int64_t end) {
  const auto& p = params;
  auto* add = adjacent(p) ? &add_grad_code<true> : &add_grad_code<false>;
  for (int64_t k = begin; k < end; ++k) {
    float* grad = p.grad_codebook + k * p.D;
    for (int64_t d = 0; d < p.D; ++d) grad[d] = 0.0f;
    for (int64_t i = p.code_begin[k]; i < p.code_begin[k + 1]; ++i) {
      const int64_t row = p.row_order[i];
      add(p.z + row * p.z_row_stride, p.codebook + k * p.codebook_row_stride,
          p.code_scale * p.weight[row * p.weight_stride], grad, p.D, p.z_column_stride, p.codebook_column_stride);
    }
  }
}

}  // namespace cbtalk::CBTALK_ISA
