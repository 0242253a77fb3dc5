// group_norm, backward: one pass over slabs that fit in registers; otherwise sums of chunks, their join, and grad_x.

#include <type_traits>

#include "group_norm_tiles.cuh"

namespace cbtalk::group_norm {
namespace {

// g: the gradient ahead of the SiLU. The sums, of which the gradients of the parameters are made, take it exactly.
template <bool exact, bool with_silu>
__device__ float inner_gradient(float grad_y, float normalised) {
  return with_silu ? grad_y * silu_slope<exact>(normalised) : grad_y;
}

// Per chunk and channel: the sums of g, and of g times the normalised input.
template <class T, int V, bool with_silu>
__global__ void __launch_bounds__(kThreads) sums_kernel(const GroupNormCudaParams params) {
  __shared__ RowSums<V, kLanes<V>, kWarps> of_sum, of_product;
  const Place<V> place = place_of<V>(params, blockIdx.x);
  Coefficients<V> coefficients{};
  if (place.inside) coefficients.read(params, place.image, place.channel);
  float sum[V]{}, product[V]{};
  for (int64_t start = place.first; start < place.last; start += Rows<T, V>::kTile) {
    const Rows<T, V> rows{params, place, start};
    Vector<T, V> x[kRows], grad_y[kRows];
    rows.load_all(params.x, x);
    rows.load_all(params.grad_y, grad_y);
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      if (!rows.valid(u)) continue;
      float values[V], gradients[V];
      unpack<T, V>(x[u], values);
      unpack<T, V>(grad_y[u], gradients);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const float g = inner_gradient<true, with_silu>(gradients[v], coefficients.normalised(values[v], v));
        sum[v] += g;
        product[v] = fmaf(g, values[v] - coefficients.mean[v], product[v]);
      }
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v) product[v] *= coefficients.rstd[v];
  of_sum.add(sum);
  of_product.add(product);
  __syncthreads();
  const int64_t channel = place.channel - threadIdx.x % kLanes<V> * V + threadIdx.x;
  if (threadIdx.x >= kSliceChannels<V> || channel >= params.channels) return;
  params.partial()[place.item * 2 * params.channels + channel] = static_cast<float>(of_sum.total(threadIdx.x));
  params.partial()[(place.item * 2 + 1) * params.channels + channel] =
      static_cast<float>(of_product.total(threadIdx.x));
}

constexpr int kJoinWarps = 8;

__device__ double warp_sum(double value) {  // in lane 0
#pragma unroll
  for (int distance = 16; distance > 0; distance /= 2) value += __shfl_down_sync(~0u, value, distance);
  return value;
}

// One block a group of one image, one warp a channel: the sums of all chunks in float64, and the terms of grad_x.
__global__ void __launch_bounds__(kJoinWarps * 32) join_kernel(const GroupNormCudaParams params) {
  __shared__ double of_warp[2][kJoinWarps];
  const int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  const unsigned groups = static_cast<unsigned>(params.groups);
  const int64_t image = blockIdx.x / groups, width = params.width(), C = params.channels;
  const int64_t first = blockIdx.x % groups * width;
  double weighted_sum = 0, weighted_product = 0;
  for (int64_t c = first + warp; c < first + width; c += kJoinWarps) {
    double sum = 0, product = 0;
    for (int64_t chunk = lane; chunk < params.chunks(); chunk += 32) {
      const float* row = params.partial() + (image * params.chunks() + chunk) * 2 * C + c;
      sum += row[0];
      product += row[C];
    }
    sum = warp_sum(sum);
    product = warp_sum(product);
    weighted_sum += params.weight[c] * sum;
    weighted_product += params.weight[c] * product;
    if (lane == 0) {
      params.sums()[image * 2 * C + c] = static_cast<float>(sum);
      params.sums()[(image * 2 + 1) * C + c] = static_cast<float>(product);
    }
  }
  if (lane == 0) {
    of_warp[0][warp] = weighted_sum;
    of_warp[1][warp] = weighted_product;
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  for (int w = 1; w < kJoinWarps; ++w) {
    weighted_sum += of_warp[0][w];
    weighted_product += of_warp[1][w];
  }
  const InputGradientTerms terms = input_gradient_terms(params.rstd[blockIdx.x], weighted_sum, weighted_product,
                                                        static_cast<double>(params.pixels * width));
  params.coefficients()[blockIdx.x * int64_t{2}] = terms.slope;
  params.coefficients()[blockIdx.x * int64_t{2} + 1] = terms.offset;
}

// The sums of all images, in float64: one thread a channel.
__global__ void __launch_bounds__(kThreads) parameters_kernel(const GroupNormCudaParams params) {
  const int64_t C = params.channels, c = blockIdx.x * int64_t{kThreads} + threadIdx.x;
  if (c >= C) return;
  double sum = 0, product = 0;
#pragma unroll 8
  for (int64_t image = 0; image < params.batch; ++image) {
    sum += params.sums()[image * 2 * C + c];
    product += params.sums()[(image * 2 + 1) * C + c];
  }
  params.grad_bias[c] = static_cast<float>(sum);
  params.grad_weight[c] = static_cast<float>(product);
}

template <class T, int V, bool with_silu>
__global__ void __launch_bounds__(kThreads) input_kernel(const GroupNormCudaParams params) {
  // Backwards: the images that sums_kernel read last may still be in the cache.
  const Place<V> place = place_of<V>(params, gridDim.x - 1 - blockIdx.x);
  if (!place.inside) return;
  Coefficients<V> coefficients;
  coefficients.read(params, place.image, place.channel);
  InputGradientTerms terms[V];
  const unsigned width = static_cast<unsigned>(params.width());
#pragma unroll
  for (int v = 0; v < V; ++v) {
    const int64_t group = place.image * params.groups + static_cast<unsigned>(place.channel + v) / width;
    terms[v] = {params.coefficients()[group * 2], params.coefficients()[group * 2 + 1]};
  }
  for (int64_t start = place.first; start < place.last; start += Rows<T, V>::kTile) {
    const Rows<T, V> rows{params, place, start};
    Vector<T, V> x[kRows], grad_y[kRows];
    rows.load_all(params.x, x);
    rows.load_all(params.grad_y, grad_y);
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      float values[V], gradients[V];
      unpack<T, V>(x[u], values);
      unpack<T, V>(grad_y[u], gradients);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const float g = inner_gradient<kExact<T>, with_silu>(gradients[v], coefficients.normalised(values[v], v));
        values[v] = fmaf(g, coefficients.scale[v],
                         fmaf(values[v] - coefficients.mean[v], terms[v].slope, terms[v].offset));
      }
      if (rows.valid(u)) store<T, V>(static_cast<T*>(params.grad_x) + rows.offset(u), values);
    }
  }
}

