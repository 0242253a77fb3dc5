#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cbtalk/cuda/nearest_code_sizes.h"
#include "cbtalk/storage.h"

// Nearest code by squared Euclidean distance on a GPU, and the gradients of what is built on it, for H codebooks at
// once. Strides are in elements.

namespace cbtalk {

// A matrix for each head.
struct StridedMatrices {
  const void* data;
  Storage storage;
  int64_t head_stride, row_stride, column_stride;
};

struct NearestCodeCudaParams {
  StridedMatrices z;         // (H, N, D)
  StridedMatrices codebook;  // (H, K, D)
  const bool* ignored;       // (H, N), or null: no row is
  int64_t* indices;          // (H, N); -1 for an ignored row, which has distance 0 and zeros for codes
  float* distances;          // (H, N)
  void* rows;                // (H, N, D) contiguous, stored as codebook is: the chosen codes; or null
  void* codes;               // the same, stored as z is; or null, and then there is neither loss nor counts
  float* loss;               // (): (beta + gamma) * the mean of the squared differences, of the rows that count
  int64_t* counts;           // (H, K)
  void* workspace;           // nearest_code::workspace_bytes(H, N, K, D), on 16 bytes
  int64_t H, N, K, D;        // each at least 1; H at most kMaxHeads, K at most kMaxCodes
  double beta, gamma;
};

cudaError_t nearest_code_forward_cuda(const NearestCodeCudaParams& params, cudaStream_t stream);

// One number for each row, or the same for all with strides 0.
struct RowWeights {
  const float* data;
  int64_t head_stride, row_stride;
};

struct NearestCodeGradRowsCudaParams {
  StridedMatrices z;       // (H, N, D)
  StridedMatrices rows;    // (H, N, D) the chosen codes
  const int64_t* indices;  // (H, N), negative for an ignored row
  RowWeights weight;       // (H, N)
  const void* grad_codes;  // (H, N, D) contiguous, stored as z is; or null
  void* grad_z;            // likewise: grad_codes + scale * weight * (z - rows), 0 for an ignored row
  float scale;
  int64_t H, N, D;
};

cudaError_t nearest_code_grad_rows_cuda(const NearestCodeGradRowsCudaParams& params, cudaStream_t stream);

// The key that sorts the rows of all heads by their codes: index + head * K, or -1 for an ignored row.
struct CodeKeysCudaParams {
  const int64_t* indices;  // (H, N)
  void* keys;              // (H, N) of nearest_code::key_bytes(H, K) each
  int64_t H, N, K;
};

cudaError_t code_keys_cuda(const CodeKeysCudaParams& params, cudaStream_t stream);

// Sums over the rows of each code, always in the same order: of z, or of weight * (rows - z) where there are rows.
struct SumByCodeCudaParams {
  StridedMatrices z;     // (H, N, D)
  StridedMatrices rows;  // (H, N, D), or data is null
  RowWeights weight;     // (H, N), of rows
  const void* keys;      // (H * N,) sorted
  const int64_t* order;  // (H * N,) the rows of all heads as their keys are sorted, in their order within a code
  int64_t* code_begin;   // (H * K,) zeros at first; then where the rows of each code begin in order
  int64_t* code_end;     // (H * K,) likewise
  float* partials;       // (nearest_code::chunks(H * N), D)
  void* sums;            // (H, K, D) contiguous: scale * the sum
  Storage sums_storage;
  float scale;
  int64_t H, N, K, D;
};

cudaError_t sum_by_code_cuda(const SumByCodeCudaParams& params, cudaStream_t stream);

}  // namespace cbtalk
