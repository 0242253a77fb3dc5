#include "cbtalk/codebook_attention.h"

#include <cmath>
#include <memory>
#include <vector>

#include "check.h"
#include "levels.h"

using namespace cbtalk;

namespace {

// The same numbers everywhere, in (-1, 1).
struct Numbers {
  uint32_t state = 1;
  std::vector<float> make(int64_t count) {
    std::vector<float> values(count);
    for (float& value : values) {
      state = state * 1664525u + 1013904223u;
      value = static_cast<float>(state >> 8) / 8388608.0f - 1.0f;
    }
    return values;
  }
};

struct Attention {
  int64_t B, T, sets, K, heads, d, width;
  std::vector<float> query, key, value, grad_out, out, maximum, total, grad_query, grad_key, grad_value;
  std::unique_ptr<bool[]> mask;

  Attention(int64_t batch, int64_t tokens, int64_t key_sets, int64_t keys, int64_t head_count, int64_t head_size)
      : B(batch), T(tokens), sets(key_sets), K(keys), heads(head_count), d(head_size), width(heads * d),
        out(B * T * width), maximum(heads * B * T), total(heads * B * T), grad_query(B * T * width),
        grad_key(sets * K * width), grad_value(sets * K * width), mask(new bool[sets * K]()) {
    Numbers numbers;
    query = numbers.make(B * T * width);
    key = numbers.make(sets * K * width);
    value = numbers.make(sets * K * width);
    grad_out = numbers.make(B * T * width);
  }

  // Runs forward and backward, `division` work items at a time, in a scratch memory that is exactly large enough.
  void run(int64_t division) {
    AttentionParams p{};
    p.batch = B, p.tokens = T, p.key_sets = sets, p.keys = K, p.heads = heads, p.head_size = d;
    p.query = {query.data(), T * width, width};
    p.key = {key.data(), K * width, width};
    p.value = {value.data(), K * width, width};
    p.key_mask = mask.get();
    std::vector<int32_t> kept(sets * K), kept_count(sets);
    p.kept = kept.data(), p.kept_count = kept_count.data();
    p.out = out.data(), p.maximum = maximum.data(), p.total = total.data();
    list_kept_keys(p);
    std::vector<float> scratch(p.forward_scratch());
    in_parts(p.forward_items(), division, [&](int64_t i, int64_t j) { attention_forward()(p, scratch.data(), i, j); });

    p.grad_out = {grad_out.data(), T * width, width};
    p.grad_query = grad_query.data(), p.grad_key = grad_key.data(), p.grad_value = grad_value.data();
    std::vector<float> partial(p.partial_size(), NAN);
    p.partial = partial.data();
    scratch.assign(p.backward_scratch(), NAN);
    in_parts(p.backward_items(), division,
             [&](int64_t i, int64_t j) { attention_backward()(p, scratch.data(), i, j); });
    in_parts(p.key_items(), division, [&](int64_t i, int64_t j) { attention_key_gradients()(p, i, j); });
  }

  template <typename Part>
  static void in_parts(int64_t items, int64_t division, const Part& part) {
    for (int64_t i = 0; i < items; i += division) part(i, i + division < items ? i + division : items);
  }

  bool attends(int64_t set, int64_t k) const {
    bool all_masked = true;
    for (int64_t i = 0; i < K; ++i) all_masked = all_masked && mask[set * K + i];
    return all_masked || !mask[set * K + k];
  }

  // The formulas in double, written down row by row.
  void check(double tolerance) const {
    std::vector<double> exact_key(grad_key.size()), exact_value(grad_value.size()), weights(K), dots(K);
    for (int64_t row = 0; row < B * T; ++row) {
      const int64_t set = row / (B * T / sets);
      for (int64_t h = 0; h < heads; ++h) {
        const float* q = &query[row * width + h * d];
        const float* g = &grad_out[row * width + h * d];
        const auto column = [&](int64_t k, int64_t j) { return (set * K + k) * width + h * d + j; };
        double total_weight = 0, mean_dot = 0;
        for (int64_t k = 0; k < K; ++k) {
          double score = 0, dot = 0;
          for (int64_t j = 0; j < d; ++j) score += double(q[j]) * key[column(k, j)];
          for (int64_t j = 0; j < d; ++j) dot += double(g[j]) * value[column(k, j)];
          weights[k] = attends(set, k) ? std::exp(score / std::sqrt(double(d))) : 0;
          dots[k] = dot;
          total_weight += weights[k];
        }
        for (int64_t k = 0; k < K; ++k) mean_dot += (weights[k] /= total_weight) * dots[k];
        for (int64_t j = 0; j < d; ++j) {
          double expected = 0, gradient = 0;
          for (int64_t k = 0; k < K; ++k) {
            const double grad_score = weights[k] * (dots[k] - mean_dot) / std::sqrt(double(d));
            expected += weights[k] * value[column(k, j)];
            gradient += grad_score * key[column(k, j)];
            exact_key[column(k, j)] += grad_score * q[j];
            exact_value[column(k, j)] += weights[k] * g[j];
          }
          CHECK_NEAR(out[row * width + h * d + j], expected, tolerance);
          CHECK_NEAR(grad_query[row * width + h * d + j], gradient, tolerance);
        }
      }
    }
    for (size_t i = 0; i < grad_key.size(); ++i) CHECK_NEAR(grad_key[i], exact_key[i], tolerance);
    for (size_t i = 0; i < grad_value.size(); ++i) CHECK_NEAR(grad_value[i], exact_value[i], tolerance);
  }
};

void test_sizes() {
  for (const int64_t d : {1, 3, 4, 8, 13, 16, 32, 40}) {
    for (const int64_t T : {1, 17, 65, 200}) {
      for (const int64_t K : {1, 3, 64, 70}) {
        Attention shared(2, T, 1, K, 2, d);
        shared.run(1);
        shared.check(2e-5);
      }
    }
  }
}

// More rows than one chunk holds, so that the gradients of the keys are sums of partial sums.
void test_chunks_and_divisions() {
  Attention attention(3, 700, 1, 40, 2, 4);
  attention.run(1);
  attention.check(1e-4);
  const std::vector<float> out = attention.out, grad_query = attention.grad_query, grad_key = attention.grad_key;
  attention.run(1000);
  CHECK(attention.out == out && attention.grad_query == grad_query && attention.grad_key == grad_key);
}

void test_masks() {
  Attention attention(3, 30, 3, 75, 2, 16);
  for (int64_t k = 0; k < 75; ++k) {
    attention.mask[k] = k % 3 != 0;
    attention.mask[2 * 75 + k] = true;
  }
  attention.run(2);
  attention.check(2e-5);
}

}  // namespace

int main() {
  at_each_level([] {
    test_sizes();
    test_chunks_and_divisions();
    test_masks();
  });
  return 0;
}
