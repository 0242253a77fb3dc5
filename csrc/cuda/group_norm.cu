// group_norm, forward: one pass over slabs that fit in registers; otherwise moments of chunks, their join, and y.

#include <type_traits>

#include "group_norm_tiles.cuh"

namespace cbtalk::group_norm {
namespace {

// Per chunk and channel: the mean, and the sum of squared distances from it.
template <class T, int V>
__global__ void __launch_bounds__(kThreads) moments_kernel(const GroupNormCudaParams params) {
  __shared__ Moments<float> of_warp[kWarps][kSliceChannels<V>];
  __shared__ float count_of_warp[kWarps];
  const Place<V> place = place_of<V>(params, blockIdx.x);
  Moments<float> own[V]{};
  float count = 0;
  for (int64_t start = place.first; start < place.last; start += Rows<T, V>::kTile) {
    const Rows<T, V> rows{params, place, start};
    Vector<T, V> vectors[kRows];
    rows.load_all(params.x, vectors);
    float sum[V]{}, squares[V]{}, values[V], rows_inside = 0;
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      unpack<T, V>(vectors[u], values);
      if (rows.pixel(u) < place.last) rows_inside += 1;
#pragma unroll
      for (int v = 0; v < V; ++v) sum[v] += values[v];  // zero outside
    }
    const JoinWeights<float> weights = join_weights(count, rows_inside);
    const float part = rows_inside > 0 ? 1 / rows_inside : 0.0f;
#pragma unroll
    for (int v = 0; v < V; ++v) sum[v] *= part;
    keep_packed(vectors);
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      if (rows.pixel(u) >= place.last) continue;
      unpack<T, V>(vectors[u], values);
#pragma unroll
      for (int v = 0; v < V; ++v) squares[v] = fmaf(values[v] - sum[v], values[v] - sum[v], squares[v]);
    }
#pragma unroll
    for (int v = 0; v < V; ++v) own[v] = join(weights, own[v], {sum[v], squares[v]});
    count = weights.count;
  }

  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
#pragma unroll
  for (int distance = 16; distance >= kLanes<V>; distance /= 2) {
    const JoinWeights<float> weights = join_weights(count, __shfl_down_sync(~0u, count, distance));
#pragma unroll
    for (int v = 0; v < V; ++v) {
      own[v] = join(weights, own[v], {__shfl_down_sync(~0u, own[v].mean, distance),
                                      __shfl_down_sync(~0u, own[v].squares, distance)});
    }
    count = weights.count;
  }
  if (lane == 0) count_of_warp[warp] = count;
#pragma unroll
  for (int v = 0; v < V; ++v) {
    if (lane < kLanes<V>) of_warp[warp][lane * V + v] = own[v];
  }
  __syncthreads();
  const int64_t channel = place.channel - threadIdx.x % kLanes<V> * V + threadIdx.x;
  if (threadIdx.x >= kSliceChannels<V> || channel >= params.channels) return;
  Moments<float> joined = of_warp[0][threadIdx.x];
  count = count_of_warp[0];
  for (int w = 1; w < kWarps; ++w) {
    const JoinWeights<float> weights = join_weights(count, count_of_warp[w]);
    joined = join(weights, joined, of_warp[w][threadIdx.x]);
    count = weights.count;
  }
  params.partial()[place.item * 2 * params.channels + channel] = joined.mean;
  params.partial()[(place.item * 2 + 1) * params.channels + channel] = joined.squares;
}

constexpr int kJoinThreads = 128;

// One block a group of one image: the moments of all chunks and channels joined, in float64.
__global__ void __launch_bounds__(kJoinThreads) join_kernel(const GroupNormCudaParams params) {
  __shared__ Moments<double> of_thread[kJoinThreads];
  __shared__ double count_of_thread[kJoinThreads];
  const unsigned groups = static_cast<unsigned>(params.groups);
  const unsigned width = static_cast<unsigned>(params.width()), chunks = static_cast<unsigned>(params.chunks());
  const int64_t image = blockIdx.x / groups;
  const float* partial = params.partial() + image * chunks * 2 * params.channels + blockIdx.x % groups * width;
  Moments<double> own{};
  double count = 0;
  for (unsigned entry = threadIdx.x; entry < chunks * width; entry += kJoinThreads) {
    const int64_t chunk = entry / width;
    const int64_t left = params.pixels - chunk * params.chunk_pixels();
    const float* row = partial + chunk * 2 * params.channels + entry % width;
    const double pixels = static_cast<double>(left < params.chunk_pixels() ? left : params.chunk_pixels());
    const JoinWeights<double> weights = join_weights(count, pixels);
    own = join(weights, own, {row[0], row[params.channels]});
    count = weights.count;
  }
  of_thread[threadIdx.x] = own;
  count_of_thread[threadIdx.x] = count;
  for (int half = kJoinThreads / 2; half > 0; half /= 2) {
    __syncthreads();
    if (threadIdx.x >= half) continue;
    const int other = threadIdx.x + half;
    const JoinWeights<double> weights = join_weights(count_of_thread[threadIdx.x], count_of_thread[other]);
    of_thread[threadIdx.x] = join(weights, of_thread[threadIdx.x], of_thread[other]);
    count_of_thread[threadIdx.x] = weights.count;
  }
  if (threadIdx.x != 0) return;
  params.mean[blockIdx.x] = static_cast<float>(of_thread[0].mean);
  params.rstd[blockIdx.x] =
      static_cast<float>(reciprocal_deviation(of_thread[0].squares, count_of_thread[0], params.eps));
}

