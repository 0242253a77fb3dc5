#pragma once

// The launchers of group_norm on a GPU. They return at once: the work is on the stream.

#include <cuda_runtime_api.h>

#include "cbtalk/cuda/group_norm_params.h"

namespace cbtalk {

cudaError_t group_norm_forward_cuda(const GroupNormCudaParams& params, cudaStream_t stream);
cudaError_t group_norm_backward_cuda(const GroupNormCudaParams& params, cudaStream_t stream);

}  // namespace cbtalk