constexpr int kSlabThreads = 512;

// One block a slab: x and grad_y stay in registers between the sums and grad_x.
template <class T, int lanes, bool with_silu>
__global__ void __launch_bounds__(kSlabThreads) slab_kernel(const GroupNormCudaParams params) {
  using Part = Slab<T, lanes>;
  constexpr int V = Part::V;
  __shared__ RowSums<V, lanes, kSlabThreads / 32> of_sum, of_product;
  __shared__ double sum[Part::kChannels], product[Part::kChannels];
  __shared__ float mean[Part::kChannels], rstd[Part::kChannels], scale[Part::kChannels], bias[Part::kChannels];
  __shared__ InputGradientTerms terms[Part::kChannels];
  const Part slab(params);
  Vector<T, V> x[kSlabVectors], grad_y[kSlabVectors];
  slab.load_all(params.x, x);
  slab.load_all(params.grad_y, grad_y);

  const int tid = threadIdx.x, width = static_cast<int>(params.width()), first = tid % lanes * V;
  for (int c = tid; c < Part::kChannels; c += blockDim.x) {
    const int64_t channel = slab.channel + c, group = slab.image * params.groups + channel / width;
    mean[c] = params.mean[group];
    rstd[c] = params.rstd[group];
    scale[c] = params.weight[channel] * rstd[c];
    bias[c] = params.bias[channel];
  }
  __syncthreads();

  float own_sum[V]{}, own_product[V]{}, values[V], gradients[V];
#pragma unroll
  for (int u = 0; u < kSlabVectors; ++u) {
    if (!slab.valid(u)) continue;
    unpack<T, V>(x[u], values);
    unpack<T, V>(grad_y[u], gradients);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int c = first + v;
      const float centred = values[v] - mean[c];
      const float g = inner_gradient<true, with_silu>(gradients[v], fmaf(centred, scale[c], bias[c]));
      own_sum[v] += g;
      own_product[v] = fmaf(g, centred, own_product[v]);
    }
  }