template <class T, int V, bool with_silu>
__global__ void __launch_bounds__(kThreads) apply_kernel(const GroupNormCudaParams params) {
  // Backwards: the images that moments_kernel read last may still be in the cache.
  const Place<V> place = place_of<V>(params, gridDim.x - 1 - blockIdx.x);
  if (!place.inside) return;
  Coefficients<V> coefficients;
  coefficients.read(params, place.image, place.channel);
  for (int64_t start = place.first; start < place.last; start += Rows<T, V>::kTile) {
    const Rows<T, V> rows{params, place, start};
    Vector<T, V> vectors[kRows];
    rows.load_all(params.x, vectors);
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      float values[V];
      unpack<T, V>(vectors[u], values);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const float normalised = coefficients.normalised(values[v], v);
        values[v] = with_silu ? silu<kExact<T>>(normalised) : normalised;
      }
      if (rows.valid(u)) store<T, V>(static_cast<T*>(params.y) + rows.offset(u), values);
    }
  }
}

constexpr int kSlabThreads = 512;  // 128 registers a thread, 32 of them for x

// One block a slab: x stays in registers while mean, variance and y are computed from it.
template <class T, int lanes, bool with_silu>
__global__ void __launch_bounds__(kSlabThreads, 1) slab_kernel(const GroupNormCudaParams params) {
  using Part = Slab<T, lanes>;
  constexpr int V = Part::V;
  __shared__ RowSums<V, lanes, kSlabThreads / 32> sums;
  __shared__ double total[Part::kChannels];
  __shared__ float mean[Part::kChannels], scale[Part::kChannels], bias[Part::kChannels];
  const Part slab(params);
  Vector<T, V> vectors[kSlabVectors];
  slab.load_all(params.x, vectors);

  const int tid = threadIdx.x, width = static_cast<int>(params.width());
  const double count = static_cast<double>(params.pixels * params.width());
  // The sum over the group of channel tid of what each thread has summed over its pixels.
  const auto over_group = [&](float(&own)[V]) {
    sums.add(own);
    __syncthreads();
    for (int c = tid; c < Part::kChannels; c += blockDim.x) total[c] = sums.total(c);
    __syncthreads();
  };
  const auto group_total = [&](int c) {
    double sum = 0;
    for (int k = c / width * width; k < (c / width + 1) * width; ++k) sum += total[k];
    return sum;
  };

  float own[V]{}, values[V];
#pragma unroll
  for (int u = 0; u < kSlabVectors; ++u) {
    unpack<T, V>(vectors[u], values);
#pragma unroll
    for (int v = 0; v < V; ++v) own[v] += values[v];
  }
  keep_packed(vectors);
  over_group(own);
  for (int c = tid; c < Part::kChannels; c += blockDim.x) mean[c] = static_cast<float>(group_total(c) / count);
  __syncthreads();

  const int first = tid % lanes * V;
#pragma unroll
  for (int v = 0; v < V; ++v) own[v] = 0;
#pragma unroll
  for (int u = 0; u < kSlabVectors; ++u) {
    if (!slab.valid(u)) continue;
    unpack<T, V>(vectors[u], values);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float distance = values[v] - mean[first + v];
      own[v] = fmaf(distance, distance, own[v]);
    }
  }
  keep_packed(vectors);
  over_group(own);
  for (int c = tid; c < Part::kChannels; c += blockDim.x) {
    const float rstd = static_cast<float>(reciprocal_deviation(group_total(c), count, params.eps));
    const int64_t channel = slab.channel + c;
    scale[c] = params.weight[channel] * rstd;
    bias[c] = params.bias[channel];
    if (c % width == 0) {
      params.mean[slab.image * params.groups + channel / width] = mean[c];
      params.rstd[slab.image * params.groups + channel / width] = rstd;
    }
  }
  __syncthreads();

#pragma unroll
  for (int u = 0; u < kSlabVectors; ++u) {
    unpack<T, V>(vectors[u], values);
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const float normalised = fmaf(values[v] - mean[first + v], scale[first + v], bias[first + v]);
      values[v] = with_silu ? silu<kExact<T>>(normalised) : normalised;
    }
    if (slab.valid(u)) store<T, V>(static_cast<T*>(params.y) + slab.offset(u), values);
  }
}

template <class T, int V, bool with_silu>
cudaError_t run_chunks(const GroupNormCudaParams& params, cudaStream_t stream) {
  const int64_t blocks = chunk_blocks<V>(params);
  cudaError_t error = launch(&moments_kernel<T, V>, blocks, kThreads, stream, params);
  if (error == cudaSuccess) error = launch(&join_kernel, params.batch * params.groups, kJoinThreads, stream, params);
  if (error == cudaSuccess) error = launch(&apply_kernel<T, V, with_silu>, blocks, kThreads, stream, params);
  return error;
}

template <class T, bool with_silu>
cudaError_t run(const GroupNormCudaParams& params, cudaStream_t stream) {
  if (!group_norm_aligned(params, params.x, params.y, nullptr)) return run_chunks<T, 1, with_silu>(params, stream);
  const int lanes = group_norm_slab_lanes(params, kSlabThreads);
  if (lanes == 0) return run_chunks<T, 16 / sizeof(T), with_silu>(params, stream);
  const int64_t slabs = params.batch * params.channels / (lanes * params.vector_size());
  return launch(lanes == 4 ? &slab_kernel<T, 4, with_silu> : &slab_kernel<T, 2, with_silu>, slabs,
                group_norm_slab_threads(params, lanes), stream, params);
}

}  // namespace
}  // namespace cbtalk::group_norm

cudaError_t cbtalk::group_norm_forward_cuda(const GroupNormCudaParams& params, cudaStream_t stream) {
  return group_norm::with_types(params, [&](auto element, auto with_silu) {
    return group_norm::run<decltype(element), decltype(with_silu)::value>(params, stream);
  });
}
