#pragma once

// Takes the place of csrc/torch/cuda.h where kernels run on the CPU.

#include <cuda_runtime_api.h>

#include "check.h"

namespace cbtalk {

class OnDeviceOf {
 public:
  explicit OnDeviceOf(const Tensor&) {}
  cudaStream_t stream() const { return nullptr; }
};

inline void check_cuda(const Tensor& tensor, const Tensor&, const char* name) {
  STD_TORCH_CHECK(tensor.is_cpu(), name, " must be on the CPU");
}

inline void check_launch(cudaError_t error, const char* kernel) {
  STD_TORCH_CHECK(error == cudaSuccess, kernel, ": CUDA error ", static_cast<int>(error));
}

}  // namespace cbtalk
