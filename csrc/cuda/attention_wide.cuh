#pragma once

// Heads of 16 and 32 columns, on tensor cores (tensor_cores.cuh says which lane holds what). A warp owns 16 rows at a
// time as the left factors of its products; the rows of the other side lie in shared memory, ready to be right factors.
// float16 and bfloat16 are multiplied as they are, and weights and gradients of scores are rounded to them for the
// product that follows, as scaled_dot_product_attention does. A float32 is the sum of three bfloat16, exactly; of their
// nine products, the three that are below its rounding are left out. That takes as long as three products of TF32,
// whose factors lose a bit: where one key takes all, the result would not be its value.

#include "attention_warps.cuh"

namespace cbtalk::attention {

// Columns of a left factor, and how many times 8 columns of sums make one.
constexpr int kDepth = 16;
constexpr int kStepTiles = kDepth / 8;

// Rows in shared memory at a time, of each of two matrices.
template <class T>
constexpr int kStaged = sizeof(T) == sizeof(float) ? 64 : 128;

template <class T>
struct Left {  // (16, kDepth)
  uint32_t word[kParts<T>][4];

  __device__ void set(int i, const Pair<T>& pair) {
#pragma unroll
    for (int part = 0; part < kParts<T>; ++part) word[part][i] = pair.word[part];
  }
};

template <class T>
struct Right {  // (kDepth, 8)
  uint32_t word[kParts<T>][2];
};

template <class T>
__device__ void multiply(float (&sum)[4], const Left<T>& a, const Right<T>& b) {
  if constexpr (kParts<T> == 1) {
    multiply_halves<T>(sum, a.word[0], b.word[0]);
  } else {
    // The tensor cores truncate what they add up; a float32 sum of short sums does not drift.
    float few[4] = {};
#pragma unroll
    for (int order = kParts<T> - 1; order >= 0; --order) {
#pragma unroll
      for (int part = 0; part <= order; ++part) multiply_halves<Part<T>>(few, a.word[part], b.word[order - part]);
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) sum[i] += few[i];
  }
}

// Columns [column, column + kDepth) of 16 rows in global memory: rows[0] is row g, rows[1] is row g + 8; null is zeros.
template <class T>
__device__ Left<T> left_of_rows(const T* const (&rows)[2], int column) {
  Left<T> left;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const T* row = rows[i % 2];
    const int place = column + 2 * lane_member() + i / 2 * 8;
    left.set(i, row == nullptr ? Pair<T>(0.0f, 0.0f) : Pair<T>(row[place], row[place + 1]));
  }
  return left;
}

// Sums, two tiles of 8 columns, as the left factor of a product over their columns.
template <class T>
__device__ Left<T> left_of_sums(const float (*tiles)[4]) {
  Left<T> left;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const float* pair = tiles[i / 2] + i % 2 * 2;
    left.set(i, {narrow<T>(pair[0]), narrow<T>(pair[1])});
  }
  return left;
}

// Elements of a row that a thread reads at once, 16 bytes.
template <class T>
constexpr int kAtOnce = 16 / sizeof(T);

// Rows of D columns as right factors. The pitch keeps the lanes of a warp on different banks.
template <class T, int D>
struct Matrix {
  static constexpr int kPitch = D / 2 + 4;  // words
  alignas(16) uint32_t word[kParts<T>][kStaged<T>][kPitch];

  __device__ void put(int row, int column, const T (&values)[kAtOnce<T>]) {
    uint32_t words[kParts<T>][kAtOnce<T> / 2];
#pragma unroll
    for (int i = 0; i < kAtOnce<T> / 2; ++i) {
      const Pair<T> pair(values[2 * i], values[2 * i + 1]);
#pragma unroll
      for (int part = 0; part < kParts<T>; ++part) words[part][i] = pair.word[part];
    }
#pragma unroll
    for (int part = 0; part < kParts<T>; ++part) {
      Vector<uint32_t, kAtOnce<T> / 2> vector;
      memcpy(&vector, words[part], sizeof(vector));
      *reinterpret_cast<Vector<uint32_t, kAtOnce<T> / 2>*>(&word[part][row][column / 2]) = vector;
    }
  }

  // The rows as columns: kDepth columns from `column` on of 8 rows from `row` on, transposed.
  __device__ Right<T> along(int row, int column) const {
    Right<T> factor;
#pragma unroll
    for (int i = 0; i < 2 * kParts<T>; ++i) {
      factor.word[i / 2][i % 2] = word[i / 2][row + lane_row()][column / 2 + lane_member() + i % 2 * 4];
    }
    return factor;
  }

  // kDepth rows from `row` on. factor[c] has the columns column + 2 * g + c: a lane reads two that are adjacent.
  __device__ void across(int row, int column, Right<T> (&factor)[2]) const {
    const int place = column / 2 + lane_row();
#pragma unroll
    for (int i = 0; i < 2 * kParts<T>; ++i) {
      const auto* rows = word[i / 2] + row + 2 * lane_member() + i % 2 * 8;
      const uint32_t even = rows[0][place], odd = rows[1][place];
      factor[0].word[i / 2][i % 2] = (even & 0xffffu) | odd << 16;
      factor[1].word[i / 2][i % 2] = even >> 16 | (odd & 0xffff0000u);
    }
  }
};

