#pragma once

// flow_warp: output = sample(feature, resize(flow)) * resize(occlusion), and its gradients.

#include <cstdint>

#include "cbtalk/geometry.h"
#include "cbtalk/storage.h"
#include "dispatch.h"

namespace cbtalk {

// Sizes: B images, N flows each, C channels; feature H x W, output Ho x Wo. Strides are in elements.
struct FlowWarpParams {
  int64_t batch, flows, channels;          // B, N, C
  int64_t height, width;                   // H, W
  int64_t out_height, out_width;           // Ho, Wo
  int64_t flow_height, flow_width;         // h, w
  int64_t occlusion_height, occlusion_width;

  const void* feature;  // (B, C, H, W) in `storage`; the channel or the column stride is 1, as channels_last says
  int64_t feature_stride[4];
  const float* flow;  // (B, N, h, w, 2), (x, y) in [-1, 1]
  int64_t flow_stride[5];
  const float* occlusion;  // (B, 1, h', w') or null
  int64_t occlusion_stride[4];

  Storage storage;      // of feature, output and grad_output; float16 on the GPU alone; all arithmetic is float32
  bool channels_last;   // of feature, output and grad_output
  bool align_corners;
  Padding padding;
  void* output;  // (B*N, C, Ho, Wo), dense in its memory format
};

struct FlowWarpGradParams {
  FlowWarpParams forward;      // output is not used
  const void* grad_output;     // (B*N, C, Ho, Wo), dense in its memory format
  float* grad_feature;         // (B, C, H, W), dense in the memory format of feature; or null
  float* grad_flow;            // (B*N, h, w, 2), dense; or null
  float* grad_occlusion;       // (B, 1, h', w'), dense; or null
  float* grad_flow_rows;       // workspace (B*N, Ho, w, 2), grad_flow itself where no resizing is needed
  float* grad_occlusion_rows;  // workspace (B*N, Ho, w'), grad_occlusion itself where no resizing and no sum is needed
};

// Channels of one unit of work of flow_warp_backward_feature.
constexpr int64_t kWarpChannelBlock = 16;

static inline int64_t warp_channel_blocks(int64_t channels) {
  return (channels + kWarpChannelBlock - 1) / kWarpChannelBlock;
}

// Each kernel works on a range of independent units; no result depends on how the units are dealt out.

// Units: B*N*Ho output rows.
CBTALK_CPU_KERNEL(flow_warp_forward, (const FlowWarpParams& params, int64_t begin, int64_t end))

// Units: B * warp_channel_blocks(C). Writes grad_feature.
CBTALK_CPU_KERNEL(flow_warp_backward_feature, (const FlowWarpGradParams& params, int64_t begin, int64_t end))

// Units: B*N*Ho output rows. Writes grad_flow_rows and grad_occlusion_rows, whichever has a gradient.
CBTALK_CPU_KERNEL(flow_warp_backward_rows, (const FlowWarpGradParams& params, int64_t begin, int64_t end))

// Units: B*N*h rows of grad_flow; sums grad_flow_rows over the output rows that read each.
CBTALK_CPU_KERNEL(flow_warp_backward_flow, (const FlowWarpGradParams& params, int64_t begin, int64_t end))

// Units: B*h' rows of grad_occlusion; sums grad_occlusion_rows over the flows and output rows that read each.
CBTALK_CPU_KERNEL(flow_warp_backward_occlusion, (const FlowWarpGradParams& params, int64_t begin, int64_t end))

}  // namespace cbtalk
