// The arithmetic of the attention kernels of a GPU on the host, and how their work is divided.

#include "cbtalk/attention_math.h"

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <vector>

#include "cbtalk/cuda/codebook_attention_params.h"
#include "check.h"

namespace {

using cbtalk::attention_weight;
using cbtalk::raise_maximum;
using cbtalk::RaisedMaximum;

constexpr int kGroup = 8;

float scale_of(int d) { return 1.4426950408889634f / std::sqrt(static_cast<float>(d)); }

struct Softmax {
  float maximum = -INFINITY, total = 0.0f, out = 0.0f;
};

// As the kernel takes scores in, with values.
Softmax running_softmax(const std::vector<float>& scores, const std::vector<float>& values, float scale) {
  Softmax softmax;
  for (size_t first = 0; first < scores.size(); first += kGroup) {
    const size_t last = std::min(first + kGroup, scores.size());
    const float largest = *std::max_element(scores.begin() + first, scores.begin() + last);
    const RaisedMaximum raised = raise_maximum(softmax.maximum, largest, scale);
    softmax.total *= raised.fade;
    softmax.out *= raised.fade;
    for (size_t i = first; i < last; ++i) {
      const float weight = attention_weight(scores[i], raised.maximum, scale);
      softmax.total += weight;
      softmax.out = std::fma(weight, values[i], softmax.out);
    }
  }
  return softmax;
}

void check_softmax(const std::vector<float>& scores, int d) {
  std::vector<float> values(scores.size());
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>((i * 37) % 19) - 9.0f;
  const Softmax softmax = running_softmax(scores, values, scale_of(d));
  const double maximum = *std::max_element(scores.begin(), scores.end());
  double total = 0, out = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const double weight = std::exp((scores[i] - maximum) / std::sqrt(static_cast<double>(d)));
    total += weight;
    out += weight * values[i];
  }
  CHECK(softmax.maximum == static_cast<float>(maximum));
  CHECK_NEAR(softmax.total, total, 1e-5 * total);
  CHECK_NEAR(softmax.out / softmax.total, out / total, 1e-5);
}

void check_running_softmax() {
  std::vector<float> rising, falling, mixed, huge, late(40, -INFINITY);
  for (int i = 0; i < 100; ++i) {
    rising.push_back(static_cast<float>(i) * 3 - 150);
    falling.push_back(150 - static_cast<float>(i) * 3);
    mixed.push_back(static_cast<float>((i * 7919) % 101) * 0.2f - 10);
    huge.push_back(i == 70 ? 1e4f : -1e4f);
  }
  // Whole groups of masked keys, before and behind the ones that count.
  for (int i = 0; i < 5; ++i) late.push_back(static_cast<float>(i));
  late.insert(late.end(), 16, -INFINITY);
  for (const int d : {4, 8, 16, 32}) {
    for (const auto& scores : {rising, falling, mixed, huge, late}) check_softmax(scores, d);
  }
}

void check_nan_reaches_the_result() {
  float maximum = 2.0f;
  const RaisedMaximum raised = raise_maximum(maximum, NAN, 1.0f);
  CHECK(maximum == 2.0f && raised.fade == 1.0f);
  CHECK(std::isnan(attention_weight(NAN, raised.maximum, 1.0f)));
  // No key so far: the empty sums keep their zeros.
  maximum = -INFINITY;
  CHECK(raise_maximum(maximum, -INFINITY, 1.0f).fade == 0.0f);
  CHECK(attention_weight(-INFINITY, 0.0f, 1.0f) == 0.0f);
}

void check_chunks() {
  CHECK(cbtalk::attention_chunks(16 * 1024, 1024, 1, 8) == 4);
  CHECK(cbtalk::attention_chunks(1024, 1024, 1, 8) == 4);
  CHECK(cbtalk::attention_chunks(1024, 1024, 16, 8) == 1);  // self-attention: enough blocks without
  CHECK(cbtalk::attention_chunks(1, 1, 1, 1) == 1);
  CHECK(cbtalk::attention_chunks(int64_t{1} << 31, 1, 1, 1) == 256);
  for (const int64_t rows : {1, 255, 256, 513, 100000}) {
    for (const int64_t keys : {1, 129, 1024}) {
      const int64_t chunks = cbtalk::attention_chunks(rows, keys, 1, 8);
      const int64_t chunk_rows = cbtalk::attention_tiles(rows, chunks);
      CHECK(chunks >= 1 && chunks * chunk_rows >= rows);
      CHECK(chunks == 1 || rows / chunks >= 256);
    }
  }
}

void check_workspace() {
  for (const int64_t rows : {1, 2, 3, 4, 1021}) {
    const int64_t size = cbtalk::attention_delta_size(3, rows);
    CHECK(size >= 3 * rows && size % 4 == 0 && size < 3 * rows + 4);
  }
  cbtalk::AttentionCudaParams params{};
  params.batch = 5, params.tokens = 409, params.key_sets = 1, params.keys = 77, params.heads = 3, params.head_size = 8;
  CHECK(params.chunks() == 7 && params.key_elements() == 77 * 24);
  CHECK(params.value_parts() - params.key_parts() == 7 * params.key_elements());
  CHECK((params.key_parts() - params.delta()) % 4 == 0 && params.key_parts() - params.delta() >= 3 * 5 * 409);
  const auto end = params.value_parts() + params.chunks() * params.key_elements();
  CHECK(cbtalk::attention_workspace(params) == end - params.workspace);
  // One chunk: the gradients are written where they belong.
  params.key_sets = 5, params.keys = 1000, params.heads = 16;
  CHECK(params.chunks() == 1 && cbtalk::attention_workspace(params) == 16 * 5 * 409);
  // Sums beyond 32 bits.
  params.batch = int64_t{1} << 20, params.tokens = 1024, params.key_sets = 1, params.keys = 1 << 20;
  CHECK(params.rows() == int64_t{1} << 30 && params.key_elements() == int64_t{1} << 27);
  CHECK(cbtalk::attention_workspace(params) == int64_t{1} << 34);
}

}  // namespace

int main() {
  check_running_softmax();
  check_nan_reaches_the_result();
  check_chunks();
  check_workspace();
  return 0;
}
