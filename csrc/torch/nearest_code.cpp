#include "cbtalk/nearest_code.h"

#include <algorithm>
#include <atomic>
#include <limits>
#include <numeric>
#include <optional>
#include <tuple>
#include <vector>

#include "nearest_code_check.h"
#include "scratch.h"

namespace cbtalk {
namespace {

constexpr int64_t kElementsPerThread = 1 << 15;  // of memory-bound work, below which a second thread costs more

CodeSizes check_on_cpu(const Tensor& z, const Tensor& codebook, const std::optional<Tensor>& ignored) {
  STD_TORCH_CHECK(z.is_cpu() && codebook.is_cpu() && (!ignored.has_value() || ignored->is_cpu()),
                  "z, codebook and ignored must be on the CPU");
  return check_rows_and_codes(z, codebook, ignored, std::numeric_limits<int32_t>::max() - kNearestCodeGroup);
}

// The beginning of the `elements` of one head in a contiguous tensor (H, ...); null where the tensor is empty.
void* head_of(const Tensor& tensor, int64_t head, int64_t elements) {
  if (tensor.numel() == 0) return nullptr;
  return static_cast<char*>(tensor.mutable_data_ptr()) + head * elements * tensor.element_size();
}

StridedMatrix matrix_of(const Tensor& tensor, int64_t head) {
  const int64_t offset = tensor.dim() == 3 ? head * tensor.stride(0) : 0;
  const char* data = static_cast<const char*>(tensor.const_data_ptr()) + offset * tensor.element_size();
  return {data, storage_of(tensor, "rows and codes"), tensor.stride(-2), tensor.stride(-1)};
}

// Calls work(head, begin, end) in parallel for parts of the `count` items of each head.
template <class Work>
void parallel_over_heads(int64_t H, int64_t count, int64_t at_least, const Work& work) {
  torch::stable::parallel_for(0, H * count, at_least, [&](int64_t begin, int64_t end) {
    while (begin < end) {
      const int64_t head = begin / count, first = head * count;
      const int64_t stop = std::min(end, first + count);
      work(head, begin - first, stop - first);
      begin = stop;
    }
  });
}

Tensor empty(const Tensor& like, const std::vector<int64_t>& shape, ScalarType type) {
  return torch::stable::new_empty(like, shape, type);
}

// Stands for an output that is not asked for.
Tensor nothing(const Tensor& like, ScalarType type) { return empty(like, {0}, type); }

// Searches every head; `codes` and `rows` are left alone where they are empty.
void search(const CodeSizes& sizes, const Tensor& z, const Tensor& codebook, const std::optional<Tensor>& ignored,
            const Tensor& indices, const Tensor& distances, const Tensor& codes, const Tensor& rows) {
  const int64_t H = sizes.H, N = sizes.N, K = sizes.K, D = sizes.D;
  if (H * N == 0) return;
  const int64_t panel_floats = nearest_code_panel_floats(K, D), table_size = nearest_code_table_size(K);
  const Scratch shared(H * (panel_floats + table_size + D));
  float* panels = shared.data();
  int32_t* tables = reinterpret_cast<int32_t*>(panels + H * panel_floats);
  float* centres = panels + H * (panel_floats + table_size);
  std::vector<NearestCodeParams> heads(H);
  for (int64_t head = 0; head < H; ++head) {
    NearestCodeParams& p = heads[head];
    p.z = matrix_of(z, head), p.codebook = matrix_of(codebook, head);
    p.ignored = ignored.has_value() ? ignored->const_data_ptr<bool>() + head * N : nullptr;
    p.centre = centres + head * D;
    p.table = tables + head * table_size;
    p.panels = panels + head * panel_floats;
    p.indices = indices.mutable_data_ptr<int64_t>() + head * N;
    p.distances = distances.mutable_data_ptr<float>() + head * N;
    p.codes = head_of(codes, head, N * D), p.rows = head_of(rows, head, N * D);
    p.N = N, p.K = K, p.D = D;
  }

  auto* find_centre = nearest_code_centre();
  auto* pack = nearest_code_pack();
  auto* drop_repeated = nearest_code_drop_repeated();
  auto* search_rows = nearest_code_search();
  for (const NearestCodeParams& head : heads) find_centre(head, Scratch(nearest_code_row_floats(D)).data());
  const int64_t groups_at_least = kElementsPerThread / (kNearestCodeGroup * (D + 1)) + 1;
  parallel_over_heads(H, nearest_code_groups(K), groups_at_least, [&](int64_t head, int64_t begin, int64_t end) {
    pack(heads[head], Scratch(nearest_code_row_floats(D)).data(), begin, end);
  });
  for (const NearestCodeParams& head : heads) drop_repeated(head, Scratch(nearest_code_row_floats(D)).data());
  const int64_t blocks = (N + kNearestCodeRowBlock - 1) / kNearestCodeRowBlock;
  parallel_over_heads(H, blocks, 1, [&](int64_t head, int64_t begin, int64_t end) {
    const Scratch scratch(nearest_code_scratch_floats(D));
    search_rows(heads[head], scratch.data(), begin * kNearestCodeRowBlock, std::min(end * kNearestCodeRowBlock, N));
  });
}

std::tuple<Tensor, Tensor, Tensor> nearest_code(const Tensor& z, const Tensor& codebook,
                                                const std::optional<Tensor>& ignored, bool keep_rows) {
  const CodeSizes sizes = check_on_cpu(z, codebook, ignored);
  const Tensor indices = empty(z, sizes.shape({sizes.N}), ScalarType::Long);
  const Tensor distances = empty(z, sizes.shape({sizes.N}), ScalarType::Float);
  const Tensor rows = keep_rows ? empty(z, sizes.shape({sizes.N, sizes.D}), codebook.scalar_type())
                                : nothing(z, codebook.scalar_type());
  search(sizes, z, codebook, ignored, indices, distances, nothing(z, z.scalar_type()), rows);
  return {indices, distances, rows};
}

// The rows of every head sorted by code: row_order (H, N) and code_begin (H, K + 1).
struct SortedRows {
  Tensor row_order, code_begin;

