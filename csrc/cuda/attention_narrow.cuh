#pragma once

// Heads of 4 and 8 columns. The scores, and grad_out times the values, are products of warps on tensor cores: a warp
// owns 16 rows at a time as left factors; the rows of the other side lie in shared memory as right factors, 8 to a
// product. What is summed over rows or keys is multiplied and added in float32 by the lane that has the weight: to
// split a weight for tensor cores would take longer than its few products.
// A float32 is the sum of three bfloat16, exactly: its parts 0, 1 and 2. They lie side by side in the columns of a
// factor, so that one product of the tensor cores takes several products of parts.

#include "attention_warps.cuh"

namespace cbtalk::attention {

// Keys in shared memory at a time, and those whose scores a lane holds its share of before it raises its maxima.
template <int D>
constexpr int kStagedKeys = 1024 / D;
template <int D>
constexpr int kGroupTiles = 32 / D;
template <int D>
constexpr int kKeyGroup = 8 * kGroupTiles<D>;

template <int D, class T>
__device__ void load(const T* source, bool inside, bool at_once, T (&values)[D]) {
#pragma unroll
  for (int j = 0; j < D; j += 4) {
    T four[4];
    load_vector(source + j, inside, at_once, four);
#pragma unroll
    for (int i = 0; i < 4; ++i) values[j + i] = four[i];
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

template <int D, class T>
__device__ void write_row(float* row, const T (&values)[D], float factor = 1.0f) {
#pragma unroll
  for (int j = 0; j < D; j += 4) {
    float four[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) four[i] = widen(values[j + i]) * factor;
    *reinterpret_cast<float4*>(row + j) = {four[0], four[1], four[2], four[3]};
  }
}

template <int D>
__device__ void add_scaled(float factor, const float (&row)[D], float (&sum)[D]) {
#pragma unroll
  for (int j = 0; j < D; ++j) sum[j] = fmaf(factor, row[j], sum[j]);
}

// The side of the scores that a row is of. Whichever is the left factor, the same terms are in the same places of a
// product: all kernels have the same scores to the last bit, and the largest of a row has the weight 1 in each of them.
enum class Side { query, key };

// A lane's part of a row: words of its two columns, 2 * t and the next. With heads of 4 columns, lanes 2 and 3 have
// the columns of lanes 0 and 1, of other parts.
template <class T, int D>
struct alignas(kParts<T> == 3 ? 16 : 4) NarrowWords {
  uint32_t word[kParts<T> == 3 ? 4 : 1];

  template <Side S>
  __device__ void set(const Pair<T>& pair, int member) {
    const bool first = 2 * member < D;
    if constexpr (kParts<T> == 1) {
      word[0] = first ? pair.word[0] : 0;
    } else if constexpr (D == 4 && S == Side::query) {
      word[0] = first ? pair.word[0] : pair.word[1];
      word[1] = first ? pair.word[2] : pair.word[1];
      word[2] = word[0];
      word[3] = first ? pair.word[0] : 0;
    } else if constexpr (D == 4) {
      word[0] = first ? pair.word[1] : pair.word[0];
      word[1] = first ? pair.word[0] : pair.word[1];
      word[2] = pair.word[2];
      word[3] = first ? pair.word[0] : 0;
    } else {
      word[0] = pair.word[0], word[1] = pair.word[1], word[2] = pair.word[2], word[3] = 0;
    }
  }
};

// 16 rows of D columns as left factor: rows g and g + 8.
template <class T, int D, Side S>
struct NarrowLeft {
  NarrowWords<T, D> row[2];

  // Null is a row of zeros.
  __device__ void load(const T* source, int half) {
    const int column = 2 * lane_member() % D;
    const Pair<T> pair = source == nullptr ? Pair<T>(0.0f, 0.0f) : Pair<T>(source[column], source[column + 1]);
    row[half].template set<S>(pair, lane_member());
  }

  // sum (16, 8) += the rows times 8 rows of the other side. The products of parts 0 come last and by themselves: all
  // others are below 1/128 of them, and lose nothing that counts however the tensor cores add them up.
  __device__ void multiply(const NarrowWords<T, D>& other, float (&sum)[4]) const {
    constexpr bool kIsQuery = S == Side::query;
    if constexpr (kParts<T> == 1) {
      add(0, other, 0, sum);
    } else if constexpr (D == 4) {
      add(2, other, 2, sum);        // parts of the query and of the key: 0 * 2, 1 * 2
      add(0, 1, other, 0, 1, sum);  // 0 * 1, 1 * 0, 2 * 0, 1 * 1
      add(3, other, 3, sum);        // 0 * 0
    } else {
      add(1, other, 1, sum);
      if constexpr (kIsQuery) {
        add(0, 2, other, 2, 0, sum), add(0, 1, other, 1, 0, sum);
      } else {
        add(2, 0, other, 0, 2, sum), add(1, 0, other, 0, 1, sum);
      }
      add(0, other, 0, sum);
    }
  }

 private:
  __device__ void add(int own, const NarrowWords<T, D>& other, int of_other, float (&sum)[4]) const {
    const uint32_t left[2] = {row[0].word[own], row[1].word[own]}, right[1] = {other.word[of_other]};
    multiply_halves<Part<T>>(sum, left, right);
  }
  __device__ void add(int low, int high, const NarrowWords<T, D>& other, int other_low, int other_high,
                      float (&sum)[4]) const {
    const uint32_t left[4] = {row[0].word[low], row[1].word[low], row[0].word[high], row[1].word[high]};
    const uint32_t right[2] = {other.word[other_low], other.word[other_high]};
    multiply_halves<Part<T>>(sum, left, right);
  }
};

// Rows of D columns as right factors.
template <class T, int D, Side S, int Rows>
struct NarrowMatrix {
  NarrowWords<T, D> words[Rows][4];

  __device__ void put(int row, const T (&values)[D]) {
#pragma unroll
    for (int member = 0; member < 4; ++member) {
      const int column = 2 * member % D;
      NarrowWords<T, D> own;
      own.template set<S>({values[column], values[column + 1]}, member);
      words[row][member] = own;
    }
  }
};

// products (M * 16, 8) += left times the 8 rows of the matrix from `row` on, transposed.
template <class T, int D, Side S, Side Other, int M, int Rows>
__device__ void multiply_rows(const NarrowLeft<T, D, S> (&left)[M], const NarrowMatrix<T, D, Other, Rows>& matrix,
                              int row, float (&products)[M][4]) {
  static_assert(S != Other);
  const NarrowWords<T, D> right = matrix.words[row + lane_row()][lane_member()];
#pragma unroll
  for (int m = 0; m < M; ++m) left[m].multiply(right, products[m]);
}

// Calls take(k, key, value, bias) for each of `count` keys from `first` on, and for keys that are left out up to a
// whole group: those have rows of zeros, whatever they were, and a bias of -infinity. Synchronises before and after.
template <int D, class T, class Take>
__device__ void each_key(const AttentionCudaParams& params, const bool* mask, const Place& place, int64_t first,
                         int count, const Take& take) {
  const T* keys = key_rows<T>(params, params.key, place.part, place.head);
  const T* values = key_rows<T>(params, params.value, place.part, place.head);
  const bool keys_in_fours = in_vectors<T>(params.key), values_in_fours = in_vectors<T>(params.value);
  const int padded = (count + kKeyGroup<D> - 1) / kKeyGroup<D> * kKeyGroup<D>;
  __syncthreads();
  for (int k = threadIdx.x; k < padded; k += blockDim.x) {
    const bool kept = k < count && (mask == nullptr || !mask[first + k]);
    T key[D], value[D];
    load(keys + (first + k) * params.key.row_stride, kept, keys_in_fours, key);
    load(values + (first + k) * params.value.row_stride, kept, values_in_fours, value);
    take(k, key, value, kept ? 0.0f : -INFINITY);
  }
  __syncthreads();
}

}  // namespace cbtalk::attention
