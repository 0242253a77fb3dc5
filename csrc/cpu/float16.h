#pragma once

// float16 in memory, float32 in registers.

#include "simd.h"

namespace cbtalk::CBTALK_ISA {

struct Float16 {
  uint16_t bits;
};

#if defined(__F16C__)

static inline float widen(Float16 value) { return _cvtsh_ss(value.bits); }

static inline Float16 to_float16(float value) { return {_cvtss_sh(value, _MM_FROUND_TO_NEAREST_INT)}; }

#else

static inline float float_of_bits(uint32_t bits) {
  float value;
  __builtin_memcpy(&value, &bits, sizeof value);
  return value;
}

static inline uint32_t bits_of_float(float value) {
  uint32_t bits;
  __builtin_memcpy(&bits, &value, sizeof bits);
  return bits;
}

static inline float widen(Float16 value) {
  const uint32_t magnitude = value.bits & 0x7fffu, sign = (value.bits & 0x8000u) << 16;
  // 2^112 moves the exponent from float16's bias to float32's, subnormals included.
  const float finite = float_of_bits(magnitude << 13) * 0x1p112f;
  const uint32_t bits = magnitude >= 0x7c00u ? (magnitude << 13) | 0x7f800000u : bits_of_float(finite);
  return float_of_bits(bits | sign);
}

// To nearest, ties to even; a NaN stays a NaN.
static inline Float16 to_float16(float value) {
  const uint32_t bits = bits_of_float(value), magnitude = bits & 0x7fffffffu;
  uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u;
  } else if (magnitude >= 0x477ff000u) {  // 65520: half way to what would follow the largest float16
    half = 0x7c00u;
  } else if (magnitude < 0x38800000u) {  // below 2^-14, adding 0.5 rounds to a multiple of 2^-24
    half = bits_of_float(float_of_bits(magnitude) + 0.5f) - 0x3f000000u;
  } else {
    half = (magnitude - 0x38000000u + 0xfffu + ((magnitude >> 13) & 1u)) >> 13;
  }
  return {static_cast<uint16_t>(half | ((bits >> 16) & 0x8000u))};
}

#endif

static inline Vf load(const Float16* source) {
#if defined(__AVX512F__)
  return (Vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i*)source));
#elif defined(__F16C__)
  return (Vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i*)source));
#else
  Vf value;
  for (int lane = 0; lane < kWidth; ++lane) value[lane] = widen(source[lane]);
  return value;
#endif
}

static inline void store(Float16* target, Vf value) {
#if defined(__AVX512F__)
  _mm256_storeu_si256((__m256i*)target, _mm512_cvtps_ph((__m512)value, _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
  _mm_storeu_si128((__m128i*)target, _mm256_cvtps_ph((__m256)value, _MM_FROUND_TO_NEAREST_INT));
#else
  for (int lane = 0; lane < kWidth; ++lane) target[lane] = to_float16(value[lane]);
#endif
}

}  // namespace cbtalk::CBTALK_ISA
