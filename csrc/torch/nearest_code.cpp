#include "cbtalk/nearest_code.h"

#include <limits>
#include <optional>
#include <tuple>

#include "nearest_code_check.h"
#include "scratch.h"

namespace cbtalk {
namespace {

constexpr int64_t kElementsPerThread = 1 << 15;  // of memory-bound work, below which a second thread costs more

void check_arguments(const Tensor& z, const Tensor& codebook) {
  check_float32(z, "z");
  check_float32(codebook, "codebook");
  check_rows_and_codes(z, codebook, std::numeric_limits<int32_t>::max() - kNearestCodeGroup);
}

// codes (N, D) may be null.
void search(const Tensor& z, const Tensor& codebook, const Tensor& indices, const Tensor& distances, float* codes) {
  NearestCodeParams p{};
  p.z = z.const_data_ptr<float>();
  p.codebook = codebook.const_data_ptr<float>();
  p.indices = indices.mutable_data_ptr<int64_t>();
  p.distances = distances.mutable_data_ptr<float>();
  p.codes = codes;
  p.N = z.size(0), p.K = codebook.size(0), p.D = z.size(1);
  p.z_row_stride = z.stride(0), p.z_column_stride = z.stride(1);
  p.codebook_row_stride = codebook.stride(0), p.codebook_column_stride = codebook.stride(1);
  if (p.N == 0) return;
  const Tensor panels = torch::stable::new_empty(z, {nearest_code_panel_floats(p.K, p.D)});
  p.panels = panels.mutable_data_ptr<float>();

  auto* pack = nearest_code_pack();
  auto* search_rows = nearest_code_search();
  const int64_t codes_at_least = kElementsPerThread / (kNearestCodeGroup * (p.D + 1)) + 1;
  torch::stable::parallel_for(0, nearest_code_groups(p.K), codes_at_least,
                              [&](int64_t begin, int64_t end) { pack(p, begin, end); });
  const int64_t blocks = (p.N + kNearestCodeRowBlock - 1) / kNearestCodeRowBlock;
  torch::stable::parallel_for(0, blocks, 1, [&](int64_t begin, int64_t end) {
    const Scratch scratch(nearest_code_scratch_floats(p.D));
    const int64_t last = end * kNearestCodeRowBlock;
    search_rows(p, scratch.data(), begin * kNearestCodeRowBlock, last < p.N ? last : p.N);
  });
}

std::tuple<Tensor, Tensor> nearest_code(const Tensor& z, const Tensor& codebook) {
  check_arguments(z, codebook);
  const Tensor indices = torch::stable::new_empty(z, {z.size(0)}, ScalarType::Long);
  const Tensor distances = torch::stable::new_empty(z, {z.size(0)});
  search(z, codebook, indices, distances, nullptr);
  return {indices, distances};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> vector_quantize(const Tensor& z, const Tensor& codebook, double beta) {
  check_arguments(z, codebook);
  const int64_t N = z.size(0), K = codebook.size(0), D = z.size(1);
  const Tensor codes = torch::stable::new_empty(z, {N, D});
  const Tensor loss = torch::stable::new_empty(z, {});
  const Tensor indices = torch::stable::new_empty(z, {N}, ScalarType::Long);
  const Tensor counts = torch::stable::new_empty(z, {K}, ScalarType::Long);
  const Tensor distances = torch::stable::new_empty(z, {N});
  search(z, codebook, indices, distances, codes.mutable_data_ptr<float>());
  const double total = nearest_code_tally(indices.const_data_ptr<int64_t>(), distances.const_data_ptr<float>(), N, K,
                                          counts.mutable_data_ptr<int64_t>());
  // Both terms of the loss have the same value: they differ in where the gradient goes.
  *loss.mutable_data_ptr<float>() = static_cast<float>((1.0 + beta) * total / static_cast<double>(N * D));
  return {codes, loss, indices, counts};
}

std::tuple<Tensor, Tensor> backward(const std::optional<Tensor>& grad_codes, const Tensor& weight, const Tensor& z,
                                    const Tensor& codebook, const Tensor& indices, double z_scale, double code_scale) {
  check_arguments(z, codebook);
  check_float32(weight, "weight");
  STD_TORCH_CHECK(indices.is_cpu(), "indices must be on the CPU");
  if (grad_codes.has_value()) check_float32(*grad_codes, "grad_codes");
  check_gradients(grad_codes, weight, z, indices);
  NearestCodeBackwardParams p{};
  p.N = z.size(0), p.K = codebook.size(0), p.D = z.size(1);
  if (grad_codes.has_value()) p.grad_codes = grad_codes->const_data_ptr<float>();
  const Tensor grad_z = torch::stable::new_empty(z, {p.N, p.D});
  const Tensor grad_codebook = torch::stable::new_empty(z, {p.K, p.D});
  const Tensor row_order = torch::stable::new_empty(indices, {p.N});
  const Tensor code_begin = torch::stable::new_empty(indices, {p.K + 1});
  p.z = z.const_data_ptr<float>();
  p.codebook = codebook.const_data_ptr<float>();
  p.indices = indices.const_data_ptr<int64_t>();
  p.weight = weight.const_data_ptr<float>();
  p.weight_stride = weight.dim() == 1 ? weight.stride(0) : 0;
  p.row_order = row_order.const_data_ptr<int64_t>();
  p.code_begin = code_begin.const_data_ptr<int64_t>();
  p.grad_z = grad_z.mutable_data_ptr<float>();
  p.grad_codebook = grad_codebook.mutable_data_ptr<float>();
  p.z_scale = static_cast<float>(z_scale), p.code_scale = static_cast<float>(code_scale);
  p.z_row_stride = z.stride(0), p.z_column_stride = z.stride(1);
  p.codebook_row_stride = codebook.stride(0), p.codebook_column_stride = codebook.stride(1);
  STD_TORCH_CHECK(nearest_code_sort_rows(p.indices, p.N, p.K, row_order.mutable_data_ptr<int64_t>(),
                                         code_begin.mutable_data_ptr<int64_t>()),
                  "indices must lie in [0, ", p.K, ")");
  auto* grad_z_rows = nearest_code_grad_z();
  auto* grad_codebook_rows = nearest_code_grad_codebook();
  const int64_t rows_at_least = kElementsPerThread / (p.D + 1) + 1;
  torch::stable::parallel_for(0, p.N, rows_at_least, [&](int64_t begin, int64_t end) { grad_z_rows(p, begin, end); });
  // Rows are not spread evenly over codes, so the share of a thread is judged by the mean.
  const int64_t codes_at_least = rows_at_least * p.K / (p.N + p.K) + 1;
  torch::stable::parallel_for(0, p.K, codes_at_least,
                              [&](int64_t begin, int64_t end) { grad_codebook_rows(p, begin, end); });
  return {grad_z, grad_codebook};
}

}  // namespace
}  // namespace cbtalk

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CPU, m) {
  m.impl("nearest_code", TORCH_BOX(&cbtalk::nearest_code));
  m.impl("nearest_code_backward", TORCH_BOX(&cbtalk::nearest_code_backward<cbtalk::backward>));
  m.impl("vector_quantize", TORCH_BOX(&cbtalk::vector_quantize));
  m.impl("vector_quantize_backward", TORCH_BOX(&cbtalk::vector_quantize_backward<cbtalk::backward>));
}
