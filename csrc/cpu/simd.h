#pragma once

// Vectors of floats for the CPU kernels: one source, compiled once a level (dispatch.h).
// Everything lives in namespace cbtalk::<level>: a function of external linkage shared by the levels would let the
// linker keep the AVX-512 copy for every processor. For the same reason kernels use no std templates.
//
// Vf and Vi are GCC/Clang vector types: + - * / and comparisons work, a comparison gives a Vi of 0 and -1.

#ifndef CBTALK_ISA
#error "simd.h is for the kernels that CMake compiles once a level"
#endif

#if defined(__x86_64__)
#include <immintrin.h>
#endif

#include <cstdint>

namespace cbtalk::CBTALK_ISA {

#if defined(__AVX512F__)
constexpr int kWidth = 16;
#elif defined(__AVX2__)
constexpr int kWidth = 8;
#else
constexpr int kWidth = 4;
#endif

using Vf = float __attribute__((vector_size(4 * kWidth)));
using Vi = int32_t __attribute__((vector_size(4 * kWidth)));

static inline Vf load(const float* source) {
  Vf value;
  __builtin_memcpy(&value, source, sizeof value);
  return value;
}

static inline void store(float* target, Vf value) { __builtin_memcpy(target, &value, sizeof value); }

static inline Vi load(const int32_t* source) {
  Vi value;
  __builtin_memcpy(&value, source, sizeof value);
  return value;
}

static inline void store(int32_t* target, Vi value) { __builtin_memcpy(target, &value, sizeof value); }

static inline Vf broadcast(float value) { return value - Vf{}; }  // value - 0 keeps the sign of zero

static inline Vi broadcast(int32_t value) { return value - Vi{}; }

// 0, 1, 2, ...
static inline Vi iota() {
  Vi value{};
  for (int lane = 0; lane < kWidth; ++lane) value[lane] = lane;
  return value;
}

// The first `count` lanes from memory, zero in the rest; nothing past source + count is read.
static inline Vf load_first(const float* source, int count) {
#if defined(__AVX512F__)
  return (Vf)_mm512_maskz_loadu_ps((__mmask16)((1u << count) - 1), source);
#elif defined(__AVX2__)
  return (Vf)_mm256_maskload_ps(source, (__m256i)(iota() < count));
#else
  Vf value{};
  for (int lane = 0; lane < count; ++lane) value[lane] = source[lane];
  return value;
#endif
}

// Writes the first `count` lanes; nothing past target + count is written.
static inline void store_first(float* target, Vf value, int count) {
#if defined(__AVX512F__)
  _mm512_mask_storeu_ps(target, (__mmask16)((1u << count) - 1), (__m512)value);
#elif defined(__AVX2__)
  _mm256_maskstore_ps(target, (__m256i)(iota() < count), (__m256)value);
#else
  for (int lane = 0; lane < count; ++lane) target[lane] = value[lane];
#endif
}

// a * b + c: rounded once where the level has the instruction, twice at the baseline.
static inline Vf fma(Vf a, Vf b, Vf c) {
#if defined(__AVX512F__)
  return (Vf)_mm512_fmadd_ps((__m512)a, (__m512)b, (__m512)c);
#elif defined(__AVX2__)
  return (Vf)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#else
  return a * b + c;
#endif
}

static inline float fma(float a, float b, float c) {
#if defined(__FMA__)
  return __builtin_fmaf(a, b, c);
#else
  return a * b + c;
#endif
}

// mask ? a : b, lane by lane; mask is what a comparison gave.
static inline Vf select(Vi mask, Vf a, Vf b) { return mask ? a : b; }

static inline Vi select(Vi mask, Vi a, Vi b) { return mask ? a : b; }

// The larger; b where either is NaN.
static inline Vf max(Vf a, Vf b) {
#if defined(__AVX512F__)
  return a > b ? a : b;
#elif defined(__AVX2__)
  return (Vf)_mm256_max_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Vf)_mm_max_ps((__m128)a, (__m128)b);
#else
  return a > b ? a : b;
#endif
}

// The smaller; b where either is NaN.
static inline Vf min(Vf a, Vf b) {
#if defined(__AVX512F__)
  return a < b ? a : b;
#elif defined(__AVX2__)
  return (Vf)_mm256_min_ps((__m256)a, (__m256)b);
#elif defined(__SSE2__)
  return (Vf)_mm_min_ps((__m128)a, (__m128)b);
#else
  return a < b ? a : b;
#endif
}

