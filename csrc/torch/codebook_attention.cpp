#include "cbtalk/codebook_attention.h"

#include <optional>
#include <tuple>

#include "check.h"
#include "scratch.h"

namespace cbtalk {
namespace {

AttentionRows rows(const Tensor& tensor, int64_t batch, int64_t tokens, int64_t width, const char* name) {
  check_float32(tensor, name);
  check_dim(tensor, 3, name);
  check_size(tensor, 0, batch, name);
  check_size(tensor, 1, tokens, name);
  check_size(tensor, 2, width, name);
  STD_TORCH_CHECK(has_adjacent_columns(tensor), name, " must have adjacent columns");
  return {tensor.const_data_ptr<float>(), tensor.stride(0), tensor.stride(1)};
}

// Everything that forward and backward share; kept and kept_count lie one behind the other in `kept`.
AttentionParams inputs(const Tensor& query, const Tensor& key, const Tensor& value,
                       const std::optional<Tensor>& key_mask, int64_t heads, Tensor& kept) {
  const int64_t width = query.size(2), sets = key.size(0), keys = key.size(1);
  STD_TORCH_CHECK(heads > 0 && width % heads == 0, "query's ", width, " columns do not divide into ", heads, " heads");
  STD_TORCH_CHECK(sets == 1 || sets == query.size(0), "key has ", sets, " key sets for a batch of ", query.size(0));
  STD_TORCH_CHECK(keys > 0, "there must be at least one key");
  AttentionParams params{};
  params.batch = query.size(0);
  params.tokens = query.size(1);
  params.key_sets = sets;
  params.keys = keys;
  params.heads = heads;
  params.head_size = width / heads;
  params.query = rows(query, params.batch, params.tokens, width, "query");
  params.key = rows(key, sets, keys, width, "key");
  params.value = rows(value, sets, keys, width, "value");
  if (key_mask.has_value()) {
    const bool is_cpu_bool = key_mask->scalar_type() == ScalarType::Bool && key_mask->is_cpu();
    STD_TORCH_CHECK(is_cpu_bool, "key_mask must be bool on the CPU");
    check_dim(*key_mask, 2, "key_mask");
    check_size(*key_mask, 0, sets, "key_mask");
    check_size(*key_mask, 1, keys, "key_mask");
    check_contiguous(*key_mask, "key_mask");
    params.key_mask = key_mask->const_data_ptr<bool>();
  }
  kept = torch::stable::new_empty(key, {sets * keys + sets}, ScalarType::Int);
  params.kept = kept.mutable_data_ptr<int32_t>();
  params.kept_count = params.kept + sets * keys;
  return params;
}

// A (heads, B, T) output of the forward pass, which the backward kernel only reads.
float* statistic(const Tensor& tensor, const AttentionParams& params, const char* name) {
  check_float32(tensor, name);
  check_contiguous(tensor, name);
  STD_TORCH_CHECK(tensor.numel() == params.heads * params.batch * params.tokens, name, " must be (heads, B, T)");
  return const_cast<float*>(tensor.const_data_ptr<float>());
}

template <typename Kernel>
void in_parallel(int64_t items, const Kernel& kernel) {
  torch::stable::parallel_for(0, items, 1, kernel);
}

// maximum and total are empty where no statistics are asked for.
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                           const std::optional<Tensor>& key_mask, int64_t heads, bool statistics) {
  check_dim(query, 3, "query");
  check_dim(key, 3, "key");
  Tensor kept;
  AttentionParams params = inputs(query, key, value, key_mask, heads, kept);
  const int64_t kept_heads = statistics ? heads : 0;
  Tensor out = torch::stable::new_empty(query, {params.batch, params.tokens, query.size(2)});
  Tensor maximum = torch::stable::new_empty(query, {kept_heads, params.batch, params.tokens});
  Tensor total = torch::stable::new_empty(query, {kept_heads, params.batch, params.tokens});
  if (out.numel() == 0) return {out, maximum, total};
  params.out = out.mutable_data_ptr<float>();
  if (statistics) {
    params.maximum = maximum.mutable_data_ptr<float>();
    params.total = total.mutable_data_ptr<float>();
  }
  list_kept_keys(params);
  in_parallel(params.forward_items(), [&, kernel = attention_forward()](int64_t begin, int64_t end) {
    const Scratch scratch(params.forward_scratch());
    kernel(params, scratch.data(), begin, end);
  });
  return {out, maximum, total};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const Tensor& query, const Tensor& key,
                                            const Tensor& value, const std::optional<Tensor>& key_mask, int64_t heads,
                                            const Tensor& out, const Tensor& maximum, const Tensor& total) {
  check_dim(query, 3, "query");
  check_dim(key, 3, "key");
  Tensor kept;
  AttentionParams params = inputs(query, key, value, key_mask, heads, kept);
  const int64_t width = query.size(2);
  params.grad_out = rows(grad_out, params.batch, params.tokens, width, "grad_out");
  check_contiguous(out, "out");
  rows(out, params.batch, params.tokens, width, "out");
  params.maximum = statistic(maximum, params, "maximum");
  params.total = statistic(total, params, "total");
  Tensor grad_query = torch::stable::new_empty(query, {params.batch, params.tokens, width});
  Tensor grad_key = torch::stable::new_empty(key, {params.key_sets, params.keys, width});
  Tensor grad_value = torch::stable::new_empty(key, {params.key_sets, params.keys, width});
  if (query.numel() == 0) return {grad_query, torch::stable::zero_(grad_key), torch::stable::zero_(grad_value)};
  params.out = const_cast<float*>(out.const_data_ptr<float>());
  params.grad_query = grad_query.mutable_data_ptr<float>();
  params.grad_key = grad_key.mutable_data_ptr<float>();
  params.grad_value = grad_value.mutable_data_ptr<float>();
  const Tensor partial = torch::stable::new_empty(query, {params.partial_size()});
  params.partial = partial.mutable_data_ptr<float>();
  list_kept_keys(params);
  in_parallel(params.backward_items(), [&, kernel = attention_backward()](int64_t begin, int64_t end) {
    const Scratch scratch(params.backward_scratch());
    kernel(params, scratch.data(), begin, end);
  });
  in_parallel(params.key_items(), [&, kernel = attention_key_gradients()](int64_t begin, int64_t end) {
    kernel(params, begin, end);
  });
  return {grad_query, grad_key, grad_value};
}

}  // namespace
}  // namespace cbtalk

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CPU, m) {
  m.impl("codebook_attention", TORCH_BOX(&cbtalk::forward));
  m.impl("codebook_attention_backward", TORCH_BOX(&cbtalk::backward));
}
