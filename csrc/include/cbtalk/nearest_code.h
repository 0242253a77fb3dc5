#pragma once

#include <cstdint>

#include "cbtalk/storage.h"
#include "dispatch.h"

// Nearest code by squared Euclidean distance, and the gradients of what is built on it, for one codebook. Strides are
// in elements; what has no strides is contiguous.

namespace cbtalk {

struct StridedMatrix {
  const void* data;
  Storage storage;
  int64_t row_stride, column_stride;
};

struct NearestCodeParams {
  StridedMatrix z;         // (N, D)
  StridedMatrix codebook;  // (K, D)
  const bool* ignored;     // (N,) true for a row that gets index -1, distance 0 and codes 0; or null
  float* centre;           // (D,) written by nearest_code_centre
  float* panels;           // nearest_code_panel_floats(K, D): written by nearest_code_pack
  int64_t* indices;        // (N,)
  float* distances;        // (N,)
  void* codes;             // (N, D) the chosen codes, stored as z is; or null
  void* rows;              // (N, D) the chosen codes, stored as the codebook is; or null
  int64_t N, K, D;         // K in 1 .. 2^31 - 1
};

struct NearestCodeBackwardParams {
  StridedMatrix z;            // (N, D)
  StridedMatrix rows;         // (N, D) the chosen codes
  StridedMatrix grad_codes;   // (N, D), or null data
  const int64_t* indices;     // (N,), each in [-1, K); -1 takes no part
  const float* weight;        // (N,), or one value with weight_stride 0
  const int64_t* row_order;   // (N,) the rows sorted by code, as nearest_code_sort_rows leaves them
  const int64_t* code_begin;  // (K + 1,) where the rows of each code begin in row_order
  void* grad_z;               // (N, D) stored as z is: grad_codes + z_scale * weight * (z - rows)
  void* grad_codebook;        // (K, D) stored as rows are: code_scale * sum over its rows of weight * (rows - z)
  float z_scale, code_scale;
  int64_t N, K, D;
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
  return kNearestCodeRowBlock * (D + 3 * kNearestCodeGroup) + 2 * D;
}

// Floats of working memory that each concurrent call of the other kernels needs.
constexpr int64_t nearest_code_row_floats(int64_t D) { return 4 * D; }

// Finds a point amid the codes. Scores are computed from it, so that they need not tell codes apart from far away.
CBTALK_CPU_KERNEL(nearest_code_centre, (const NearestCodeParams& params, float* scratch))

// Packs the codebook for the search, groups [begin, end) of nearest_code_groups(K).
CBTALK_CPU_KERNEL(nearest_code_pack, (const NearestCodeParams& params, float* scratch, int64_t begin, int64_t end))

// Searches the packed codebook for rows [begin, end); a row's answer does not depend on how the rows are divided.
CBTALK_CPU_KERNEL(nearest_code_search, (const NearestCodeParams& params, float* scratch, int64_t begin, int64_t end))

// Rows [begin, end) of grad_z.
CBTALK_CPU_KERNEL(nearest_code_grad_z,
                  (const NearestCodeBackwardParams& params, float* scratch, int64_t begin, int64_t end))

// Codes [begin, end) of grad_codebook: each is summed by one thread in the order of the rows.
CBTALK_CPU_KERNEL(nearest_code_grad_codebook,
                  (const NearestCodeBackwardParams& params, float* scratch, int64_t begin, int64_t end))

// Codes [begin, end) of sums (K, D): the sum of the rows z (N, D) of each code, in the order of the rows.
CBTALK_CPU_KERNEL(nearest_code_sum_rows,
                  (const StridedMatrix& z, const int64_t* row_order, const int64_t* code_begin, int64_t D, float* sums,
                   float* scratch, int64_t begin, int64_t end))

// Sorts the rows by code, keeping their order within a code and leaving out those of index -1. False: an index lies
// outside [-1, K).
bool nearest_code_sort_rows(const int64_t* indices, int64_t N, int64_t K, int64_t* row_order, int64_t* code_begin);

// counts (K,) of the indices (N,), each in [-1, K), but for -1; returns the sum of the distances (N,), added in their
// order.
double nearest_code_tally(const int64_t* indices, const float* distances, int64_t N, int64_t K, int64_t* counts);

}  // namespace cbtalk
