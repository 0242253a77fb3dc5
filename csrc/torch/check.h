#pragma once

// Reads and checks of tensors, for every binding before it hands pointers to a kernel. LibTorch stable ABI only.

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>
#include <torch/headeronly/core/ScalarType.h>
#include <torch/headeronly/util/Exception.h>

#include <cstdint>

#include "cbtalk/storage.h"

namespace cbtalk {

using torch::headeronly::ScalarType;
using torch::stable::Tensor;

inline void check_float32(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.is_cpu() && tensor.scalar_type() == ScalarType::Float, name, " must be a float32 CPU tensor");
}

inline void check_contiguous(const Tensor& tensor, const char* name) {
  STD_TORCH_CHECK(tensor.is_contiguous(), name, " must be contiguous");
}

inline void check_dim(const Tensor& tensor, int64_t dim, const char* name) {
  STD_TORCH_CHECK(tensor.dim() == dim, name, " must have ", dim, " dimensions, not ", tensor.dim());
}

inline void check_size(const Tensor& tensor, int64_t dim, int64_t size, const char* name) {
  STD_TORCH_CHECK(tensor.size(dim) == size, name, " must have size ", size, " in dimension ", dim, ", not ",
                  tensor.size(dim));
}

inline Storage storage_of(const Tensor& tensor, const char* name) {
  switch (tensor.scalar_type()) {
    case ScalarType::Float:
      return Storage::float32;
    case ScalarType::Half:
      return Storage::float16;
    default:
      STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::BFloat16, name, " must be float32, float16 or bfloat16");
      return Storage::bfloat16;
  }
}

// Whether the last dimension's elements lie side by side.
inline bool has_adjacent_columns(const Tensor& tensor) {
  const int64_t last = tensor.dim() - 1;
  return tensor.stride(last) == 1 || tensor.size(last) == 1;
}

// Whether the channels of a (B, C, H, W) tensor lie side by side, and not its columns. The other strides may be any.
inline bool has_adjacent_channels(const Tensor& x) { return x.stride(1) == 1 && x.stride(3) != 1; }

// Whether a (B, C, H, W) tensor fills its memory in the order B, H, W, C. A dimension of size 1 may have any stride.
inline bool is_dense_channels_last(const Tensor& x) {
  const int64_t strides[4] = {x.size(1) * x.size(2) * x.size(3), 1, x.size(1) * x.size(3), x.size(1)};
  for (int i = 0; i < 4 && x.numel() > 0; ++i) {
    if (x.size(i) > 1 && x.stride(i) != strides[i]) return false;
  }
  return true;
}

inline void check_dense_channels_last(const Tensor& x, const char* name) {
  check_dim(x, 4, name);
  STD_TORCH_CHECK(is_dense_channels_last(x), name, " must be channels_last");
}

}  // namespace cbtalk
