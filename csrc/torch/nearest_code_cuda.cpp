#include "cbtalk/cuda/nearest_code.h"

#include <limits>
#include <optional>
#include <tuple>
#include <vector>

#include "cuda.h"
#include "nearest_code_check.h"
#include "stable_sort.h"

namespace cbtalk {
namespace {

using Shape = std::vector<int64_t>;

StridedMatrices matrices_of(const Tensor& tensor, const char* name) {
  const int64_t head_stride = tensor.dim() == 3 ? tensor.stride(0) : 0;
  return {tensor.const_data_ptr(), storage_of(tensor, name), head_stride, tensor.stride(-2), tensor.stride(-1)};
}

RowWeights weights_of(const Tensor& weight) {
  return {weight.const_data_ptr<float>(), weight.dim() == 2 ? weight.stride(0) : 0,
          weight.dim() > 0 ? weight.stride(-1) : 0};
}

// A tensor of this shape, or of (0,).
Tensor empty_if(bool wanted, const Tensor& like, const Shape& shape, ScalarType type) {
  return torch::stable::new_empty(like, wanted ? shape : Shape{0}, type);
}

void* data_if(bool wanted, const Tensor& tensor) { return wanted ? tensor.mutable_data_ptr() : nullptr; }

void check_grid(const CodeSizes& sizes) {
  STD_TORCH_CHECK(sizes.D > 0, "z must have columns");
  STD_TORCH_CHECK(sizes.H <= nearest_code::kMaxHeads && sizes.H * sizes.K <= nearest_code::kMaxCodes,
                  "there may be at most ", nearest_code::kMaxHeads, " codebooks, of ", nearest_code::kMaxCodes,
                  " codes in all");
}

CodeSizes check_arguments(const Tensor& z, const Tensor& codebook, const std::optional<Tensor>& ignored) {
  check_cuda(z, z, "z");
  check_cuda(codebook, z, "codebook");
  if (ignored.has_value()) check_cuda(*ignored, z, "ignored");
  const CodeSizes sizes = check_rows_and_codes(z, codebook, ignored, nearest_code::kMaxCodes);
  check_grid(sizes);
  return sizes;
}

NearestCodeCudaParams params_of(const CodeSizes& sizes, const Tensor& z, const Tensor& codebook,
                                const std::optional<Tensor>& ignored, const Tensor& indices, const Tensor& distances,
                                void* rows) {
  NearestCodeCudaParams p{};
  p.z = matrices_of(z, "z"), p.codebook = matrices_of(codebook, "codebook");
  if (ignored.has_value()) p.ignored = ignored->const_data_ptr<bool>();
  p.indices = indices.mutable_data_ptr<int64_t>();
  p.distances = distances.mutable_data_ptr<float>();
  p.rows = rows;
  p.H = sizes.H, p.N = sizes.N, p.K = sizes.K, p.D = sizes.D;
  return p;
}

void launch_search(NearestCodeCudaParams p, const Tensor& z, cudaStream_t stream) {
  const Tensor workspace =
      torch::stable::new_empty(z, {nearest_code::workspace_bytes(p.H, p.N, p.K, p.D)}, ScalarType::Byte);
  p.workspace = workspace.mutable_data_ptr();
  check_launch(nearest_code_forward_cuda(p, stream), "nearest_code");
}

// The rows of all heads sorted by code, and their sums by code: of z, or of weight * (rows - z) where there are rows.
void sum_by_code(const CodeSizes& sizes, const Tensor& z, const Tensor* rows, const Tensor* weight,
                 const Tensor& indices, const Tensor& sums, double scale, cudaStream_t stream) {
  const int64_t count = sizes.H * sizes.N, codes = sizes.H * sizes.K;
  const bool narrow = nearest_code::key_bytes(sizes.H, sizes.K) == 2;
  const Tensor keys = torch::stable::new_empty(indices, {count}, narrow ? ScalarType::Short : ScalarType::Int);
  const int64_t* indices_data = indices.const_data_ptr<int64_t>();
  check_launch(code_keys_cuda({indices_data, keys.mutable_data_ptr(), sizes.H, sizes.N, sizes.K}, stream), "code_keys");
  const auto [sorted_keys, order] = stable_sort(keys);
  const Tensor ranges = torch::stable::new_zeros(indices, {2, codes});
  const Tensor partials = torch::stable::new_empty(z, {nearest_code::chunks(count), sizes.D}, ScalarType::Float);
  SumByCodeCudaParams p{};
  p.z = matrices_of(z, "z");
  if (rows != nullptr) p.rows = matrices_of(*rows, "rows"), p.weight = weights_of(*weight);
  p.keys = sorted_keys.const_data_ptr();
  p.order = order.const_data_ptr<int64_t>();
  p.code_begin = ranges.mutable_data_ptr<int64_t>();
  p.code_end = p.code_begin + codes;
  p.partials = partials.mutable_data_ptr<float>();
  p.sums = sums.mutable_data_ptr();
  p.sums_storage = storage_of(sums, "sums");
  p.scale = static_cast<float>(scale);
  p.H = sizes.H, p.N = sizes.N, p.K = sizes.K, p.D = sizes.D;
  check_launch(sum_by_code_cuda(p, stream), "sum_by_code");
}

std::tuple<Tensor, Tensor, Tensor> nearest_code_cuda(const Tensor& z, const Tensor& codebook,
                                                     const std::optional<Tensor>& ignored, bool keep_rows) {
  const CodeSizes sizes = check_arguments(z, codebook, ignored);
  const OnDeviceOf device(z);
  const Tensor indices = torch::stable::new_empty(z, sizes.shape({sizes.N}), ScalarType::Long);
  const Tensor distances = torch::stable::new_empty(z, sizes.shape({sizes.N}), ScalarType::Float);
  const Tensor rows = empty_if(keep_rows, z, sizes.shape({sizes.N, sizes.D}), codebook.scalar_type());
  if (sizes.H * sizes.N > 0) {
    launch_search(params_of(sizes, z, codebook, ignored, indices, distances, data_if(keep_rows, rows)), z,
                  device.stream());
  }
  return {indices, distances, rows};
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> vector_quantize_cuda(
    const Tensor& z, const Tensor& codebook, const std::optional<Tensor>& ignored, double beta, double gamma,
    bool keep_sums, bool keep_rows) {
  const CodeSizes sizes = check_arguments(z, codebook, ignored);
  const OnDeviceOf device(z);
  const Shape rows_shape = sizes.shape({sizes.N, sizes.D});
  const Tensor codes = torch::stable::new_empty(z, rows_shape);
  Tensor loss = torch::stable::new_empty(z, {}, ScalarType::Float);
  const Tensor indices = torch::stable::new_empty(z, sizes.shape({sizes.N}), ScalarType::Long);
  Tensor counts = torch::stable::new_empty(z, sizes.shape({sizes.K}), ScalarType::Long);
  Tensor sums = empty_if(keep_sums, z, sizes.shape({sizes.K, sizes.D}), ScalarType::Float);
  const Tensor rows = empty_if(keep_rows, z, rows_shape, codebook.scalar_type());
  if (sizes.H * sizes.N == 0) {
    torch::stable::fill_(loss, std::numeric_limits<double>::quiet_NaN());
    torch::stable::zero_(counts);
    torch::stable::zero_(sums);
    return {codes, loss, indices, counts, sums, rows};
  }
  const Tensor distances = torch::stable::new_empty(z, sizes.shape({sizes.N}), ScalarType::Float);
  NearestCodeCudaParams p = params_of(sizes, z, codebook, ignored, indices, distances, data_if(keep_rows, rows));
  p.codes = codes.mutable_data_ptr();
  p.loss = loss.mutable_data_ptr<float>();
  p.counts = counts.mutable_data_ptr<int64_t>();
  p.beta = beta, p.gamma = gamma;
  launch_search(p, z, device.stream());
  if (keep_sums) sum_by_code(sizes, z, nullptr, nullptr, indices, sums, 1.0, device.stream());
  return {codes, loss, indices, counts, sums, rows};
}

std::tuple<Tensor, Tensor> nearest_code_backward_cuda(const std::optional<Tensor>& grad_codes, const Tensor& weight,
                                                      const Tensor& z, const Tensor& rows, const Tensor& indices,
                                                      int64_t codes, double z_scale, double code_scale, bool need_z,
                                                      bool need_codebook) {
  check_cuda(z, z, "z");
  check_cuda(rows, z, "rows");
  check_cuda(weight, z, "weight");
  check_cuda(indices, z, "indices");
  if (grad_codes.has_value()) check_cuda(*grad_codes, z, "grad_codes");
  const CodeSizes sizes = check_gradients(grad_codes, weight, z, rows, indices, codes);
  check_grid(sizes);
  const OnDeviceOf device(z);
  const Tensor grad_z = empty_if(need_z, z, sizes.shape({sizes.N, sizes.D}), z.scalar_type());
  Tensor grad_codebook = empty_if(need_codebook, z, sizes.shape({sizes.K, sizes.D}), rows.scalar_type());
  if (sizes.H * sizes.N == 0) {
    torch::stable::zero_(grad_codebook);
    return {grad_z, grad_codebook};
  }
  if (need_z) {
    NearestCodeGradRowsCudaParams p{};
    p.z = matrices_of(z, "z"), p.rows = matrices_of(rows, "rows"), p.weight = weights_of(weight);
    p.indices = indices.const_data_ptr<int64_t>();
    if (grad_codes.has_value()) p.grad_codes = grad_codes->const_data_ptr();
    p.grad_z = grad_z.mutable_data_ptr();
    p.scale = static_cast<float>(z_scale);
    p.H = sizes.H, p.N = sizes.N, p.D = sizes.D;
    check_launch(nearest_code_grad_rows_cuda(p, device.stream()), "nearest_code_backward");
  }
  if (need_codebook) sum_by_code(sizes, z, &rows, &weight, indices, grad_codebook, code_scale, device.stream());
  return {grad_z, grad_codebook};
}

}  // namespace
}  // namespace cbtalk

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CUDA, m) {
  m.impl("nearest_code", TORCH_BOX(&cbtalk::nearest_code_cuda));
  m.impl("nearest_code_backward", TORCH_BOX(&cbtalk::nearest_code_backward_cuda));
  m.impl("vector_quantize", TORCH_BOX(&cbtalk::vector_quantize_cuda));
}
