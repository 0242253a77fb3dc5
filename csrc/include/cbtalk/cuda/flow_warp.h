#pragma once

// flow_warp on a GPU: output = sample(feature, resize(flow)) * resize(occlusion), and its gradients.

#include <cuda_runtime_api.h>

#include <cstdint>

#include "cbtalk/flow_warp.h"

namespace cbtalk {

cudaError_t flow_warp_forward_cuda(const FlowWarpParams& params, cudaStream_t stream);

struct FlowWarpCudaGradParams {
  FlowWarpParams forward;        // output is not used
  const void* grad_output;       // (B*N, C, Ho, Wo), dense in its memory format
  float* grad_feature;           // (B, C, H, W), dense in the memory format of feature; or null
  float* grad_flow;              // (B*N, h, w, 2), dense; or null
  float* grad_occlusion;         // (B, 1, h', w'), dense; or null
  float* grad_flow_pixels;       // workspace (B*N, Ho, Wo, 2), grad_flow itself where no resizing is needed
  float* grad_occlusion_pixels;  // workspace (B*N, Ho, Wo), grad_occlusion itself where no resizing and no sum is needed
  bool deterministic;            // grad_feature is left to flow_warp_gather_feature_cuda

  // Workspace of a deterministic grad_feature; pixels are the B*N*Ho*Wo of the output.
  int64_t* keys;         // (pixels): the feature's pixel of the top left tap, B*H*W where there is no tap
  float* weights;        // (pixels, 4), of the taps, times the occlusion
  const int64_t* order;  // (pixels): the pixels sorted by their keys, stable
  int64_t* starts;       // (B*H*W + 1): where each key begins among the sorted ones
};

// The gradients that have a pointer. Sums of grad_feature are atomic: their order is free. All others are fixed.
cudaError_t flow_warp_backward_cuda(const FlowWarpCudaGradParams& params, cudaStream_t stream);

// Writes keys and weights, for the caller to sort.
cudaError_t flow_warp_keys_cuda(const FlowWarpCudaGradParams& params, cudaStream_t stream);

// Writes grad_feature, summed in the order of the sorted keys.
cudaError_t flow_warp_gather_feature_cuda(const FlowWarpCudaGradParams& params, const int64_t* sorted_keys,
                                          cudaStream_t stream);

}  // namespace cbtalk
