#include "simd_probe.h"

#include "simd.h"

namespace cbtalk::CBTALK_ISA {

void probe_exp(const float* input, float* output, int64_t count) {
  for (int64_t i = 0; i < count; i += kWidth) store(output + i, exp(load(input + i)));
}

void probe_exp2(const float* input, float* output, int64_t count) {
  for (int64_t i = 0; i < count; i += kWidth) store(output + i, exp2(load(input + i)));
}

void probe_partial_copy(const float* input, float* output, int64_t count) {
  for (int64_t i = 0; i < count; i += kWidth) {
    const int lanes = count - i < kWidth ? static_cast<int>(count - i) : kWidth;
    store_first(output + i, load_first(input + i, lanes), lanes);
  }
}

void probe_reductions(const float* input, float* sum_max_min, int64_t count) {
  Vf sum = broadcast(0.0f), largest = load(input), smallest = load(input);
  for (int64_t i = 0; i < count; i += kWidth) {
    sum = sum + load(input + i);
    largest = max(largest, load(input + i));
    smallest = min(smallest, load(input + i));
  }
  sum_max_min[0] = reduce_add(sum);
  sum_max_min[1] = reduce_max(largest);
  sum_max_min[2] = reduce_min(smallest);
}

void probe_select_smaller(const float* input, int32_t* is_below_half, int64_t count) {
  for (int64_t i = 0; i < count; i += kWidth) {
    store(is_below_half + i, select(load(input + i) < 0.5f, broadcast(int32_t{1}), broadcast(int32_t{0})));
  }
}

}  // namespace cbtalk::CBTALK_ISA
