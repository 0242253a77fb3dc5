#pragma once

// What the forward and backward kernels of group_norm share: vectors of elements, and where a block works.

#include <climits>
#include <cstring>

#include "cbtalk/cuda/group_norm.h"
#include "cbtalk/group_norm_math.h"
#include "elements.cuh"

namespace cbtalk::group_norm {

// Whether a SiLU takes exact divisions for results of this type.
template <class T>
constexpr bool kExact = sizeof(T) == sizeof(float);

// V elements as they lie in memory: 16 bytes, or one element where the channels do not fill whole vectors.
template <class T, int V>
struct Vector {
  static_assert(V * sizeof(T) == 16);
  uint4 raw;
};
template <class T>
struct Vector<T, 1> {
  T raw;
};

template <class T, int V>
__device__ Vector<T, V> load(const T* source) {
  return *reinterpret_cast<const Vector<T, V>*>(source);
}

template <class T, int V>
__device__ void unpack(const Vector<T, V>& vector, float (&values)[V]) {
  T parts[V];
  memcpy(parts, &vector.raw, sizeof(parts));
#pragma unroll
  for (int v = 0; v < V; ++v) values[v] = widen(parts[v]);
}

// Between two uses of the same vectors: the compiler would otherwise keep them unpacked, in twice the registers.
template <class T, int V, int N>
__device__ void keep_packed(Vector<T, V> (&vectors)[N]) {
  if constexpr (V * sizeof(T) == 16) {
#pragma unroll
    for (int n = 0; n < N; ++n) {
      uint4& raw = vectors[n].raw;
      asm("" : "+r"(raw.x), "+r"(raw.y), "+r"(raw.z), "+r"(raw.w));
    }
  }
}

template <class T, int V>
__device__ void store(T* target, const float (&values)[V]) {
  T parts[V];
#pragma unroll
  for (int v = 0; v < V; ++v) parts[v] = narrow<T>(values[v]);
  if constexpr (V == 1) {
    *target = parts[0];
  } else {
    uint4 raw;
    memcpy(&raw, parts, sizeof(raw));
    // By name: the compiler takes some of these stores apart. Nothing is read from there, so it may move them.
    asm volatile("st.global.v4.b32 [%0], {%1, %2, %3, %4};" ::"l"(__cvta_generic_to_global(target)), "r"(raw.x),
                 "r"(raw.y), "r"(raw.z), "r"(raw.w));
  }
}

// The chunked kernels. A block takes one chunk of pixels by kLanes vectors of channels (128 bytes of a pixel).
constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kRows = 8;  // pixels that a thread has in flight

template <int V>
constexpr int kLanes = V > 1 ? 8 : 32;
template <int V>
constexpr int kSliceChannels = kLanes<V> * V;

template <int V>
struct Place {
  int64_t image, item;      // item: number of the chunk in the whole batch
  int64_t first, last;        // pixels of the chunk
  int64_t channel;            // first channel of this thread; it may lie outside
  bool inside;
  int row;                    // of this thread, among kThreads / kLanes
};

// A grid has fewer than 2^31 blocks, so its divisions are those of 32 bits: 64 bits take several times as long.
template <int V>
__device__ Place<V> place_of(const GroupNormCudaParams& params, unsigned block) {
  const unsigned chunks = static_cast<unsigned>(params.chunks());
  const unsigned slices = (static_cast<unsigned>(params.channels) + kSliceChannels<V> - 1) / kSliceChannels<V>;
  const unsigned item = block / slices, lane = threadIdx.x % kLanes<V>;
  Place<V> place;
  place.item = item;
  place.image = item / chunks;
  place.first = item % chunks * params.chunk_pixels();
  const int64_t end = place.first + params.chunk_pixels();
  place.last = end < params.pixels ? end : params.pixels;
  place.channel = block % slices * kSliceChannels<V> + lane * V;
  place.inside = place.channel < params.channels;  // with whole vectors: all V channels are
  place.row = threadIdx.x / kLanes<V>;
  return place;
}

template <int V>
int64_t chunk_blocks(const GroupNormCudaParams& params) {
  return params.batch * params.chunks() * ((params.channels + kSliceChannels<V> - 1) / kSliceChannels<V>);
}

// The pixels of one thread in one tile of its chunk: all kRows loads are under way before the first is used.
template <class T, int V>
struct Rows {
  static constexpr int kStep = kThreads / kLanes<V>;  // pixels between two of one thread
  static constexpr int kTile = kStep * kRows;

  const GroupNormCudaParams& params;
  const Place<V>& place;
  int64_t start;  // first pixel of the tile

