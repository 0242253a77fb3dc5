// Memory and division of work of the attention kernels: the same at every level.

#include "cbtalk/codebook_attention.h"

namespace cbtalk {
namespace {

constexpr int64_t kWidestTile = 64;     // queries
constexpr int64_t kWidestVector = 16;   // floats
constexpr int64_t kMaxQueryChunks = 8;  // bounds the partial sums: 8 times the gradients of keys and values

int64_t round_up(int64_t value, int64_t multiple) { return (value + multiple - 1) / multiple * multiple; }

}  // namespace

bool AttentionParams::is_backward() const { return grad_query != nullptr; }

int64_t AttentionParams::rows_per_key_set() const { return batch * tokens / key_sets; }

int64_t AttentionParams::query_blocks() const {
  return round_up(rows_per_key_set(), kAttentionQueryBlock) / kAttentionQueryBlock;
}

// Never a function of the number of threads: the chunks decide the order in which gradients are summed.
int64_t AttentionParams::query_chunks() const {
  const int64_t chunks = round_up(rows_per_key_set(), kAttentionBackwardRows) / kAttentionBackwardRows;
  return chunks < kMaxQueryChunks ? chunks : kMaxQueryChunks;
}

int64_t AttentionParams::key_items() const { return key_sets * heads; }

int64_t AttentionParams::forward_items() const { return key_items() * query_blocks(); }

int64_t AttentionParams::backward_items() const { return key_items() * query_chunks(); }

// Keys or values of one head: whole panels of 4 keys, whole fours of columns.
int64_t AttentionParams::packed_matrix() const { return round_up(keys, 4) * round_up(head_size, 4); }

int64_t AttentionParams::partial_columns() const {
  return round_up(head_size, head_size <= 4 ? 4 : head_size <= 8 ? 8 : kWidestVector);
}

int64_t AttentionParams::partial_size() const { return backward_items() * keys * partial_columns() * 2; }

int64_t AttentionParams::forward_scratch() const {
  const int64_t columns = round_up(head_size, 4);
  return kWidestTile * (3 * columns + kAttentionKeyBlock + 2) + 2 * packed_matrix();
}

int64_t AttentionParams::backward_scratch() const {
  const int64_t columns = round_up(head_size, 4);
  const int64_t rows = kAttentionBackwardRows * (3 * columns + 2 * partial_columns() + 2);
  const int64_t scores = 2 * kAttentionKeyBlock * kWidestTile;
  const int64_t lanes = head_size < kWidestVector ? 2 * kAttentionKeyBlock * head_size * kWidestVector : 0;
  return rows + scores + lanes + 4 * packed_matrix();
}

void list_kept_keys(const AttentionParams& params) {
  for (int64_t set = 0; set < params.key_sets; ++set) {
    int32_t* kept = params.kept + set * params.keys;
    int32_t count = 0;
    for (int64_t key = 0; key < params.keys; ++key) {
      if (params.key_mask == nullptr || !params.key_mask[set * params.keys + key]) kept[count++] = int32_t(key);
    }
    if (count == 0) {
      for (; count < params.keys; ++count) kept[count] = count;
    }
    params.kept_count[set] = count;
  }
}

}  // namespace cbtalk
