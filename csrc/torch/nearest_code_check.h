#pragma once

// Shared by the bindings of nearest_code for the CPU and for the GPU.

#include <initializer_list>
#include <optional>
#include <tuple>
#include <vector>

#include "check.h"

namespace cbtalk {

// Of z (N, D) and codebook (K, D), or of H codebooks at once: z (H, N, D) and codebook (H, K, D).
struct CodeSizes {
  bool heads;  // whether tensors have the dimension H; H is 1 where they do not
  int64_t H, N, K, D;

  // Shape of a tensor with these dimensions behind H.
  std::vector<int64_t> shape(std::initializer_list<int64_t> dimensions) const {
    std::vector<int64_t> sizes;
    if (heads) sizes.push_back(H);
    sizes.insert(sizes.end(), dimensions);
    return sizes;
  }
};

inline void check_shape(const Tensor& tensor, const std::vector<int64_t>& shape, const char* name) {
  check_dim(tensor, static_cast<int64_t>(shape.size()), name);
  for (size_t dim = 0; dim < shape.size(); ++dim) check_size(tensor, static_cast<int64_t>(dim), shape[dim], name);
}

inline void check_element(const Tensor& tensor, const char* name) {
  const ScalarType type = tensor.scalar_type();
  STD_TORCH_CHECK(type == ScalarType::Float || type == ScalarType::Half || type == ScalarType::BFloat16, name,
                  " must be float32, float16 or bfloat16");
}

inline CodeSizes check_rows_and_codes(const Tensor& z, const Tensor& codebook, const std::optional<Tensor>& ignored,
                                      int64_t most_codes) {
  check_element(z, "z");
  check_element(codebook, "codebook");
  STD_TORCH_CHECK(z.dim() == 2 || z.dim() == 3, "z must have 2 or 3 dimensions, not ", z.dim());
  check_dim(codebook, z.dim(), "codebook");
  const bool heads = z.dim() == 3;
  const CodeSizes sizes{heads, heads ? z.size(0) : 1, z.size(-2), codebook.size(-2), z.size(-1)};
  check_shape(codebook, sizes.shape({sizes.K, sizes.D}), "codebook");
  STD_TORCH_CHECK(sizes.K > 0 && sizes.K <= most_codes, "codebook must have between 1 and ", most_codes,
                  " codes, not ", sizes.K);
  if (ignored.has_value()) {
    STD_TORCH_CHECK(ignored->scalar_type() == ScalarType::Bool, "ignored must be bool");
    check_shape(*ignored, sizes.shape({sizes.N}), "ignored");
    check_contiguous(*ignored, "ignored");
  }
  return sizes;
}

// The inputs of the backward pass; weight is (N,) or () and its strides are free.
inline CodeSizes check_gradients(const std::optional<Tensor>& grad_codes, const Tensor& weight, const Tensor& z,
                                 const Tensor& rows, const Tensor& indices, int64_t K) {
  check_element(z, "z");
  check_element(rows, "rows");
  STD_TORCH_CHECK(z.dim() == 2 || z.dim() == 3, "z must have 2 or 3 dimensions, not ", z.dim());
  const bool heads = z.dim() == 3;
  const CodeSizes sizes{heads, heads ? z.size(0) : 1, z.size(-2), K, z.size(-1)};
  check_shape(rows, sizes.shape({sizes.N, sizes.D}), "rows");
  check_contiguous(rows, "rows");
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float, "weight must be float32");
  if (weight.dim() != 0) check_shape(weight, sizes.shape({sizes.N}), "weight");
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Long, "indices must be int64");
  check_contiguous(indices, "indices");
  check_shape(indices, sizes.shape({sizes.N}), "indices");
  if (grad_codes.has_value()) {
    STD_TORCH_CHECK(grad_codes->scalar_type() == z.scalar_type(), "grad_codes must have z's dtype");
    check_contiguous(*grad_codes, "grad_codes");
    check_shape(*grad_codes, sizes.shape({sizes.N, sizes.D}), "grad_codes");
  }
  return sizes;
}

}  // namespace cbtalk
