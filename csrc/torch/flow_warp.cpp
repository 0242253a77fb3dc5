// flow_warp for the CPU: check, allocate, fill the parameters, share the units out.

#include <optional>
#include <tuple>

#include "flow_warp_check.h"

namespace {

using cbtalk::FlowWarpGradParams;
using cbtalk::FlowWarpParams;
using cbtalk::ScalarType;
using cbtalk::Tensor;
using cbtalk::MemoryFormat;

constexpr int64_t kPixelsPerTask = 512;  // fewer are not worth waking a thread

FlowWarpParams fill(const Tensor& feature, const Tensor& flow, const std::optional<Tensor>& occlusion, int64_t height,
                    int64_t width, bool align_corners, int64_t padding) {
  STD_TORCH_CHECK(feature.is_cpu() && feature.scalar_type() != ScalarType::Half,
                  "feature must be a float32 or bfloat16 CPU tensor");
  cbtalk::check_float32(flow, "flow");
  if (occlusion.has_value()) cbtalk::check_float32(*occlusion, "occlusion");
  return cbtalk::fill_flow_warp(feature, flow, occlusion, height, width, align_corners, padding);
}

Tensor allocate(bool needed, torch::headeronly::IntHeaderOnlyArrayRef shape,
                MemoryFormat format = MemoryFormat::Contiguous) {
  if (!needed) return torch::stable::empty({0}, ScalarType::Float);
  return torch::stable::empty(shape, ScalarType::Float, std::nullopt, std::nullopt, std::nullopt, format);
}

template <class Params>
void run(void (*kernel)(const Params&, int64_t, int64_t), const Params& params, int64_t units, int64_t unit_pixels) {
  const int64_t grain = unit_pixels < kPixelsPerTask ? kPixelsPerTask / unit_pixels : 1;
  torch::stable::parallel_for(0, units, grain, [&](int64_t begin, int64_t end) { kernel(params, begin, end); });
}

Tensor flow_warp(const Tensor& feature, const Tensor& flow, const std::optional<Tensor>& occlusion, int64_t height,
                 int64_t width, bool align_corners, int64_t padding) {
  FlowWarpParams params = fill(feature, flow, occlusion, height, width, align_corners, padding);
  const int64_t images = params.batch * params.flows;
  Tensor output = torch::stable::empty({images, params.channels, height, width}, feature.scalar_type(), std::nullopt,
                                       feature.device(), std::nullopt, cbtalk::memory_format(params));
  params.output = output.data_ptr();
  if (output.numel() > 0) run(cbtalk::flow_warp_forward(), params, images * height, width);
  return output;
}

// Gradients in float32; one that is not needed has no elements. On the CPU all are deterministic.
std::tuple<Tensor, Tensor, Tensor> flow_warp_backward(const Tensor& grad_output, const Tensor& feature,
                                                      const Tensor& flow, const std::optional<Tensor>& occlusion,
                                                      bool align_corners, int64_t padding, bool need_feature,
                                                      bool need_flow, bool need_occlusion, bool /*deterministic*/) {
  cbtalk::check_dim(grad_output, 4, "grad_output");
  const int64_t Ho = grad_output.size(2), Wo = grad_output.size(3);
  FlowWarpGradParams params{};
  params.forward = fill(feature, flow, occlusion, Ho, Wo, align_corners, padding);
  const FlowWarpParams& forward = params.forward;
  const int64_t B = forward.batch, N = forward.flows, h = forward.flow_height, w = forward.flow_width;
  const int64_t oh = forward.occlusion_height, ow = forward.occlusion_width;
  cbtalk::check_grad_output(grad_output, feature, forward);
  params.grad_output = grad_output.data_ptr();

  Tensor grad_feature =
      allocate(need_feature, {B, forward.channels, forward.height, forward.width}, cbtalk::memory_format(forward));
  Tensor grad_flow = allocate(need_flow, {B, N, h, w, 2});
  Tensor grad_occlusion = allocate(need_occlusion, {B, 1, oh, ow});
  // With nothing resized or summed, what is computed a row of the output is the gradient itself.
  const bool sum_flow = need_flow && (h != Ho || w != Wo);
  const bool sum_occlusion = need_occlusion && (oh != Ho || ow != Wo || N != 1);
  Tensor flow_rows = sum_flow ? allocate(true, {B * N, Ho, w, 2}) : grad_flow;
  Tensor occlusion_rows = sum_occlusion ? allocate(true, {B * N, Ho, ow}) : grad_occlusion;
  const auto pointer = [](bool needed, const Tensor& grad) {
    return needed ? static_cast<float*>(grad.data_ptr()) : nullptr;
  };
  params.grad_feature = pointer(need_feature, grad_feature);
  params.grad_flow = pointer(need_flow, grad_flow);
  params.grad_occlusion = pointer(need_occlusion, grad_occlusion);
  params.grad_flow_rows = pointer(need_flow, flow_rows);
  params.grad_occlusion_rows = pointer(need_occlusion, occlusion_rows);

  const int64_t blocks = cbtalk::warp_channel_blocks(forward.channels);
  if (need_feature) run(cbtalk::flow_warp_backward_feature(), params, B * blocks, N * Ho * Wo);
  if (need_flow || need_occlusion) run(cbtalk::flow_warp_backward_rows(), params, B * N * Ho, Wo);
  if (sum_flow) run(cbtalk::flow_warp_backward_flow(), params, B * N * h, w);
  if (sum_occlusion) run(cbtalk::flow_warp_backward_occlusion(), params, B * oh, ow);
  return {grad_feature, grad_flow, grad_occlusion};
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CPU, m) {
  m.impl("flow_warp", TORCH_BOX(&flow_warp));
  m.impl("flow_warp_backward", TORCH_BOX(&flow_warp_backward));
}
