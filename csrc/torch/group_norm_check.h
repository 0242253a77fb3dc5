#pragma once

// What the bindings of group_norm check on every device.

#include "check.h"

namespace cbtalk {

inline void check_image(const Tensor& x, const Tensor& like, const char* name) {
  check_dense_channels_last(x, name);
  STD_TORCH_CHECK(x.scalar_type() == like.scalar_type(), name, " must have the dtype of x");
  for (int i = 0; i < 4; ++i) check_size(x, i, like.size(i), name);
}

inline void check_floats(const Tensor& vector, int64_t size, const char* name) {
  STD_TORCH_CHECK(vector.scalar_type() == ScalarType::Float, name, " must be float32");
  check_contiguous(vector, name);
  STD_TORCH_CHECK(vector.numel() == size, name, " must have ", size, " elements");
}

}  // namespace cbtalk
