#pragma once

#include <cstdint>

#include "dispatch.h"

namespace cbtalk {

// simd.h applied to arrays, at each level: inputs[0 .. count) in, the named function's values out.
CBTALK_CPU_KERNEL(probe_exp, (const float* input, float* output, int64_t count));
CBTALK_CPU_KERNEL(probe_exp2, (const float* input, float* output, int64_t count));
CBTALK_CPU_KERNEL(probe_partial_copy, (const float* input, float* output, int64_t count));
CBTALK_CPU_KERNEL(probe_reductions, (const float* input, float* sum_max_min, int64_t count));
CBTALK_CPU_KERNEL(probe_select_smaller, (const float* input, int32_t* is_below_half, int64_t count));

}  // namespace cbtalk
