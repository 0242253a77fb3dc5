#include "cbtalk/cuda/nearest_code.h"

#include <limits>
#include <optional>
#include <tuple>

#include "cuda.h"
#include "nearest_code_check.h"
#include "stable_sort.h"

namespace cbtalk {
namespace {

constexpr int64_t kMaxCodes = (int64_t{1} << 31) - 1024;

StridedMatrix matrix_of(const Tensor& tensor, const char* name) {
  check_dim(tensor, 2, name);
  return {tensor.const_data_ptr(), storage_of(tensor, name), tensor.stride(0), tensor.stride(1)};
}

void check_arguments(const Tensor& z, const Tensor& codebook) {
  check_cuda(z, z, "z");
  check_cuda(codebook, z, "codebook");
  check_rows_and_codes(z, codebook, kMaxCodes);
  STD_TORCH_CHECK(z.size(1) > 0, "z must have columns");
}

NearestCodeCudaParams params_of(const Tensor& z, const Tensor& codebook, const Tensor& indices,
                                const Tensor& distances) {
  NearestCodeCudaParams p{};
  p.z = matrix_of(z, "z"), p.codebook = matrix_of(codebook, "codebook");
  p.N = z.size(0), p.K = codebook.size(0), p.D = z.size(1);
  p.indices = indices.mutable_data_ptr<int64_t>();
  p.distances = distances.mutable_data_ptr<float>();
  return p;
}

void launch(NearestCodeCudaParams p, const Tensor& z, cudaStream_t stream) {
  const Tensor workspace =
      torch::stable::new_empty(z, {nearest_code::workspace_bytes(p.N, p.K, p.D)}, ScalarType::Byte);
  p.workspace = workspace.mutable_data_ptr();
  check_launch(nearest_code_forward_cuda(p, stream), "nearest_code");
}

std::tuple<Tensor, Tensor> search(const Tensor& z, const Tensor& codebook) {
  check_arguments(z, codebook);
  const OnDeviceOf device(z);
  const Tensor indices = torch::stable::new_empty(z, {z.size(0)}, ScalarType::Long);
  const Tensor distances = torch::stable::new_empty(z, {z.size(0)}, ScalarType::Float);
  const NearestCodeCudaParams p = params_of(z, codebook, indices, distances);
  if (p.N > 0) launch(p, z, device.stream());
  return {indices, distances};
}

std::tuple<Tensor, Tensor, Tensor, Tensor> quantize(const Tensor& z, const Tensor& codebook, double beta) {
  check_arguments(z, codebook);
  const OnDeviceOf device(z);
  const Tensor codes = torch::stable::new_empty(z, {z.size(0), z.size(1)});
  Tensor loss = torch::stable::new_empty(z, {}, ScalarType::Float);
  const Tensor indices = torch::stable::new_empty(z, {z.size(0)}, ScalarType::Long);
  Tensor counts = torch::stable::new_empty(z, {codebook.size(0)}, ScalarType::Long);
  const Tensor distances = torch::stable::new_empty(z, {z.size(0)}, ScalarType::Float);
  NearestCodeCudaParams p = params_of(z, codebook, indices, distances);
  p.codes = codes.mutable_data_ptr();
  p.loss = loss.mutable_data_ptr<float>();
  p.counts = counts.mutable_data_ptr<int64_t>();
  p.beta = beta;
  if (p.N > 0) {
    launch(p, z, device.stream());
  } else {
    torch::stable::fill_(loss, std::numeric_limits<double>::quiet_NaN());
    torch::stable::zero_(counts);
  }
  return {codes, loss, indices, counts};
}

// The rows in the order of their codes, and within a code in their own. A radix sort takes a pass for each byte.
Tensor sort_rows(const Tensor& indices, int64_t K) {
  return stable_sort(torch::stable::to(indices, K <= 1 << 15 ? ScalarType::Short : ScalarType::Int)).second;
}

std::tuple<Tensor, Tensor> backward(const std::optional<Tensor>& grad_codes, const Tensor& weight, const Tensor& z,
                                    const Tensor& codebook, const Tensor& indices, double z_scale, double code_scale) {
  check_arguments(z, codebook);
  check_cuda(weight, z, "weight");
  STD_TORCH_CHECK(weight.scalar_type() == ScalarType::Float, "weight must be float32");
  check_cuda(indices, z, "indices");
  if (grad_codes.has_value()) {
    check_cuda(*grad_codes, z, "grad_codes");
    STD_TORCH_CHECK(grad_codes->scalar_type() == z.scalar_type(), "grad_codes must have z's dtype");
  }
  check_gradients(grad_codes, weight, z, indices);
  const OnDeviceOf device(z);
  const int64_t N = z.size(0), K = codebook.size(0), D = z.size(1);
  NearestCodeBackwardCudaParams p{};
  p.z = matrix_of(z, "z"), p.codebook = matrix_of(codebook, "codebook");
  if (grad_codes.has_value()) p.grad_codes = grad_codes->const_data_ptr();
  const Tensor grad_z = torch::stable::new_empty(z, {N, D});
  Tensor grad_codebook = torch::stable::new_empty(codebook, {K, D});
  if (N == 0) {
    torch::stable::zero_(grad_codebook);
    return {grad_z, grad_codebook};
  }
  const Tensor order = sort_rows(indices, K);
  const Tensor ranges = torch::stable::new_zeros(indices, {2, K});
  const Tensor partials = torch::stable::new_empty(z, {nearest_code::chunks(N), D}, ScalarType::Float);
  p.indices = indices.const_data_ptr<int64_t>();
  p.weight = weight.const_data_ptr<float>();
  p.weight_stride = weight.dim() == 1 ? weight.stride(0) : 0;
  p.order = order.const_data_ptr<int64_t>();
  p.code_begin = ranges.mutable_data_ptr<int64_t>();
  p.code_end = p.code_begin + K;
  p.partials = partials.mutable_data_ptr<float>();
  p.grad_z = grad_z.mutable_data_ptr();
  p.grad_codebook = grad_codebook.mutable_data_ptr();
  p.z_scale = static_cast<float>(z_scale), p.code_scale = static_cast<float>(code_scale);
  p.N = N, p.K = K, p.D = D;
  check_launch(nearest_code_backward_cuda(p, device.stream()), "nearest_code_backward");
  return {grad_z, grad_codebook};
}

}  // namespace
}  // namespace cbtalk

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CUDA, m) {
  m.impl("nearest_code", TORCH_BOX(&cbtalk::search));
  m.impl("nearest_code_backward", TORCH_BOX(&cbtalk::nearest_code_backward<cbtalk::backward>));
  m.impl("vector_quantize", TORCH_BOX(&cbtalk::quantize));
  m.impl("vector_quantize_backward", TORCH_BOX(&cbtalk::vector_quantize_backward<cbtalk::backward>));
}
