#include "cbtalk/group_norm.h"

#include "bfloat16.h"
#include "simd.h"

namespace cbtalk::CBTALK_ISA {
namespace {

// One chunk of pixels of one image: where its rows of channels lie, and which coefficients are its image's.
struct Chunk {
  int64_t first;   // number of the first pixel in the whole batch
  int64_t pixels;
  const float* coefficients;  // (6, C): scale, shift, mean, rstd, slope, offset
  float* partial;             // (2, C)
};

Chunk chunk_of(const GroupNormParams& params, int64_t item) {
  const int64_t image = item / params.chunks(), start = item % params.chunks() * params.kChunk;
  const int64_t left = params.pixels - start;
  return {image * params.pixels + start, left < params.kChunk ? left : params.kChunk,
          params.coefficients + image * 6 * params.channels, params.partial + item * 2 * params.channels};
}

template <class T>
Vf load_some(const T* source, int lanes) {
  return lanes == kWidth ? load(source) : load_first(source, lanes);
}

template <class T>
void store_some(T* target, Vf value, int lanes) {
  lanes == kWidth ? store(target, value) : store_first(target, value, lanes);
}

int lanes_from(int64_t channel, int64_t channels) {
  return channels - channel < kWidth ? static_cast<int>(channels - channel) : kWidth;
}

Vf sigmoid(Vf x) { return 1.0f / (1.0f + exp(-x)); }

template <class T>
void moments(const GroupNormParams& params, const Chunk& chunk) {
  const int64_t C = params.channels;
  for (int64_t c = 0; c < C; c += kWidth) {
    const int lanes = lanes_from(c, C);
    const T* x = static_cast<const T*>(params.x) + chunk.first * C + c;
    Vf sum{};
    for (int64_t pixel = 0; pixel < chunk.pixels; ++pixel) sum += load_some(x + pixel * C, lanes);
    const Vf mean = sum / static_cast<float>(chunk.pixels);
    Vf squares{};
    for (int64_t pixel = 0; pixel < chunk.pixels; ++pixel) {
      const Vf distance = load_some(x + pixel * C, lanes) - mean;
      squares = fma(distance, distance, squares);
    }
    store_some(chunk.partial + c, mean, lanes);
    store_some(chunk.partial + C + c, squares, lanes);
  }
}

template <class T, bool silu>
void apply(const GroupNormParams& params, const Chunk& chunk) {
  const int64_t C = params.channels;
  const float* scale = chunk.coefficients;
  const float* shift = scale + C;
  const T* x = static_cast<const T*>(params.x) + chunk.first * C;
  T* y = static_cast<T*>(params.y) + chunk.first * C;
  for (int64_t pixel = 0; pixel < chunk.pixels; ++pixel, x += C, y += C) {
    for (int64_t c = 0; c < C; c += kWidth) {
      const int lanes = lanes_from(c, C);
      const Vf normalised = fma(load_some(x + c, lanes), load_some(scale + c, lanes), load_some(shift + c, lanes));
      store_some(y + c, silu ? normalised * sigmoid(normalised) : normalised, lanes);
    }
  }
}

// The gradient ahead of the SiLU.
template <bool silu>
Vf inner_gradient(Vf grad_y, Vf x, Vf scale, Vf shift) {
  if (!silu) return grad_y;
  const Vf normalised = fma(x, scale, shift);
  const Vf s = sigmoid(normalised);
  return grad_y * s * fma(normalised, 1.0f - s, broadcast(1.0f));
}

template <class T, bool silu>
void gradient_sums(const GroupNormParams& params, const Chunk& chunk) {
  const int64_t C = params.channels;
  for (int64_t c = 0; c < C; c += kWidth) {
    const int lanes = lanes_from(c, C);
    const float* coefficients = chunk.coefficients + c;
    const Vf scale = load_some(coefficients, lanes), shift = load_some(coefficients + C, lanes);
    const Vf mean = load_some(coefficients + 2 * C, lanes), rstd = load_some(coefficients + 3 * C, lanes);
    const T* x = static_cast<const T*>(params.x) + chunk.first * C + c;
    const T* grad_y = static_cast<const T*>(params.grad_y) + chunk.first * C + c;
    Vf sum{}, product{};
    for (int64_t pixel = 0; pixel < chunk.pixels; ++pixel) {
      const Vf value = load_some(x + pixel * C, lanes);
      const Vf gradient = inner_gradient<silu>(load_some(grad_y + pixel * C, lanes), value, scale, shift);
      sum += gradient;
      product = fma(gradient, (value - mean) * rstd, product);
    }
    store_some(chunk.partial + c, sum, lanes);
    store_some(chunk.partial + C + c, product, lanes);
  }
}

template <class T, bool silu>
void input_gradient(const GroupNormParams& params, const Chunk& chunk) {
  const int64_t C = params.channels;
  const T* x = static_cast<const T*>(params.x) + chunk.first * C;
  const T* grad_y = static_cast<const T*>(params.grad_y) + chunk.first * C;
  T* grad_x = static_cast<T*>(params.grad_x) + chunk.first * C;
  for (int64_t pixel = 0; pixel < chunk.pixels; ++pixel, x += C, grad_y += C, grad_x += C) {
    for (int64_t c = 0; c < C; c += kWidth) {
      const int lanes = lanes_from(c, C);
      const float* coefficients = chunk.coefficients + c;
      const Vf value = load_some(x + c, lanes), scale = load_some(coefficients, lanes);
      const Vf shift = load_some(coefficients + C, lanes), mean = load_some(coefficients + 2 * C, lanes);
      const Vf slope = load_some(coefficients + 4 * C, lanes), offset = load_some(coefficients + 5 * C, lanes);
      const Vf gradient = inner_gradient<silu>(load_some(grad_y + c, lanes), value, scale, shift);
      store_some(grad_x + c, fma(gradient, scale, fma(value - mean, slope, offset)), lanes);
    }
  }
}

}  // namespace

void group_norm_moments(const GroupNormParams& params, int64_t begin, int64_t end) {
  for (int64_t item = begin; item < end; ++item) {
    const Chunk chunk = chunk_of(params, item);
    params.bfloat16 ? moments<Bfloat16>(params, chunk) : moments<float>(params, chunk);
  }
}

// A pass over [begin, end) for each element type, with and without the SiLU.
#define CBTALK_GROUP_NORM_PASS(name, pass)                                                                       \
  void name(const GroupNormParams& params, int64_t begin, int64_t end) {                                         \
    const auto run = params.bfloat16 ? (params.silu ? &pass<Bfloat16, true> : &pass<Bfloat16, false>)            \
                                     : (params.silu ? &pass<float, true> : &pass<float, false>);                 \
    for (int64_t item = begin; item < end; ++item) run(params, chunk_of(params, item));                          \
  }

CBTALK_GROUP_NORM_PASS(group_norm_apply, apply)
CBTALK_GROUP_NORM_PASS(group_norm_gradient_sums, gradient_sums)
CBTALK_GROUP_NORM_PASS(group_norm_input_gradient, input_gradient)

#undef CBTALK_GROUP_NORM_PASS

}  // namespace cbtalk::CBTALK_ISA
