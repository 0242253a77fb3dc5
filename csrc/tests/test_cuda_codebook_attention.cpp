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
using cbtalk::AttentionCudaParams;
using cbtalk::raise_maximum;
using cbtalk::RaisedMaximum;
using cbtalk::Storage;

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

AttentionCudaParams sizes(Storage storage, int64_t batch, int64_t tokens, int64_t key_sets, int64_t keys, int64_t heads,
                          int64_t head_size) {
  AttentionCudaParams params{};
  params.storage = storage, params.batch = batch, params.tokens = tokens, params.key_sets = key_sets;
  params.keys = keys, params.heads = heads, params.head_size = head_size;
  return params;
}

// Bytes of grad_out, query, out, maximum, total, grad_query, and of key, value and their gradients.
int64_t passed_bytes(const AttentionCudaParams& p) {
  const int64_t element = p.storage == Storage::float32 ? 4 : 2;
  return 4 * (p.rows() * p.width() + p.key_elements()) * element + 2 * 4 * p.rows() * p.heads;
}

void check_memory_and_blocks_at_the_models_shapes() {
  for (const Storage storage : {Storage::float32, Storage::float16, Storage::bfloat16}) {
    for (const int64_t batch : {1, 16}) {
      for (const int64_t keys : {256, 512, 1024}) {
        for (const int64_t d : {4, 32}) {
          const AttentionCudaParams params = sizes(storage, batch, 1024, 1, keys, 8, d);
          const int64_t sums = cbtalk::attention_workspace(params) - params.heads * params.rows();
          CHECK(10 * 4 * sums <= passed_bytes(params));
          const int64_t tiles = cbtalk::attention_tiles(keys, cbtalk::kAttentionBlockKeys);
          // At batch 1, the memory allows one chunk only, and few codes make few blocks.
          if (batch > 1) CHECK(tiles * 8 * params.chunks() >= 128);
          if (batch == 1) CHECK(params.chunks() == 1);
        }
      }
    }
  }
}

void check_chunks() {
  const auto chunks = [](int64_t tokens, int64_t key_sets, int64_t keys, int64_t heads, int64_t d) {
    return sizes(Storage::float32, key_sets, tokens, key_sets, keys, heads, d).chunks();
  };
  CHECK(chunks(16 * 1024, 1, 256, 8, 4) == 8);    // 32 blocks of keys
  CHECK(chunks(16 * 1024, 1, 1024, 8, 4) == 2);
  CHECK(chunks(16 * 1024, 1, 2048, 8, 4) == 1);   // enough blocks without
  CHECK(chunks(16 * 1024, 1, 1024, 8, 32) == 2);
  CHECK(chunks(1024, 16, 1024, 8, 32) == 1);      // self-attention
  CHECK(chunks(1, 1, 1, 1, 4) == 1);
  CHECK(chunks((int64_t{1} << 31) - 1, 1, 1, 1, 8) == 256);
  for (const int64_t rows : {1, 255, 256, 513, 100000}) {
    for (const int64_t keys : {1, 129, 1024}) {
      const int64_t found = chunks(rows, 1, keys, 2, 8), length = cbtalk::attention_tiles(rows, found);
      CHECK(found >= 1 && found * length >= rows);
      CHECK(found == 1 || rows / found >= 256);
    }
  }
}

void check_workspace() {
  AttentionCudaParams params = sizes(Storage::float32, 5, 409, 1, 77, 3, 8);
  CHECK(params.chunks() == 5 && params.key_elements() == 77 * 24);
  CHECK(params.value_parts() - params.key_parts() == 5 * params.key_elements());
  const int64_t deltas = 3 * 5 * 409;
  CHECK(params.key_parts() - params.delta() == deltas);
  CHECK(cbtalk::attention_workspace(params) == deltas + 2 * 5 * params.key_elements());
  // One chunk: the gradients are written where they belong.
  params.key_sets = 5, params.keys = 1000, params.heads = 16;
  CHECK(params.chunks() == 1 && cbtalk::attention_workspace(params) == 16 * 5 * 409);
  // Sums beyond 32 bits.
  params = sizes(Storage::float16, int64_t{1} << 20, 1024, 1, int64_t{1} << 10, 1, 32);
  CHECK(params.rows() == int64_t{1} << 30 && params.chunks() == 16);
  params.keys = int64_t{1} << 27;
  CHECK(params.key_elements() == int64_t{1} << 32 && cbtalk::attention_workspace(params) == params.rows());
}

}  // namespace

int main() {
  check_running_softmax();
  check_nan_reaches_the_result();
  check_memory_and_blocks_at_the_models_shapes();
  check_chunks();
  check_workspace();
  return 0;
}
