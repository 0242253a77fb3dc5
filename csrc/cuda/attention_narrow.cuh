#pragma once

// Heads of 4 and 8 columns, without tensor cores: a thread owns whole rows and keeps them in registers; the rows of the
// other side are broadcast to all threads of a warp from shared memory.

#include "attention_tiles.cuh"

namespace cbtalk::attention {

// Keys in shared memory at a time: 32 KB of keys and values. At d = 4, that is a whole codebook of 1024.
template <int D>
constexpr int kStagedKeys = 4096 / D;

// Keys whose scores a thread holds before it raises its maximum.
constexpr int kKeyGroup = 8;

// Rows of queries of a thread, where there are many.
template <int D>
constexpr int kMostRows = D <= 4 ? 4 : 2;

template <int D, class T>
__device__ void load(const T* source, bool inside, bool at_once, float (&values)[D]) {
#pragma unroll
  for (int j = 0; j < D; j += 4) {
    T four[4];
    load_four(source + j, inside, at_once, four);
#pragma unroll
    for (int i = 0; i < 4; ++i) values[j + i] = widen(four[i]);
  }
}

template <int D, class T>
__device__ void store(T* target, const float (&values)[D], float factor) {
#pragma unroll
  for (int j = 0; j < D; j += 4) {
    float four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) four[i] = values[j + i] * factor;
    store_four(target + j, four);
  }
}

// A row in shared memory, 16 bytes at a time.
template <int D>
__device__ void read_row(const float* row, float (&values)[D]) {
#pragma unroll
  for (int j = 0; j < D; j += 4) {
    const float4 four = *reinterpret_cast<const float4*>(row + j);
    values[j] = four.x, values[j + 1] = four.y, values[j + 2] = four.z, values[j + 3] = four.w;
  }
}

template <int D>
__device__ void write_row(float* row, const float (&values)[D]) {
#pragma unroll
  for (int j = 0; j < D; j += 4) {
    *reinterpret_cast<float4*>(row + j) = {values[j], values[j + 1], values[j + 2], values[j + 3]};
  }
}

template <int D>
__device__ float dot(const float (&a)[D], const float (&b)[D]) {
  float sum = a[0] * b[0];
#pragma unroll
  for (int j = 1; j < D; ++j) sum = fmaf(a[j], b[j], sum);
  return sum;
}

template <int D>
__device__ void add_scaled(float factor, const float (&row)[D], float (&sum)[D]) {
#pragma unroll
  for (int j = 0; j < D; ++j) sum[j] = fmaf(factor, row[j], sum[j]);
}

template <int D>
struct StagedKeys {
  alignas(16) float key[kStagedKeys<D>][D];
  alignas(16) float value[kStagedKeys<D>][D];
  float bias[kStagedKeys<D>];  // -infinity for a key that is left out: its rows are zero, whatever they were

  // `count` keys from `first` on, and keys that are left out up to a whole group. Synchronises before and after.
  template <class T>
  __device__ void fill(const AttentionCudaParams& params, const bool* mask, const Place& place, int64_t first,
                       int count) {
    const T* keys = key_rows<T>(params, params.key, place.part, place.head);
    const T* values = key_rows<T>(params, params.value, place.part, place.head);
    const bool keys_in_fours = in_fours<T>(params.key), values_in_fours = in_fours<T>(params.value);
    const int padded = (count + kKeyGroup - 1) / kKeyGroup * kKeyGroup;
    __syncthreads();
    for (int k = threadIdx.x; k < padded; k += blockDim.x) {
      const bool kept = k < count && (mask == nullptr || !mask[first + k]);
      float row[D];
      load(keys + (first + k) * params.key.row_stride, kept, keys_in_fours, row);
      write_row(key[k], row);
      load(values + (first + k) * params.value.row_stride, kept, values_in_fours, row);
      write_row(value[k], row);
      bias[k] = kept ? 0.0f : -INFINITY;
    }
    __syncthreads();
  }
};

}  // namespace cbtalk::attention
