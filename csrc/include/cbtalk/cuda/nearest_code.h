#pragma once

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cbtalk/cuda/nearest_code_sizes.h"
#include "cbtalk/storage.h"

// Nearest code by squared Euclidean distance on a GPU, and the gradients of what is built on it. Strides are in elements.

namespace cbtalk {

struct StridedMatrix {
  const void* data;
  Storage storage;
  int64_t row_stride, column_stride;
};

struct NearestCodeCudaParams {
  StridedMatrix z;         // (N, D)
  StridedMatrix codebook;  // (K, D)
  int64_t* indices;        // (N,)
  float* distances;        // (N,)
  void* codes;             // (N, D) contiguous, stored as z is; or null, and then there is neither loss nor counts
  float* loss;             // (): (1 + beta) * the mean of the squared differences
  int64_t* counts;         // (K,)
  void* workspace;         // nearest_code::workspace_bytes(N, K, D), on 16 bytes
  int64_t N, K, D;         // each at least 1; K at most 2^31 - 1024
  double beta;
};

cudaError_t nearest_code_forward_cuda(const NearestCodeCudaParams& params, cudaStream_t stream);

struct NearestCodeBackwardCudaParams {
  StridedMatrix z;         // (N, D)
  StridedMatrix codebook;  // (K, D)
  const int64_t* indices;  // (N,), each in [0, K)
  const float* weight;     // (N,), or one value with weight_stride 0
  const void* grad_codes;  // (N, D) contiguous, stored as z is; or null
  const int64_t* order;    // (N,) the rows sorted by code, in their order within a code
  int64_t* code_begin;     // (K,) zeros at first; then where the rows of each code begin in order
  int64_t* code_end;       // (K,) likewise
  float* partials;         // (nearest_code::chunks(N), D)
  void* grad_z;            // (N, D) contiguous, stored as z is: grad_codes + z_scale * weight * (z - code)
  void* grad_codebook;     // (K, D) contiguous, as codebook is: code_scale * sum over its rows of weight * (code - z)
  float z_scale, code_scale;
  int64_t N, K, D;
  int64_t weight_stride;
};

cudaError_t nearest_code_backward_cuda(const NearestCodeBackwardCudaParams& params, cudaStream_t stream);

}  // namespace cbtalk
