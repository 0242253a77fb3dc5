// group_norm for the CPU: check, allocate, fill the parameters, share the chunks out.

#include "cbtalk/group_norm.h"

#include <tuple>

#include "check.h"

namespace {

using cbtalk::GroupNormParams;
using cbtalk::ScalarType;
using cbtalk::Tensor;

void check_image(const Tensor& x, const Tensor& like, const char* name) {
  STD_TORCH_CHECK(x.is_cpu(), name, " must be a CPU tensor");
  cbtalk::check_dense_channels_last(x, name);
  STD_TORCH_CHECK(x.scalar_type() == like.scalar_type(), name, " must have the dtype of x");
  for (int i = 0; i < 4; ++i) cbtalk::check_size(x, i, like.size(i), name);
}

void check_vector(const Tensor& vector, int64_t size, const char* name) {
  cbtalk::check_float32(vector, name);
  cbtalk::check_contiguous(vector, name);
  STD_TORCH_CHECK(vector.numel() == size, name, " must have ", size, " elements");
}

GroupNormParams fill(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t groups, bool silu) {
  check_image(x, x, "x");
  GroupNormParams params{};
  params.bfloat16 = x.scalar_type() == ScalarType::BFloat16;
  if (!params.bfloat16) cbtalk::check_float32(x, "x");
  params.batch = x.size(0);
  params.channels = x.size(1);
  params.pixels = x.size(2) * x.size(3);
  params.groups = groups;
  params.silu = silu;
  STD_TORCH_CHECK(groups > 0 && params.channels % groups == 0, params.channels, " channels do not divide into ", groups,
                  " groups");
  check_vector(weight, params.channels, "weight");
  check_vector(bias, params.channels, "bias");
  params.x = x.data_ptr();
  params.weight = weight.const_data_ptr<float>();
  params.bias = bias.const_data_ptr<float>();
  return params;
}

Tensor floats(std::initializer_list<int64_t> shape) { return torch::stable::empty(shape, ScalarType::Float); }

using Pass = void (*)(const GroupNormParams&, int64_t, int64_t);

void run(Pass pass, const GroupNormParams& params, int64_t items) {
  torch::stable::parallel_for(0, items, 1, [&](int64_t begin, int64_t end) { pass(params, begin, end); });
}

std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& x, const Tensor& weight, const Tensor& bias, int64_t groups,
                                           double eps, bool silu) {
  GroupNormParams params = fill(x, weight, bias, groups, silu);
  params.eps = static_cast<float>(eps);
  Tensor y = torch::stable::empty_like(x);
  Tensor mean = floats({params.batch, groups}), rstd = floats({params.batch, groups});
  if (x.numel() == 0) return {y, torch::stable::zero_(mean), torch::stable::zero_(rstd)};
  const Tensor partial = floats({params.partial_size()}), coefficients = floats({params.coefficients_size()});
  params.y = y.data_ptr();
  params.mean = mean.mutable_data_ptr<float>();
  params.rstd = rstd.mutable_data_ptr<float>();
  params.partial = partial.mutable_data_ptr<float>();
  params.coefficients = coefficients.mutable_data_ptr<float>();
  run(cbtalk::group_norm_moments(), params, params.items());
  run(&cbtalk::group_norm_join_moments, params, params.batch);
  run(cbtalk::group_norm_apply(), params, params.items());
  return {y, mean, rstd};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_y, const Tensor& x, const Tensor& weight,
                                            const Tensor& bias, const Tensor& mean, const Tensor& rstd, int64_t groups,
                                            bool silu) {
  GroupNormParams params = fill(x, weight, bias, groups, silu);
  check_image(grad_y, x, "grad_y");
  check_vector(mean, params.batch * groups, "mean");
  check_vector(rstd, params.batch * groups, "rstd");
  Tensor grad_x = torch::stable::empty_like(x);
  Tensor grad_weight = floats({params.channels}), grad_bias = floats({params.channels});
  if (x.numel() == 0) return {grad_x, torch::stable::zero_(grad_weight), torch::stable::zero_(grad_bias)};
  const Tensor partial = floats({params.partial_size()}), coefficients = floats({params.coefficients_size()});
  params.grad_y = grad_y.data_ptr();
  params.grad_x = grad_x.data_ptr();
  params.mean = static_cast<float*>(mean.data_ptr());  // read only
  params.rstd = static_cast<float*>(rstd.data_ptr());
  params.grad_weight = grad_weight.mutable_data_ptr<float>();
  params.grad_bias = grad_bias.mutable_data_ptr<float>();
  params.partial = partial.mutable_data_ptr<float>();
  params.coefficients = coefficients.mutable_data_ptr<float>();
  run(&cbtalk::group_norm_restore, params, params.batch);
  run(cbtalk::group_norm_gradient_sums(), params, params.items());
  cbtalk::group_norm_join_gradients(params);
  run(cbtalk::group_norm_input_gradient(), params, params.items());
  return {grad_x, grad_weight, grad_bias};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CPU, m) {
  m.impl("group_norm", TORCH_BOX(&forward));
  m.impl("group_norm_backward", TORCH_BOX(&backward));
}
