#pragma once

// Elements of tensors in any storage, as floats.

#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include <type_traits>

#include "cbtalk/storage.h"

namespace cbtalk {

__device__ inline float widen(float x) { return x; }
__device__ inline float widen(__half x) { return __half2float(x); }
__device__ inline float widen(__nv_bfloat16 x) { return __bfloat162float(x); }

// Rounded to nearest even.
template <class T>
__device__ inline T narrow(float x) {
  if constexpr (std::is_same_v<T, float>) {
    return x;
  } else if constexpr (std::is_same_v<T, __half>) {
    return __float2half_rn(x);
  } else {
    return __float2bfloat16_rn(x);
  }
}

// body(T()) with the type of the elements; what it gives.
template <class Body>
inline auto with_storage(Storage storage, const Body& body) {
  switch (storage) {
    case Storage::float16:
      return body(__half());
    case Storage::bfloat16:
      return body(__nv_bfloat16());
    default:
      return body(float());
  }
}

}  // namespace cbtalk
