#pragma once

// What the bindings of group_norm check on every device.

#include "check.h"

namespace cbtalk {

inline bool is_channels_last(const Tensor& x) {
  const int64_t strides[4] = {x.size(1) * x.size(2) * x.size(3), 1, x.size(1) * x.size(3), x.size(1)};
  for (int i = 0; i < 4; ++i) {
    if (x.size(i) > 1 && x.stride(i) != strides[i]) return false;
  }
  return true;
}

inline void check_channels_last(const Tensor& x, const Tensor& like, const char* name) {
  check_dim(x, 4, name);
  STD_TORCH_CHECK(x.scalar_type() == like.scalar_type(), name, " must have the dtype of x");
  for (int i = 0; i < 4; ++i) check_size(x, i, like.size(i), name);
  STD_TORCH_CHECK(is_channels_last(x), name, " must be channels_last");
}

inline void check_floats(const Tensor& vector, int64_t size, const char* name) {
  STD_TORCH_CHECK(vector.scalar_type() == ScalarType::Float, name, " must be float32");
  check_contiguous(vector, name);
  STD_TORCH_CHECK(vector.numel() == size, name, " must have ", size, " elements");
}

}  // namespace cbtalk
