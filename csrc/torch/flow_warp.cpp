// flow_warp for the CPU: check, allocate, fill the parameters, share the units out.

#include "cbtalk/flow_warp.h"

#include <optional>
#include <tuple>

#include "check.h"

namespace {

using cbtalk::FlowWarpGradParams;
using cbtalk::FlowWarpParams;
using cbtalk::ScalarType;
using cbtalk::Tensor;
using torch::headeronly::MemoryFormat;

constexpr int64_t kPixelsPerTask = 512;  // fewer are not worth waking a thread

bool is_channels_last(const Tensor& feature) { return feature.stride(1) == 1 && feature.stride(3) != 1; }

bool is_dense(const Tensor& grad_output, const FlowWarpParams& params) {
  const int64_t C = params.channels, Ho = params.out_height, Wo = params.out_width;
  const int64_t contiguous[4] = {C * Ho * Wo, Ho * Wo, Wo, 1};
  const int64_t channels_last[4] = {C * Ho * Wo, 1, Wo * C, C};
  for (int i = 0; i < 4; ++i) {
    const int64_t expected = params.channels_last ? channels_last[i] : contiguous[i];
    if (grad_output.numel() > 0 && grad_output.size(i) > 1 && grad_output.stride(i) != expected) return false;
  }
  return true;
}

MemoryFormat memory_format(const FlowWarpParams& params) {
  return params.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

void check_map(const Tensor& map, int64_t dim, int64_t batch, const char* name) {
  cbtalk::check_float32(map, name);
  cbtalk::check_dim(map, dim, name);
  cbtalk::check_size(map, 0, batch, name);
  STD_TORCH_CHECK(map.numel() > 0 || batch == 0, name, " must not be empty");
}

FlowWarpParams fill(const Tensor& feature, const Tensor& flow, const std::optional<Tensor>& occlusion, int64_t height,
                    int64_t width, bool align_corners) {
  cbtalk::check_dim(feature, 4, "feature");
  const bool bfloat16 = feature.scalar_type() == ScalarType::BFloat16;
  if (!bfloat16) cbtalk::check_float32(feature, "feature");
  const int64_t unit_stride = is_channels_last(feature) ? feature.stride(1) : feature.stride(3);
  STD_TORCH_CHECK(unit_stride == 1, "feature must be contiguous along its rows or its channels");
  STD_TORCH_CHECK(feature.size(2) > 0 && feature.size(3) > 0, "feature must have at least one pixel");
  STD_TORCH_CHECK(height > 0 && width > 0, "the output must have at least one pixel");
  check_map(flow, 5, feature.size(0), "flow");
  cbtalk::check_size(flow, 4, 2, "flow");

  FlowWarpParams params{};
  params.batch = feature.size(0);
  params.flows = flow.size(1);
  params.channels = feature.size(1);
  params.height = feature.size(2);
  params.width = feature.size(3);
  params.out_height = height;
  params.out_width = width;
  params.flow_height = flow.size(2);
  params.flow_width = flow.size(3);
  params.feature = feature.data_ptr();
  params.flow = static_cast<const float*>(flow.data_ptr());
  for (int i = 0; i < 4; ++i) params.feature_stride[i] = feature.stride(i);
  for (int i = 0; i < 5; ++i) params.flow_stride[i] = flow.stride(i);
  if (occlusion.has_value()) {
    check_map(*occlusion, 4, feature.size(0), "occlusion");
    params.occlusion_height = occlusion->size(2);
    params.occlusion_width = occlusion->size(3);
    params.occlusion = static_cast<const float*>(occlusion->data_ptr());
    for (int i = 0; i < 4; ++i) params.occlusion_stride[i] = occlusion->stride(i);
  }
  params.storage = bfloat16 ? cbtalk::WarpStorage::bfloat16 : cbtalk::WarpStorage::float32;
  params.channels_last = is_channels_last(feature);
  params.align_corners = align_corners;
  return params;
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
                 int64_t width, bool align_corners) {
  FlowWarpParams params = fill(feature, flow, occlusion, height, width, align_corners);
  const int64_t pictures = params.batch * params.flows;
  Tensor output = torch::stable::empty({pictures, params.channels, height, width}, feature.scalar_type(), std::nullopt,
                                       feature.device(), std::nullopt, memory_format(params));
  params.output = output.data_ptr();
  if (output.numel() > 0) run(cbtalk::flow_warp_forward(), params, pictures * height, width);
  return output;
}

// Gradients in float32; one that is not needed has no elements.
std::tuple<Tensor, Tensor, Tensor> flow_warp_backward(const Tensor& grad_output, const Tensor& feature,
                                                      const Tensor& flow, const std::optional<Tensor>& occlusion,
                                                      bool align_corners, bool need_feature, bool need_flow,
                                                      bool need_occlusion) {
  cbtalk::check_dim(grad_output, 4, "grad_output");
  const int64_t Ho = grad_output.size(2), Wo = grad_output.size(3);
  FlowWarpGradParams params{};
  params.forward = fill(feature, flow, occlusion, Ho, Wo, align_corners);
  const FlowWarpParams& forward = params.forward;
  const int64_t B = forward.batch, N = forward.flows, h = forward.flow_height, w = forward.flow_width;
  const int64_t oh = forward.occlusion_height, ow = forward.occlusion_width;
  cbtalk::check_size(grad_output, 0, B * N, "grad_output");
  cbtalk::check_size(grad_output, 1, forward.channels, "grad_output");
  STD_TORCH_CHECK(grad_output.scalar_type() == feature.scalar_type(), "grad_output must have the dtype of feature");
  STD_TORCH_CHECK(is_dense(grad_output, forward), "grad_output must be dense in the memory format of feature");
  params.grad_output = grad_output.data_ptr();

  Tensor grad_feature =
      allocate(need_feature, {B, forward.channels, forward.height, forward.width}, memory_format(forward));
  Tensor grad_flow = allocate(need_flow, {B, N, h, w, 2});
  Tensor grad_occlusion = allocate(need_occlusion, {B, 1, oh, ow});
  // Where nothing is resized or summed, what is computed a row of the output is the gradient itself.
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
