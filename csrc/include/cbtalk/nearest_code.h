#pragma once

#include <cstdint>

#include "dispatch.h"

// Nearest code by squared Euclidean distance, and the gradients of what is built on it. Strides are in elements.

namespace cbtalk {

struct NearestCodeParams {
  const float* z;         // (N, D)
  const float* codebook;  // (K, D)
  float* panels;          // nearest_code_panel_floats(K, D): written by nearest_code_pack
  int64_t* indices;       // (N,)
  float* distances;       // (N,)
  float* codes;           // (N, D) contiguous, or null
  int64_t N, K, D;        // K in 1 .. 2^31 - 1
  int64_t z_row_stride, z_column_stride;
  int64_t codebook_row_stride, codebook_column_stride;
};

struct NearestCodeBackwardParams {
  const float* z;              // (N, D)
  const float* codebook;       // (K, D)
  const int64_t* indices;      // (N,), each in [0, K)
  const float* weight;         // (N,), or one value with weight_stride 0
  const float* grad_codes;     // (N, D) contiguous, or null
  const int64_t* row_order;    // (N,) the rows sorted by code, as nearest_code_sort_rows leaves them
  const int64_t* code_begin;   // (K + 1,) where the rows of each code begin in row_order
  float* grad_z;               // (N, D) contiguous: grad_codes + z_scale * weight * (z - code)
  float* grad_codebook;        // (K, D) contiguous: code_scale * sum over its rows of weight * (code - z)
  float z_scale, code_scale;
  int64_t N, K, D;
  int64_t z_row_stride, z_column_stride;
  int64_t codebook_row_stride, codebook_column_stride;
  int64_t weight_stride;
};

// The packed codebook is made of groups of this many codes, at every instruction level.
constexpr int64_t kNearestCodeGroup = 32;

constexpr int64_t nearest_code_groups(int64_t K) { return (K + kNearestCodeGroup - 1) / kNearestCodeGroup; }

// Floats of the packed codebook, shared by all threads.
constexpr int64_t nearest_code_panel_floats(int64_t K, int64_t D) {
  return nearest_code_groups(K) * kNearestCodeGroup * (D + 1);
}

// Rows that are searched together; work is best divided into multiples of it.
constexpr int64_t kNearestCodeRowBlock = 96;

// Floats of working memory that each concurrent call of nearest_code_search needs.
constexpr int64_t nearest_code_scratch_floats(int64_t D) {
  return kNearestCodeRowBlock * (D + 2 * kNearestCodeGroup);
}

// Packs the codebook for the search, groups [begin, end) of nearest_code_groups(K).
CBTALK_CPU_KERNEL(nearest_code_pack, (const NearestCodeParams& params, int64_t begin, int64_t end))

// Searches the packed codebook for rows [begin, end); a row's answer does not depend on how the rows are divided.
CBTALK_CPU_KERNEL(nearest_code_search, (const NearestCodeParams& params, float* scratch, int64_t begin, int64_t end))

// Rows [begin, end) of grad_z.
CBTALK_CPU_KERNEL(nearest_code_grad_z, (const NearestCodeBackwardParams& params, int64_t begin, int64_t end))

// Rows [begin, end) of grad_codebook: each is summed by one thread in the order of the rows.
CBTALK_CPU_KERNEL(nearest_code_grad_codebook, (const NearestCodeBackwardParams& params, int64_t begin, int64_t end))

// Sorts the rows by code, keeping their order within a code. False: an index lies outside [0, K).
bool nearest_code_sort_rows(const int64_t* indices, int64_t N, int64_t K, int64_t* row_order, int64_t* code_begin);

// counts (K,) of the indices (N,), each in [0, K); returns the sum of the distances (N,), added in their order.
double nearest_code_tally(const int64_t* indices, const float* distances, int64_t N, int64_t K, int64_t* counts);

}  // namespace cbtalk
