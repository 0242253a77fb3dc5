#pragma once

// What the bindings of nearest_code for the CPU and for the GPU share.

#include <optional>
#include <tuple>

#include "check.h"

namespace cbtalk {

inline void check_rows_and_codes(const Tensor& z, const Tensor& codebook, int64_t most_codes) {
  check_dim(z, 2, "z");
  check_dim(codebook, 2, "codebook");
  check_size(codebook, 1, z.size(1), "codebook");
  STD_TORCH_CHECK(codebook.size(0) > 0 && codebook.size(0) <= most_codes, "codebook must have between 1 and ",
                  most_codes, " codes, not ", codebook.size(0));
}

// Shapes of what comes to the backward pass, z being checked.
inline void check_gradients(const std::optional<Tensor>& grad_codes, const Tensor& weight, const Tensor& z,
                            const Tensor& indices) {
  if (weight.dim() == 1) check_size(weight, 0, z.size(0), "weight");
  STD_TORCH_CHECK(indices.scalar_type() == ScalarType::Long, "indices must be int64");
  check_contiguous(indices, "indices");
  check_dim(indices, 1, "indices");
  check_size(indices, 0, z.size(0), "indices");
  if (!grad_codes.has_value()) return;
  check_contiguous(*grad_codes, "grad_codes");
  check_dim(*grad_codes, 2, "grad_codes");
  check_size(*grad_codes, 0, z.size(0), "grad_codes");
  check_size(*grad_codes, 1, z.size(1), "grad_codes");
}

// grad_z = grad_codes + z_scale * weight * (z - code), grad_codebook = code_scale * sum over rows of weight * (code - z)
using NearestCodeBackward = std::tuple<Tensor, Tensor>(const std::optional<Tensor>& grad_codes, const Tensor& weight,
                                                       const Tensor& z, const Tensor& codebook, const Tensor& indices,
                                                       double z_scale, double code_scale);

template <NearestCodeBackward backward>
std::tuple<Tensor, Tensor> nearest_code_backward(const Tensor& grad_distances, const Tensor& z, const Tensor& codebook,
                                                 const Tensor& indices) {
  check_dim(grad_distances, 1, "grad_distances");
  return backward(std::nullopt, grad_distances, z, codebook, indices, 2.0, 2.0);
}

template <NearestCodeBackward backward>
std::tuple<Tensor, Tensor> vector_quantize_backward(const std::optional<Tensor>& grad_codes, const Tensor& grad_loss,
                                                    const Tensor& z, const Tensor& codebook, const Tensor& indices,
                                                    double beta) {
  check_dim(grad_loss, 0, "grad_loss");
  const double mean = 2.0 / static_cast<double>(z.size(0) * z.size(1));
  return backward(grad_codes, grad_loss, z, codebook, indices, beta * mean, mean);
}

}  // namespace cbtalk
