#include "cbtalk/nearest_code.h"
#include "float32_rows.h"

// What is built on the chosen codes: the gradients of rows and codes, and the sums of the rows of each code.

namespace cbtalk::CBTALK_ISA {

void nearest_code_grad_z(const NearestCodeBackwardParams& params, float* scratch, int64_t begin, int64_t end) {
  const auto& p = params;
  for (int64_t row = begin; row < end; ++row) {
    float* grad = scratch + 3 * p.D;
    if (p.indices[row] < 0) {
      for (int64_t d = 0; d < p.D; ++d) grad[d] = 0.0f;
    } else {
      const float* z = float32_row(p.z, row, p.D, scratch);
      const float* code = float32_row(p.rows, row, p.D, scratch + p.D);
      const float scale = p.z_scale * p.weight[row * p.weight_stride];
      for (int64_t d = 0; d < p.D; ++d) grad[d] = scale * (z[d] - code[d]);
      if (p.grad_codes.data != nullptr) {
        const float* carried = float32_row(p.grad_codes, row, p.D, scratch + 2 * p.D);
        for (int64_t d = 0; d < p.D; ++d) grad[d] += carried[d];
      }
    }
    store_row(grad, p.grad_z, p.z.storage, row, p.D);
  }
}

void nearest_code_grad_codebook(const NearestCodeBackwardParams& params, float* scratch, int64_t begin, int64_t end) {
  const auto& p = params;
  float* grad = scratch + 2 * p.D;
  for (int64_t k = begin; k < end; ++k) {
    for (int64_t d = 0; d < p.D; ++d) grad[d] = 0.0f;
    for (int64_t i = p.code_begin[k]; i < p.code_begin[k + 1]; ++i) {
      const int64_t row = p.row_order[i];
      const float* z = float32_row(p.z, row, p.D, scratch);
      const float* code = float32_row(p.rows, row, p.D, scratch + p.D);
      const float scale = p.code_scale * p.weight[row * p.weight_stride];
      for (int64_t d = 0; d < p.D; ++d) grad[d] += scale * (code[d] - z[d]);
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
