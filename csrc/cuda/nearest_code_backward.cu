#include "cbtalk/cuda/nearest_code.h"
#include "nearest_code_elements.cuh"

// The gradient of the rows, a warp a row.

namespace cbtalk::nearest_code {
namespace {

__global__ __launch_bounds__(kThreads) void nearest_code_bwd_rows_kernel(NearestCodeGradRowsCudaParams p) {
  const int64_t head = blockIdx.z;
  const int lane = threadIdx.x % 32;
  const int64_t row = static_cast<int64_t>(blockIdx.x) * (kThreads / 32) + threadIdx.x / 32;
  if (row >= p.N) return;
  const bool kept = p.indices[head * p.N + row] >= 0;
  const float factor = kept ? p.scale * load(p.weight, head, row) : 0.0f;
#pragma unroll 1
  for (int64_t d = lane; d < p.D; d += 32) {
    const int64_t element = (head * p.N + row) * p.D + d;
    float gradient = 0.0f;
    if (kept) {
      const float carried = p.grad_codes == nullptr ? 0.0f : load(p.grad_codes, p.z.storage, element);
      gradient = carried + factor * (load(p.z, head, row, d) - load(p.rows, head, row, d));
    }
    store(p.grad_z, p.z.storage, element, gradient);
  }
}

}  // namespace
}  // namespace cbtalk::nearest_code

namespace cbtalk {

cudaError_t nearest_code_grad_rows_cuda(const NearestCodeGradRowsCudaParams& p, cudaStream_t stream) {
  using namespace nearest_code;
  const dim3 grid(static_cast<unsigned>(ceil_div(p.N, kThreads / 32)), 1, static_cast<unsigned>(p.H));
  nearest_code_bwd_rows_kernel<<<grid, kThreads, 0, stream>>>(p);
  return cudaGetLastError();
}

}  // namespace cbtalk