#pragma unroll
  for (int v = 0; v < V; ++v) own_product[v] *= rstd[first + v];
  keep_packed(x);
  keep_packed(grad_y);
  of_sum.add(own_sum);
  of_product.add(own_product);
  __syncthreads();
  for (int c = tid; c < Part::kChannels; c += blockDim.x) {
    sum[c] = of_sum.total(c);
    product[c] = of_product.total(c);
    float* sums = params.sums() + slab.image * 2 * params.channels + slab.channel + c;
    sums[0] = static_cast<float>(sum[c]);
    sums[params.channels] = static_cast<float>(product[c]);
  }
  __syncthreads();
  for (int c = tid; c < Part::kChannels; c += blockDim.x) {
    double weighted_sum = 0, weighted_product = 0;
    for (int k = c / width * width; k < (c / width + 1) * width; ++k) {
      weighted_sum += params.weight[slab.channel + k] * sum[k];
      weighted_product += params.weight[slab.channel + k] * product[k];
    }
    terms[c] = input_gradient_terms(rstd[c], weighted_sum, weighted_product,
                                    static_cast<double>(params.pixels * width));
  }
  __syncthreads();

#pragma unroll
  for (int u = 0; u < kSlabVectors; ++u) {
    __syncwarp();  // or the compiler takes up several vectors at a time, and spills registers
    unpack<T, V>(x[u], values);
    unpack<T, V>(grad_y[u], gradients);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int c = first + v;
      const float centred = values[v] - mean[c];
      const float g = inner_gradient<kExact<T>, with_silu>(gradients[v], fmaf(centred, scale[c], bias[c]));
      values[v] = fmaf(g, scale[c], fmaf(centred, terms[c].slope, terms[c].offset));
    }
    if (slab.valid(u)) store<T, V>(static_cast<T*>(params.grad_x) + slab.offset(u), values);
  }
}

template <class T, int V, bool with_silu>
cudaError_t run_chunks(const GroupNormCudaParams& params, cudaStream_t stream) {
  const int64_t blocks = chunk_blocks<V>(params);
  cudaError_t error = launch(&sums_kernel<T, V, with_silu>, blocks, kThreads, stream, params);
  if (error == cudaSuccess) {
    error = launch(&join_kernel, params.batch * params.groups, kJoinWarps * 32, stream, params);
  }
  if (error == cudaSuccess) error = launch(&input_kernel<T, V, with_silu>, blocks, kThreads, stream, params);
  return error;
}

template <class T, bool with_silu>
cudaError_t run(const GroupNormCudaParams& params, cudaStream_t stream) {
  const bool aligned = group_norm_aligned(params, params.x, params.grad_y, params.grad_x);
  const int lanes = aligned ? group_norm_slab_lanes(params, kSlabThreads) : 0;
  cudaError_t error;
  if (lanes != 0) {
    const int64_t slabs = params.batch * params.channels / (lanes * params.vector_size());
    error = launch(lanes == 4 ? &slab_kernel<T, 4, with_silu> : &slab_kernel<T, 2, with_silu>, slabs,
                   group_norm_slab_threads(params, lanes), stream, params);
  } else if (aligned) {
    error = run_chunks<T, 16 / sizeof(T), with_silu>(params, stream);
  } else {
    error = run_chunks<T, 1, with_silu>(params, stream);
  }
  if (error != cudaSuccess) return error;
  return launch(&parameters_kernel, (params.channels + kThreads - 1) / kThreads, kThreads, stream, params);
}

}  // namespace
}  // namespace cbtalk::group_norm

cudaError_t cbtalk::group_norm_backward_cuda(const GroupNormCudaParams& params, cudaStream_t stream) {
  return group_norm::with_types(params, [&](auto element, auto with_silu) {
    return group_norm::run<decltype(element), decltype(with_silu)::value>(params, stream);
  });
}
