#include "cbtalk/nearest_code.h"
#include "float32_rows.h"

// Built on the chosen codes: the gradients of rows and codes, and the sums of the rows of each code.

namespace cbtalk::CBTALK_ISA {

namespace {

// grad = carried + scale * (z - code); carried is null for zero.
void grad_z_row(const float* z, const float* code, const float* carried, float scale, float* __restrict__ grad,
                int64_t D) {
  for (int64_t d = 0; d < D; ++d) {
    const float pull = scale * (z[d] - code[d]);
    grad[d] = carried == nullptr ? pull : carried[d] + pull;
  }
}

// grad += scale * (code - z)
void add_grad_code(const float* z, const float* code, float scale, float* __restrict__ grad, int64_t D) {
  for (int64_t d = 0; d < D; ++d) grad[d] += scale * (code[d] - z[d]);
}

}  // namespace

void nearest_code_grad_z(const NearestCodeBackwardParams& params, float* scratch, int64_t begin, int64_t end) {
  const auto& p = params;
  for (int64_t row = begin; row < end; ++row) {
    float* grad = float32_target(p.grad_z, p.z.storage, row, p.D, scratch + 3 * p.D);
    if (p.indices[row] < 0) {
      for (int64_t d = 0; d < p.D; ++d) grad[d] = 0.0f;
    } else {
      const bool carries = p.grad_codes.data != nullptr;
      grad_z_row(float32_row(p.z, row, p.D, scratch), float32_row(p.rows, row, p.D, scratch + p.D),
                 carries ? float32_row(p.grad_codes, row, p.D, scratch + 2 * p.D) : nullptr,
                 p.z_scale * p.weight[row * p.weight_stride], grad, p.D);
    }
    store_row(grad, p.grad_z, p.z.storage, row, p.D);
  }
}

void nearest_code_grad_codebook(const NearestCodeBackwardParams& params, float* scratch, int64_t begin, int64_t end) {
  const auto& p = params;
  for (int64_t k = begin; k < end; ++k) {
    float* grad = float32_target(p.grad_codebook, p.rows.storage, k, p.D, scratch + 2 * p.D);
    for (int64_t d = 0; d < p.D; ++d) grad[d] = 0.0f;
    for (int64_t i = p.code_begin[k]; i < p.code_begin[k + 1]; ++i) {
      const int64_t row = p.row_order[i];
      add_grad_code(float32_row(p.z, row, p.D, scratch), float32_row(p.rows, row, p.D, scratch + p.D),
                    p.code_scale * p.weight[row * p.weight_stride], grad, p.D);
    }
    store_row(grad, p.grad_codebook, p.rows.storage, k, p.D);
  }
}

void nearest_code_sum_rows(const StridedMatrix& z, const int64_t* row_order, const int64_t* code_begin, int64_t D,
                           float* sums, float* scratch, int64_t begin, int64_t end) {
  for (int64_t k = begin; k < end; ++k) {
    float* sum = sums + k * D;
    for (int64_t d = 0; d < D; ++d) sum[d] = 0.0f;
    for (int64_t i = code_begin[k]; i < code_begin[k + 1]; ++i) {
      const float* row = float32_row(z, row_order[i], D, scratch);
      for (int64_t d = 0; d < D; ++d) sum[d] += row[d];
    }
  }
}

}  // namespace cbtalk::CBTALK_ISA
