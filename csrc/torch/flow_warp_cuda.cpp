// flow_warp for a GPU: check, allocate, fill the parameters, launch.

#include "cbtalk/cuda/flow_warp.h"

#include <optional>
#include <tuple>

#include "cuda.h"
#include "flow_warp_check.h"
#include "stable_sort.h"

namespace {

using cbtalk::FlowWarpCudaGradParams;
using cbtalk::FlowWarpParams;
using cbtalk::MemoryFormat;
using cbtalk::OnDeviceOf;
using cbtalk::ScalarType;
using cbtalk::Tensor;

FlowWarpParams fill(const Tensor& feature, const Tensor& flow, const std::optional<Tensor>& occlusion, int64_t height,
                    int64_t width, bool align_corners, int64_t padding) {
  cbtalk::check_cuda(flow, feature, "flow");
  if (occlusion.has_value()) cbtalk::check_cuda(*occlusion, feature, "occlusion");
  return cbtalk::fill_flow_warp(feature, flow, occlusion, height, width, align_corners, padding);
}

Tensor allocate(const Tensor& beside, ScalarType type, torch::headeronly::IntHeaderOnlyArrayRef shape,
                MemoryFormat format = MemoryFormat::Contiguous) {
  return torch::stable::empty(shape, type, std::nullopt, beside.device(), std::nullopt, format);
}

void gather_feature(FlowWarpCudaGradParams& params, const Tensor& beside, cudaStream_t stream) {
  const FlowWarpParams& forward = params.forward;
  const int64_t pixels = forward.batch * forward.flows * forward.out_height * forward.out_width;
  Tensor keys = allocate(beside, ScalarType::Long, {pixels});
  Tensor weights = allocate(beside, ScalarType::Float, {pixels, 4});
  Tensor starts = allocate(beside, ScalarType::Long, {forward.batch * forward.height * forward.width + 1});
  params.keys = static_cast<int64_t*>(keys.data_ptr());
  params.weights = static_cast<float*>(weights.data_ptr());
  params.starts = static_cast<int64_t*>(starts.data_ptr());
  cbtalk::check_launch(cbtalk::flow_warp_keys_cuda(params, stream), "flow_warp_keys");
  const auto [sorted_keys, order] = cbtalk::stable_sort(keys);
  params.order = static_cast<const int64_t*>(order.data_ptr());
  cbtalk::check_launch(
      cbtalk::flow_warp_gather_feature_cuda(params, static_cast<const int64_t*>(sorted_keys.data_ptr()), stream),
      "flow_warp_gather_feature");
}

Tensor flow_warp(const Tensor& feature, const Tensor& flow, const std::optional<Tensor>& occlusion, int64_t height,
                 int64_t width, bool align_corners, int64_t padding) {
  FlowWarpParams params = fill(feature, flow, occlusion, height, width, align_corners, padding);
  const OnDeviceOf device(feature);
  Tensor output = allocate(feature, feature.scalar_type(),
                           {params.batch * params.flows, params.channels, height, width}, cbtalk::memory_format(params));
  params.output = output.data_ptr();
  if (output.numel() > 0) cbtalk::check_launch(cbtalk::flow_warp_forward_cuda(params, device.stream()), "flow_warp");
  return output;
}

// Gradients in float32; one that is not needed has no elements.
std::tuple<Tensor, Tensor, Tensor> flow_warp_backward(const Tensor& grad_output, const Tensor& feature,
                                                      const Tensor& flow, const std::optional<Tensor>& occlusion,
                                                      bool align_corners, int64_t padding, bool need_feature,
                                                      bool need_flow, bool need_occlusion, bool deterministic) {
  cbtalk::check_dim(grad_output, 4, "grad_output");
  cbtalk::check_cuda(grad_output, feature, "grad_output");
  STD_TORCH_CHECK(!need_occlusion || occlusion.has_value(), "there is no occlusion to have a gradient");
  const int64_t Ho = grad_output.size(2), Wo = grad_output.size(3);
  FlowWarpCudaGradParams params{};
  params.forward = fill(feature, flow, occlusion, Ho, Wo, align_corners, padding);
  const FlowWarpParams& forward = params.forward;
  cbtalk::check_grad_output(grad_output, feature, forward);
  const int64_t B = forward.batch, N = forward.flows, h = forward.flow_height, w = forward.flow_width;
  const int64_t oh = forward.occlusion_height, ow = forward.occlusion_width;
  const OnDeviceOf device(feature);

  // With nothing resized or summed, the gradient at the size of the output is the gradient itself.
  const bool sum_flow = need_flow && (h != Ho || w != Wo);
  const bool sum_occlusion = need_occlusion && (oh != Ho || ow != Wo || N != 1);
  const auto floats = [&](bool needed, torch::headeronly::IntHeaderOnlyArrayRef shape,
                          MemoryFormat format = MemoryFormat::Contiguous) {
    return needed ? allocate(feature, ScalarType::Float, shape, format) : allocate(feature, ScalarType::Float, {0});
  };
  Tensor grad_feature =
      floats(need_feature, {B, forward.channels, forward.height, forward.width}, cbtalk::memory_format(forward));
  Tensor grad_flow = floats(need_flow, {B, N, h, w, 2}), grad_occlusion = floats(need_occlusion, {B, 1, oh, ow});
  if (grad_output.numel() == 0) {
    return {torch::stable::zero_(grad_feature), torch::stable::zero_(grad_flow), torch::stable::zero_(grad_occlusion)};
  }
  Tensor flow_pixels = sum_flow ? floats(true, {B * N, Ho, Wo, 2}) : grad_flow;
  Tensor occlusion_pixels = sum_occlusion ? floats(true, {B * N, Ho, Wo}) : grad_occlusion;
  const auto pointer = [](bool needed, const Tensor& grad) {
    return needed ? static_cast<float*>(grad.data_ptr()) : nullptr;
  };
  params.grad_output = grad_output.data_ptr();
  params.grad_feature = pointer(need_feature, grad_feature);
  params.grad_flow = pointer(need_flow, grad_flow);
  params.grad_occlusion = pointer(need_occlusion, grad_occlusion);
  params.grad_flow_pixels = pointer(need_flow, flow_pixels);
  params.grad_occlusion_pixels = pointer(need_occlusion, occlusion_pixels);
  params.deterministic = deterministic;
  if (need_feature && deterministic) gather_feature(params, feature, device.stream());
  cbtalk::check_launch(cbtalk::flow_warp_backward_cuda(params, device.stream()), "flow_warp_backward");
  return {grad_feature, grad_flow, grad_occlusion};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CUDA, m) {
  m.impl("flow_warp", TORCH_BOX(&flow_warp));
  m.impl("flow_warp_backward", TORCH_BOX(&flow_warp_backward));
}
