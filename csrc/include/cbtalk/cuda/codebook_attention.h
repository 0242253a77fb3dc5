#pragma once

// softmax(Q K^T / sqrt(d)) V per head on a GPU, forward and backward, for heads of 4, 8, 16 or 32 columns.
//
// A key set is what a query attends to: one codebook for every element of the batch, or one set for each element. The
// B * T query rows are divided evenly over the key sets, in order; nothing is repeated for the batch. All sums are
// float32 and taken in an order that only the sizes decide, without atomics.

#include <cuda_runtime_api.h>

#include "cbtalk/cuda/codebook_attention_params.h"

namespace cbtalk {

// There is at least one row of queries.
cudaError_t codebook_attention_forward_cuda(const AttentionCudaParams& params, cudaStream_t stream);
cudaError_t codebook_attention_backward_cuda(const AttentionCudaParams& params, cudaStream_t stream);

}  // namespace cbtalk