static inline Vf to_float(Vi value) { return __builtin_convertvector(value, Vf); }

// Towards zero; any integer for a value outside int32 or a NaN.
static inline Vi to_int(Vf value) { return __builtin_convertvector(value, Vi); }

// To the nearest integer, ties to even; |value| < 2^22.
static inline Vf round_small(Vf value) {
  const float shift = 12582912.0f;  // 1.5 * 2^23: the sum has no fraction bits left
  return (value + shift) - shift;
}

// The lanes meet in halves, lane i and lane i + n / 2 of n: an order that does not depend on the compiler.
template <class Vector, class Combine>
static inline auto reduce(Vector value, Combine combine) {
  using Lane = decltype(value[0] + value[0]);
  constexpr int kLanes = sizeof(Vector) / sizeof(Lane);
  if constexpr (kLanes == 2) {
    return combine(value[0], value[1]);
  } else {
    typedef Lane Half __attribute__((vector_size(sizeof(Vector) / 2)));
    Half low, high;
    __builtin_memcpy(&low, &value, sizeof low);
    __builtin_memcpy(&high, reinterpret_cast<const char*>(&value) + sizeof low, sizeof high);
    return reduce(combine(low, high), combine);
  }
}

static inline float reduce_add(Vf value) {
  return reduce(value, [](auto a, auto b) { return a + b; });
}

// Without a NaN among the lanes, as those below.
static inline float reduce_max(Vf value) {
  return reduce(value, [](auto a, auto b) { return a > b ? a : b; });
}

static inline float reduce_min(Vf value) {
  return reduce(value, [](auto a, auto b) { return a < b ? a : b; });
}

static inline int32_t reduce_min(Vi value) {
  return reduce(value, [](auto a, auto b) { return a < b ? a : b; });
}

// value * 2^n for integral -300 <= n <= 300, in two steps so that subnormal results and those near the limit are right.
static inline Vf scale_by_power_of_two(Vf value, Vf n) {
#if defined(__AVX512F__)
  return (Vf)_mm512_scalef_ps((__m512)value, (__m512)n);
#else
  const Vi whole = to_int(n);
  const Vi first = whole >> 1;
  const Vi second = whole - first;
  return value * (Vf)((first + 127) << 23) * (Vf)((second + 127) << 23);
#endif
}

// 2^x within 2 units in the last place; 0 for -inf and below the smallest subnormal, inf above 128, NaN for NaN.
static inline Vf exp2(Vf x) {
  const Vf bounded = min(broadcast(129.0f), max(broadcast(-151.0f), x));
  const Vf n = round_small(bounded);
  const Vf r = bounded - n;  // exact, in [-0.5, 0.5]
  // Minimax of (2^r - 1) / r, error 2e-9 relative to 2^r.
  Vf p = broadcast(1.53533410e-4f);
  p = fma(p, r, broadcast(1.33989002e-3f));
  p = fma(p, r, broadcast(9.61843761e-3f));
  p = fma(p, r, broadcast(5.55033241e-2f));
  p = fma(p, r, broadcast(2.40226479e-1f));
  p = fma(p, r, broadcast(6.93147203e-1f));
  p = fma(p, r, broadcast(1.0f));
  return scale_by_power_of_two(p, n);
}

// e^x within 2 units in the last place; 0 for -inf and below the smallest subnormal, inf above 88.73, NaN for NaN.
static inline Vf exp(Vf x) {
  const Vf bounded = min(broadcast(90.0f), max(broadcast(-105.0f), x));
  const Vf n = round_small(bounded * 1.44269504f);
  // ln 2 in two parts: n * 0.693359375 is exact, the rest is -2.12194440e-4.
  const Vf r = fma(n, broadcast(2.12194440e-4f), fma(n, broadcast(-0.693359375f), bounded));
  // Minimax of (e^r - 1 - r) / r^2, error 3e-9 relative to e^r.
  Vf p = broadcast(1.38145986e-3f);
  p = fma(p, r, broadcast(8.36871688e-3f));
  p = fma(p, r, broadcast(4.16683880e-2f));
  p = fma(p, r, broadcast(1.66665206e-1f));
  p = fma(p, r, broadcast(4.99999934e-1f));
  p = fma(p, r * r, r) + 1.0f;
  return scale_by_power_of_two(p, n);
}

}  // namespace cbtalk::CBTALK_ISA
