#pragma once

// Shared by the CPU and the CUDA binding of flow_warp: checking its tensors and filling its parameters.

#include <optional>

#include "cbtalk/flow_warp.h"
#include "check.h"

namespace cbtalk {

using torch::headeronly::MemoryFormat;

// The kernels address the elements of one image by 32 bits.
inline void check_extent(const Tensor& feature) {
  int64_t last = 0;
  for (int i = 1; i < 4; ++i) last += (feature.size(i) - 1) * feature.stride(i);
  STD_TORCH_CHECK(last < int64_t{1} << 31, "one image of feature spans 2^31 elements or more");
}

inline MemoryFormat memory_format(const FlowWarpParams& params) {
  return params.channels_last ? MemoryFormat::ChannelsLast : MemoryFormat::Contiguous;
}

inline void check_map(const Tensor& map, int64_t dim, int64_t batch, const char* name) {
  STD_TORCH_CHECK(map.scalar_type() == ScalarType::Float, name, " must be float32");
  check_dim(map, dim, name);
  check_size(map, 0, batch, name);
  STD_TORCH_CHECK(map.numel() > 0 || batch == 0, name, " must not be empty");
}

// The devices are the business of each binding.
inline FlowWarpParams fill_flow_warp(const Tensor& feature, const Tensor& flow, const std::optional<Tensor>& occlusion,
                                     int64_t height, int64_t width, bool align_corners, int64_t padding) {
  check_dim(feature, 4, "feature");
  const int64_t unit_stride = has_adjacent_channels(feature) ? feature.stride(1) : feature.stride(3);
  STD_TORCH_CHECK(unit_stride == 1, "feature must be contiguous along its rows or its channels");
  STD_TORCH_CHECK(feature.size(2) > 0 && feature.size(3) > 0, "feature must have at least one pixel");
  check_extent(feature);
  STD_TORCH_CHECK(height > 0 && width > 0, "the output must have at least one pixel");
  check_map(flow, 5, feature.size(0), "flow");
  check_size(flow, 4, 2, "flow");

  FlowWarpParams params{};
  params.storage = storage_of(feature, "feature");
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
  params.channels_last = has_adjacent_channels(feature);
  params.align_corners = align_corners;
  STD_TORCH_CHECK(0 <= padding && padding <= 2, "padding must be 0 (zeros), 1 (border) or 2 (reflection)");
  params.padding = static_cast<Padding>(padding);
  return params;
}

inline void check_grad_output(const Tensor& grad_output, const Tensor& feature, const FlowWarpParams& params) {
  check_size(grad_output, 0, params.batch * params.flows, "grad_output");
  check_size(grad_output, 1, params.channels, "grad_output");
  STD_TORCH_CHECK(grad_output.scalar_type() == feature.scalar_type(), "grad_output must have the dtype of feature");
  const bool dense = params.channels_last ? is_dense_channels_last(grad_output) : grad_output.is_contiguous();
  STD_TORCH_CHECK(dense, "grad_output must be dense in the memory format of feature");
}

}  // namespace cbtalk