  __device__ int64_t pixel(int u) const { return start + place.row + u * kStep; }
  __device__ bool valid(int u) const { return place.inside && pixel(u) < place.last; }
  __device__ int64_t offset(int u) const {
    return (place.image * params.pixels + pixel(u)) * params.channels + place.channel;
  }
  __device__ void load_all(const void* image, Vector<T, V> (&vectors)[kRows]) const {
#pragma unroll
    for (int u = 0; u < kRows; ++u) {
      vectors[u] = valid(u) ? load<T, V>(static_cast<const T*>(image) + offset(u)) : Vector<T, V>{};
    }
  }
};

// What a channel is multiplied with: y = (x - mean) * scale + bias, scale = weight * rstd.
template <int V>
struct Coefficients {
  float mean[V], rstd[V], scale[V], bias[V];

  __device__ void read(const GroupNormCudaParams& params, int64_t image, int64_t channel) {
    const unsigned width = static_cast<unsigned>(params.width());
#pragma unroll
    for (int v = 0; v < V; ++v) {
      const int64_t group = image * params.groups + static_cast<unsigned>(channel + v) / width;
      mean[v] = params.mean[group];
      rstd[v] = params.rstd[group];
      scale[v] = params.weight[channel + v] * rstd[v];
      bias[v] = params.bias[channel + v];
    }
  }
  __device__ float normalised(float x, int v) const { return fmaf(x - mean[v], scale[v], bias[v]); }
};

// Sums over the rows of a block, per channel of its slice: a shuffle in each warp, then the warps in their order.
template <int V, int lanes, int warps>
struct RowSums {
  float warp[warps][lanes * V];

  // Every thread calls it; the caller synchronises before total().
  __device__ void add(float (&own)[V]) {
#pragma unroll
    for (int v = 0; v < V; ++v) {
#pragma unroll
      for (int distance = 16; distance >= lanes; distance /= 2) {
        own[v] += __shfl_down_sync(~0u, own[v], distance);
      }
      const int lane = threadIdx.x % 32;
      if (lane < lanes) warp[threadIdx.x / 32][lane * V + v] = own[v];
    }
  }
  __device__ double total(int channel) const {
    double sum = 0;
    for (int w = 0; w < static_cast<int>(blockDim.x) / 32; ++w) sum += warp[w][channel];
    return sum;
  }
};

// A thread of a slab kernel: 16-byte vectors of kSlabVectors pixels, in registers.
template <class T, int lanes>
struct Slab {
  static constexpr int V = 16 / sizeof(T);
  static constexpr int kChannels = lanes * V;
  int64_t image, channel;  // first channel of the slab
  int rows;                  // pixels between two of one thread
  int left;                  // pixels from the first of this thread to the end of the image
  int64_t base, step;        // in elements: its first vector, and the way to the next

  __device__ explicit Slab(const GroupNormCudaParams& params) {
    const unsigned slabs = static_cast<unsigned>(params.channels) / kChannels;
    image = blockIdx.x / slabs;
    channel = blockIdx.x % slabs * kChannels;
    rows = blockDim.x / lanes;
    const int row = threadIdx.x / lanes;
    left = static_cast<int>(params.pixels) - row;
    base = (image * params.pixels + row) * params.channels + channel + threadIdx.x % lanes * V;
    step = rows * params.channels;
  }
  __device__ bool valid(int u) const { return u * rows < left; }
  __device__ int64_t offset(int u) const { return base + u * step; }
  __device__ void load_all(const void* x, Vector<T, V> (&vectors)[kSlabVectors]) const {
#pragma unroll
    for (int u = 0; u < kSlabVectors; ++u) {
      vectors[u] = valid(u) ? load<T, V>(static_cast<const T*>(x) + offset(u)) : Vector<T, V>{};
    }
  }
};

// A launch with a grid that the hardware can count, or an error.
template <class... Arguments>
cudaError_t launch(void (*kernel)(Arguments...), int64_t blocks, int64_t threads, cudaStream_t stream,
                   const GroupNormCudaParams& params) {
  if (blocks > INT_MAX || params.channels > INT_MAX) return cudaErrorInvalidConfiguration;
  kernel<<<static_cast<unsigned>(blocks), static_cast<unsigned>(threads), 0, stream>>>(params);
  return cudaGetLastError();
}

// Calls run(an element, a bool) with the types that the parameters ask for.
template <class Run>
cudaError_t with_types(const GroupNormCudaParams& params, const Run& run) {
  return with_storage(params.storage, [&](auto element) {
    return params.silu ? run(element, std::true_type{}) : run(element, std::false_type{});
  });
}

}  // namespace cbtalk::group_norm