  SortedRows(const CodeSizes& sizes, const Tensor& indices)
      : row_order(empty(indices, {sizes.H, sizes.N}, ScalarType::Long)),
        code_begin(empty(indices, {sizes.H, sizes.K + 1}, ScalarType::Long)) {
    const int64_t* codes = indices.const_data_ptr<int64_t>();
    int64_t* order = row_order.mutable_data_ptr<int64_t>();
    int64_t* begins = code_begin.mutable_data_ptr<int64_t>();
    std::atomic<bool> valid{true};
    torch::stable::parallel_for(0, sizes.H, kElementsPerThread / (sizes.N + 1) + 1, [&](int64_t begin, int64_t end) {
      for (int64_t h = begin; h < end; ++h) {
        const bool sorted = nearest_code_sort_rows(codes + h * sizes.N, sizes.N, sizes.K, order + h * sizes.N,
                                                   begins + h * (sizes.K + 1));
        if (!sorted) valid = false;
      }
    });
    STD_TORCH_CHECK(valid, "indices must lie in [-1, ", sizes.K, ")");
  }

  const int64_t* order(int64_t head) const { return row_order.const_data_ptr<int64_t>() + head * row_order.size(1); }
  const int64_t* begin(int64_t head) const { return code_begin.const_data_ptr<int64_t>() + head * code_begin.size(1); }
};

// Rows are not spread evenly over codes, so the share of a thread is judged by the mean.
int64_t codes_at_least(const CodeSizes& sizes) {
  return (kElementsPerThread / (sizes.D + 1) + 1) * sizes.K / (sizes.N + sizes.K) + 1;
}

void sum_rows(const CodeSizes& sizes, const Tensor& z, const Tensor& indices, const Tensor& sums) {
  const SortedRows sorted(sizes, indices);
  auto* sum = nearest_code_sum_rows();
  parallel_over_heads(sizes.H, sizes.K, codes_at_least(sizes), [&](int64_t head, int64_t begin, int64_t end) {
    const Scratch scratch(nearest_code_row_floats(sizes.D));
    sum(matrix_of(z, head), sorted.order(head), sorted.begin(head), sizes.D,
        sums.mutable_data_ptr<float>() + head * sizes.K * sizes.D, scratch.data(), begin, end);
  });
}

// Fills counts (H, K); the mean over the counted rows of their squared differences, NaN where there are none.
double tally(const CodeSizes& sizes, const Tensor& indices, const Tensor& distances, const Tensor& counts) {
  int64_t* count = counts.mutable_data_ptr<int64_t>();
  double total = 0.0;
  for (int64_t head = 0; head < sizes.H; ++head) {
    total += nearest_code_tally(indices.const_data_ptr<int64_t>() + head * sizes.N,
                                distances.const_data_ptr<float>() + head * sizes.N, sizes.N, sizes.K,
                                count + head * sizes.K);
  }
  const int64_t counted = std::accumulate(count, count + sizes.H * sizes.K, int64_t{0});
  return total / static_cast<double>(counted * sizes.D);
}

std::tuple<Tensor, Tensor, Tensor, Tensor, Tensor, Tensor> vector_quantize(const Tensor& z, const Tensor& codebook,
                                                                           const std::optional<Tensor>& ignored,
                                                                           double beta, double gamma, bool keep_sums,
                                                                           bool keep_rows) {
  const CodeSizes sizes = check_on_cpu(z, codebook, ignored);
  const Tensor codes = empty(z, sizes.shape({sizes.N, sizes.D}), z.scalar_type());
  const Tensor loss = empty(z, {}, ScalarType::Float);
  const Tensor counts = empty(z, sizes.shape({sizes.K}), ScalarType::Long);
  const Tensor sums =
      keep_sums ? empty(z, sizes.shape({sizes.K, sizes.D}), ScalarType::Float) : nothing(z, ScalarType::Float);
  const Tensor indices = empty(z, sizes.shape({sizes.N}), ScalarType::Long);
  const Tensor distances = empty(z, sizes.shape({sizes.N}), ScalarType::Float);
  const Tensor rows = keep_rows ? empty(z, sizes.shape({sizes.N, sizes.D}), codebook.scalar_type())
                                : nothing(z, codebook.scalar_type());
  search(sizes, z, codebook, ignored, indices, distances, codes, rows);
  // Both terms of the loss have the same value: they differ in where the gradient goes.
  *loss.mutable_data_ptr<float>() = static_cast<float>((beta + gamma) * tally(sizes, indices, distances, counts));
  if (keep_sums) sum_rows(sizes, z, indices, sums);
  return {codes, loss, indices, counts, sums, rows};
}

std::vector<NearestCodeBackwardParams> backward_params(const CodeSizes& sizes, const std::optional<Tensor>& grad_codes,
                                                       const Tensor& weight, const Tensor& z, const Tensor& rows,
                                                       const Tensor& indices, double z_scale, double code_scale) {
  std::vector<NearestCodeBackwardParams> heads(sizes.H);
  for (int64_t head = 0; head < sizes.H; ++head) {
    NearestCodeBackwardParams& p = heads[head];
    p.z = matrix_of(z, head), p.rows = matrix_of(rows, head);
    if (grad_codes.has_value()) p.grad_codes = matrix_of(*grad_codes, head);
    p.indices = indices.const_data_ptr<int64_t>() + head * sizes.N;
    p.weight = weight.const_data_ptr<float>() + (weight.dim() == 2 ? head * weight.stride(0) : 0);
    p.weight_stride = weight.dim() == 0 ? 0 : weight.stride(-1);
    p.z_scale = static_cast<float>(z_scale), p.code_scale = static_cast<float>(code_scale);
    p.N = sizes.N, p.K = sizes.K, p.D = sizes.D;
  }
  return heads;
}

std::tuple<Tensor, Tensor> nearest_code_backward(const std::optional<Tensor>& grad_codes, const Tensor& weight,
                                                 const Tensor& z, const Tensor& rows, const Tensor& indices,
                                                 int64_t codes, double z_scale, double code_scale, bool need_z,
                                                 bool need_codebook) {
  STD_TORCH_CHECK(z.is_cpu() && rows.is_cpu() && weight.is_cpu() && indices.is_cpu() &&
                      (!grad_codes.has_value() || grad_codes->is_cpu()),
                  "all tensors must be on the CPU");
  const CodeSizes sizes = check_gradients(grad_codes, weight, z, rows, indices, codes);
  auto heads = backward_params(sizes, grad_codes, weight, z, rows, indices, z_scale, code_scale);
  Tensor grad_z = nothing(z, z.scalar_type()), grad_codebook = nothing(z, rows.scalar_type());
  const int64_t scratch_floats = nearest_code_row_floats(sizes.D);
  if (need_z) {
    grad_z = empty(z, sizes.shape({sizes.N, sizes.D}), z.scalar_type());
    auto* grad_rows = nearest_code_grad_z();
    const int64_t rows_at_least = kElementsPerThread / (sizes.D + 1) + 1;
    parallel_over_heads(sizes.H, sizes.N, rows_at_least, [&](int64_t head, int64_t begin, int64_t end) {
      NearestCodeBackwardParams p = heads[head];
      p.grad_z = head_of(grad_z, head, sizes.N * sizes.D);
      grad_rows(p, Scratch(scratch_floats).data(), begin, end);
    });
  }
  if (need_codebook) {
    grad_codebook = empty(z, sizes.shape({sizes.K, sizes.D}), rows.scalar_type());
    const SortedRows sorted(sizes, indices);
    auto* grad_code_rows = nearest_code_grad_codebook();
    parallel_over_heads(sizes.H, sizes.K, codes_at_least(sizes), [&](int64_t head, int64_t begin, int64_t end) {
      NearestCodeBackwardParams p = heads[head];
      p.row_order = sorted.order(head), p.code_begin = sorted.begin(head);
      p.grad_codebook = head_of(grad_codebook, head, sizes.K * sizes.D);
      grad_code_rows(p, Scratch(scratch_floats).data(), begin, end);
    });
  }
  return {grad_z, grad_codebook};
}

}  // namespace
}  // namespace cbtalk

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CPU, m) {
  m.impl("nearest_code", TORCH_BOX(&cbtalk::nearest_code));
  m.impl("nearest_code_backward", TORCH_BOX(&cbtalk::nearest_code_backward));
  m.impl("vector_quantize", TORCH_BOX(&cbtalk::vector_quantize));
}
