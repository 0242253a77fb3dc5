#pragma once

// bfloat16 in memory, float32 in registers.

#include "simd.h"

namespace cbtalk::CBTALK_ISA {

using Bfloat16 = uint16_t;
using Vh = uint16_t __attribute__((vector_size(2 * kWidth)));
using Vu = uint32_t __attribute__((vector_size(4 * kWidth)));

static inline Vf load(const Bfloat16* source) {
  Vh bits;
  __builtin_memcpy(&bits, source, sizeof bits);
  return (Vf)(__builtin_convertvector(bits, Vu) << 16);
}

static inline float widen(Bfloat16 value) {
  const uint32_t bits = static_cast<uint32_t>(value) << 16;
  float result;
  __builtin_memcpy(&result, &bits, sizeof result);
  return result;
}

static inline float widen(float value) { return value; }

// To nearest, ties to even; a NaN stays a NaN.
static inline Vh to_bfloat16(Vf value) {
  const Vu bits = (Vu)value;
  const Vu rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
  const Vu quiet = (bits >> 16) | 0x40u;
  return __builtin_convertvector((Vu)(value == value ? (Vi)rounded : (Vi)quiet), Vh);
}

static inline void store(Bfloat16* target, Vf value) {
  const Vh bits = to_bfloat16(value);
  __builtin_memcpy(target, &bits, sizeof bits);
}

static inline Vf load_first(const Bfloat16* source, int count) {
  Vh bits{};
  __builtin_memcpy(&bits, source, sizeof(Bfloat16) * static_cast<unsigned>(count));
  return (Vf)(__builtin_convertvector(bits, Vu) << 16);
}

static inline void store_first(Bfloat16* target, Vf value, int count) {
  const Vh bits = to_bfloat16(value);
  __builtin_memcpy(target, &bits, sizeof(Bfloat16) * static_cast<unsigned>(count));
}

}  // namespace cbtalk::CBTALK_ISA
