#include "cbtalk/cuda/codebook_attention.h"

#include <optional>
#include <tuple>

#include "cuda.h"

namespace cbtalk {
namespace {

AttentionCudaRows rows(const Tensor& tensor, const Tensor& query, int64_t batch, int64_t tokens, const char* name) {
  check_cuda(tensor, query, name);
  STD_TORCH_CHECK(tensor.scalar_type() == query.scalar_type(), name, " must have the dtype of query");
  check_dim(tensor, 3, name);
  check_size(tensor, 0, batch, name);
  check_size(tensor, 1, tokens, name);
  check_size(tensor, 2, query.size(2), name);
  STD_TORCH_CHECK(has_adjacent_columns(tensor), name, " must have adjacent columns");
  return {tensor.const_data_ptr(), tensor.stride(0), tensor.stride(1)};
}

// Everything that forward and backward share.
AttentionCudaParams inputs(const Tensor& query, const Tensor& key, const Tensor& value,
                           const std::optional<Tensor>& key_mask, int64_t heads) {
  check_dim(query, 3, "query");
  check_dim(key, 3, "key");
  const int64_t width = query.size(2), sets = key.size(0), keys = key.size(1);
  STD_TORCH_CHECK(heads > 0 && width % heads == 0, "query's ", width, " columns do not divide into ", heads, " heads");
  STD_TORCH_CHECK(sets == 1 || sets == query.size(0), "key has ", sets, " key sets for a batch of ", query.size(0));
  STD_TORCH_CHECK(keys > 0, "there must be at least one key");
  AttentionCudaParams params{};
  params.storage = storage_of(query, "query");
  params.batch = query.size(0);
  params.tokens = query.size(1);
  params.key_sets = sets;
  params.keys = keys;
  params.heads = heads;
  params.head_size = width / heads;
  const int64_t d = params.head_size;
  STD_TORCH_CHECK(d == 4 || d == 8 || d == 16 || d == 32, "heads must have 4, 8, 16 or 32 columns, not ", d);
  params.query = rows(query, query, params.batch, params.tokens, "query");
  params.key = rows(key, query, sets, keys, "key");
  params.value = rows(value, query, sets, keys, "value");
  if (key_mask.has_value()) {
    check_cuda(*key_mask, query, "key_mask");
    STD_TORCH_CHECK(key_mask->scalar_type() == ScalarType::Bool, "key_mask must be bool");
    check_dim(*key_mask, 2, "key_mask");
    check_size(*key_mask, 0, sets, "key_mask");
    check_size(*key_mask, 1, keys, "key_mask");
    check_contiguous(*key_mask, "key_mask");
    params.key_mask = static_cast<const bool*>(key_mask->const_data_ptr());
  }
  return params;
}

// A (heads, B, T) output of the forward pass, which the backward kernels only read.
float* statistic(const Tensor& tensor, const Tensor& query, const AttentionCudaParams& params, const char* name) {
  check_cuda(tensor, query, name);
  STD_TORCH_CHECK(tensor.scalar_type() == ScalarType::Float, name, " must be float32");
  check_contiguous(tensor, name);
  STD_TORCH_CHECK(tensor.numel() == params.heads * params.rows(), name, " must be (heads, B, T)");
  return const_cast<float*>(tensor.const_data_ptr<float>());
}

// maximum and total are empty where no statistics are asked for.
std::tuple<Tensor, Tensor, Tensor> forward(const Tensor& query, const Tensor& key, const Tensor& value,
                                           const std::optional<Tensor>& key_mask, int64_t heads, bool statistics) {
  AttentionCudaParams params = inputs(query, key, value, key_mask, heads);
  const OnDeviceOf device(query);
  const int64_t kept_heads = statistics ? heads : 0;
  Tensor out = torch::stable::new_empty(query, {params.batch, params.tokens, query.size(2)});
  Tensor maximum = torch::stable::new_empty(query, {kept_heads, params.batch, params.tokens}, ScalarType::Float);
  Tensor total = torch::stable::new_empty(query, {kept_heads, params.batch, params.tokens}, ScalarType::Float);
  if (out.numel() == 0) return {out, maximum, total};
  params.out = out.mutable_data_ptr();
  if (statistics) {
    params.maximum = maximum.mutable_data_ptr<float>();
    params.total = total.mutable_data_ptr<float>();
  }
  check_launch(codebook_attention_forward_cuda(params, device.stream()), "codebook_attention");
  return {out, maximum, total};
}

std::tuple<Tensor, Tensor, Tensor> backward(const Tensor& grad_out, const Tensor& query, const Tensor& key,
                                            const Tensor& value, const std::optional<Tensor>& key_mask, int64_t heads,
                                            const Tensor& out, const Tensor& maximum, const Tensor& total) {
  AttentionCudaParams params = inputs(query, key, value, key_mask, heads);
  const OnDeviceOf device(query);
  const int64_t width = query.size(2);
  params.grad_out = rows(grad_out, query, params.batch, params.tokens, "grad_out");
  check_contiguous(out, "out");
  rows(out, query, params.batch, params.tokens, "out");
  params.out = const_cast<void*>(out.const_data_ptr());
  params.maximum = statistic(maximum, query, params, "maximum");
  params.total = statistic(total, query, params, "total");
  Tensor grad_query = torch::stable::new_empty(query, {params.batch, params.tokens, width});
  Tensor grad_key = torch::stable::new_empty(key, {params.key_sets, params.keys, width});
  Tensor grad_value = torch::stable::new_empty(key, {params.key_sets, params.keys, width});
  if (query.numel() == 0) return {grad_query, torch::stable::zero_(grad_key), torch::stable::zero_(grad_value)};
  params.grad_query = grad_query.mutable_data_ptr();
  params.grad_key = grad_key.mutable_data_ptr();
  params.grad_value = grad_value.mutable_data_ptr();
  const Tensor workspace = torch::stable::new_empty(query, {attention_workspace(params)}, ScalarType::Float);
  params.workspace = workspace.mutable_data_ptr<float>();
  check_launch(codebook_attention_backward_cuda(params, device.stream()), "codebook_attention_backward");
  return {grad_query, grad_key, grad_value};
}

}  // namespace
}  // namespace cbtalk

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CUDA, m) {
  m.impl("codebook_attention", TORCH_BOX(&cbtalk::forward));
  m.impl("codebook_attention_backward", TORCH_BOX(&cbtalk::backward));
}
