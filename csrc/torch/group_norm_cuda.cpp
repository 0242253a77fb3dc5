// group_norm for the GPU: check, allocate, fill the parameters, launch.

#include "cbtalk/cuda/group_norm.h"

#include <tuple>

#include "cuda.h"
#include "group_norm_check.h"

namespace {

using cbtalk::GroupNormCudaParams;
using cbtalk::ScalarType;
using cbtalk::Tensor;

void check_vector(const Tensor& vector, const Tensor& x, int64_t size, const char* name) {
  cbtalk::check_cuda(vector, x, name);
  cbtalk::check_floats(vector, size, name);
}

Tensor floats(const Tensor& x, std::initializer_list<int64_t> shape) {
  return torch::stable::new_empty(x, shape, ScalarType::Float);
}

GroupNormCudaParams fill(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t groups, bool silu) {
  cbtalk::check_cuda(x, x, "x");
  cbtalk::check_image(x, x, "x");
  GroupNormCudaParams params{};
  params.storage = cbtalk::storage_of(x, "x");
  params.batch = x.size(0);
  params.channels = x.size(1);
  params.pixels = x.size(2) * x.size(3);
  params.groups = groups;
  params.silu = silu;
  STD_TORCH_CHECK(groups > 0 && params.channels % groups == 0, params.channels, " channels do not divide into ", groups,
                  " groups");
  check_vector(weight, x, params.channels, "weight");
  check_vector(bias, x, params.channels, "bias");
  params.x = x.data_ptr();
  params.weight = weight.const_data_ptr<float>();
  params.bias = bias.const_data_ptr<float>();
  return params;
}

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t groups,
                                           double eps, bool silu) {
  GroupNormCudaParams params = fill(x, weight, bias, groups, silu);
  const cbtalk::OnDeviceOf device(x);
  params.eps = static_cast<float>(eps);
  Tensor y = torch::stable::empty_like(x);
  Tensor mean = floats(x, {params.batch, groups}), rstd = floats(x, {params.batch, groups});
  if (x.numel() == 0) return {y, torch::stable::zero_(mean), torch::stable::zero_(rstd)};
  const Tensor workspace = floats(x, {cbtalk::group_norm_forward_workspace(params)});
  params.y = y.data_ptr();
  params.mean = mean.mutable_data_ptr<float>();
  params.rstd = rstd.mutable_data_ptr<float>();
  params.workspace = workspace.mutable_data_ptr<float>();
  cbtalk::check_launch(cbtalk::group_norm_forward_cuda(params, device.stream()), "group_norm");
  return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight,
                                            const Tensor& bias, const Tensor& mean, const Tensor& rstd, int64_t groups,
                                            bool silu) {
  GroupNormCudaParams params = fill(x, weight, bias, groups, silu);
  cbtalk::check_cuda(grad_y, x, "grad_y");
  cbtalk::check_image(grad_y, x, "grad_y");
  check_vector(mean, x, params.batch * groups, "mean");
  check_vector(rstd, x, params.batch * groups, "rstd");
  const cbtalk::OnDeviceOf device(x);
  Tensor grad_x = torch::stable::empty_like(x);
  Tensor grad_weight = floats(x, {params.channels}), grad_bias = floats(x, {params.channels});
  if (x.numel() == 0) return {grad_x, torch::stable::zero_(grad_weight), torch::stable::zero_(grad_bias)};
  const Tensor workspace = floats(x, {cbtalk::group_norm_backward_workspace(params)});
  params.grad_y = grad_y.data_ptr();
  params.grad_x = grad_x.data_ptr();
  params.mean = static_cast<float*>(mean.data_ptr());  // read only
  params.rstd = static_cast<float*>(rstd.data_ptr());
  params.grad_weight = grad_weight.mutable_data_ptr<float>();
  params.grad_bias = grad_bias.mutable_data_ptr<float>();
  params.workspace = workspace.mutable_data_ptr<float>();
  cbtalk::check_launch(cbtalk::group_norm_backward_cuda(params, device.stream()), "group_norm_backward");
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CUDA, m) {
  m.impl("group_norm", TORCH_BOX(&forward));
  m.impl("group_norm_backward", TORCH_BOX(&backward));
}