// products (M * 16, N * 8) = left (M * 16, D) times N * 8 rows of the matrix, transposed.
template <int M, int N, class T, int D>
__device__ void multiply_along(const Left<T> (&left)[M][D / kDepth], const Matrix<T, D>& matrix, int row,
                               float (&products)[M][N][4]) {
#pragma unroll
  for (int tile = 0; tile < N; ++tile) {
#pragma unroll
    for (int m = 0; m < M; ++m) {
#pragma unroll
      for (int i = 0; i < 4; ++i) products[m][tile][i] = 0.0f;
    }
#pragma unroll
    for (int step = 0; step < D / kDepth; ++step) {
      const Right<T> right = matrix.along(row + 8 * tile, step * kDepth);
#pragma unroll
      for (int m = 0; m < M; ++m) multiply(products[m][tile], left[m][step], right);
    }
  }
}

// sums (M * 16, D) += left (M * 16, kDepth) times kDepth rows of the matrix. Tile 2 * j + c of the sums has the columns
// 16 * j + 2 * n + c, for n = 2 * t and 2 * t + 1: a lane ends with four adjacent columns, from 16 * j + 4 * t.
template <int M, class T, int D>
__device__ void add_across(const Left<T> (&left)[M], const Matrix<T, D>& matrix, int row, float (&sums)[M][D / 8][4]) {
#pragma unroll
  for (int j = 0; j < D / 16; ++j) {
    Right<T> right[2];
    matrix.across(row, 16 * j, right);
#pragma unroll
    for (int m = 0; m < M; ++m) {
      multiply(sums[m][2 * j], left[m], right[0]);
      multiply(sums[m][2 * j + 1], left[m], right[1]);
    }
  }
}

// M of the kernels that keep two left factors and their gradients: what the registers hold.
template <class T>
constexpr int kMostGradientTiles = sizeof(T) == sizeof(float) ? 1 : 2;

// The rows of a warp as left factors of products, and as it sums them up.
template <int M>
struct WideRows : WarpRows<M> {
  using WarpRows<M>::WarpRows;

  template <class T, int N>
  __device__ void load(const AttentionCudaParams& params, const AttentionCudaRows& source, int m,
                       Left<T> (&left)[N]) const {
    const T* const rows[2] = {this->template at<T>(params, source, m, 0), this->template at<T>(params, source, m, 1)};
#pragma unroll
    for (int step = 0; step < N; ++step) left[step] = left_of_rows(rows, step * kDepth);
  }

  // sums (16, 8 * N) as add_across leaves them.
  template <class T, int N>
  __device__ void store(const AttentionCudaParams& params, void* target, int m, int half, const float (&sums)[N][4],
                        float factor) const {
    T* start = this->template target<T>(params, target, m, half) + 4 * lane_member();
#pragma unroll
    for (int j = 0; j < N / 2; ++j) {
      float four[4];
#pragma unroll
      for (int i = 0; i < 4; ++i) four[i] = sums[2 * j + i % 2][2 * half + i / 2] * factor;
      store_four(start + 16 * j, four);
    }
  }
};

// The keys of a piece, their values, and what is added to their scores.
template <class T, int D>
struct WideKeys {
  Matrix<T, D> key, value;
  float bias[kStaged<T>];  // -infinity for a key that is left out: its rows are zero, whatever they were

  // `count` keys from `first` on, and keys that are left out up to a multiple of 32. Synchronises before and after.
  __device__ void fill(const AttentionCudaParams& params, const bool* mask, const Place& place, int64_t first,
                       int count) {
    constexpr int kVectors = D / kAtOnce<T>;
    const T* keys = key_rows<T>(params, params.key, place.part, place.head);
    const T* values = key_rows<T>(params, params.value, place.part, place.head);
    const bool keys_at_once = in_vectors<T, kAtOnce<T>>(params.key);
    const bool values_at_once = in_vectors<T, kAtOnce<T>>(params.value);
    const int padded = (count + 31) / 32 * 32;
    __syncthreads();
    for (int i = threadIdx.x; i < padded * kVectors; i += blockDim.x) {
      const int k = i / kVectors, column = i % kVectors * kAtOnce<T>;
      const bool kept = k < count && (mask == nullptr || !mask[first + k]);
      T vector[kAtOnce<T>];
      load_vector(keys + (first + k) * params.key.row_stride + column, kept, keys_at_once, vector);
      key.put(k, column, vector);
      load_vector(values + (first + k) * params.value.row_stride + column, kept, values_at_once, vector);
      value.put(k, column, vector);
      if (column == 0) bias[k] = kept ? 0.0f : -INFINITY;
    }
    __syncthreads();
  }
};

}  // namespace cbtalk::attention
