#include "cbtalk/nearest_code.h"
#include "float32_rows.h"
#include "nearest_code_panels.h"

// The codebook as it is packed before the search.

namespace cbtalk::CBTALK_ISA {
namespace {

void pack_panel(const NearestCodeParams& p, int64_t first, float* panel, float* scratch) {
  double norm[kPanel] = {};
  for (int64_t lane = 0; lane < kPanel; ++lane) {
    const bool exists = first + lane < p.K;
    const float* code = exists ? float32_row(p.codebook, first + lane, p.D, scratch) : nullptr;
    for (int64_t d = 0; d < p.D; ++d) panel[(1 + d) * kPanel + lane] = exists ? -2.0f * (code[d] - p.centre[d]) : 0.0f;
  }
  for (int64_t d = 0; d < p.D; ++d) {
    const float* elements = panel + (1 + d) * kPanel;  // -2e, exact
    for (int64_t lane = 0; lane < kPanel; ++lane) {
      norm[lane] += 0.25 * static_cast<double>(elements[lane]) * static_cast<double>(elements[lane]);
    }
  }
  // The filling of the last panel is never nearer than anything.
  for (int64_t lane = 0; lane < kPanel; ++lane) {
    panel[lane] = first + lane < p.K ? static_cast<float>(norm[lane]) : __builtin_inff();
  }
}

// The same for equal codes.
uint32_t hash_of(const NearestCodeParams& p, int64_t k) {
  uint32_t hash = 0;
  const int64_t places[] = {-1, 0, p.D / 2, p.D - 1};
  for (const int64_t d : places) {
    const float element = *packed_element(p, k, d) + 0.0f;  // -0 is 0
    uint32_t bits;
    __builtin_memcpy(&bits, &element, sizeof bits);
    hash = (hash ^ bits) * 0x9e3779b1u;
    hash ^= hash >> 15;
  }
  return hash;
}

bool are_equal(const float* a, const float* b, int64_t D) {
  for (int64_t d = 0; d < D; ++d) {
    if (!(a[d] == b[d])) return false;
  }
  return true;
}

}  // namespace

void nearest_code_centre(const NearestCodeParams& params, float* scratch) {
  // The mean of some of the codes: any point amid them will do.
  constexpr int64_t kSamples = 64;
  const auto& p = params;
  double* sum = reinterpret_cast<double*>(scratch);  // (D,)
  for (int64_t d = 0; d < p.D; ++d) sum[d] = 0.0;
  int64_t count = 0;
  for (int64_t k = 0; k < p.K; k += p.K / kSamples + 1) {
    const float* code = float32_row(p.codebook, k, p.D, scratch + 2 * p.D);
    float finite = 0.0f;  // and NaN where an element is not
    for (int64_t d = 0; d < p.D; ++d) finite += 0.0f * code[d];
    if (finite != 0.0f) continue;
    for (int64_t d = 0; d < p.D; ++d) sum[d] += static_cast<double>(code[d]);
    ++count;
  }
  for (int64_t d = 0; d < p.D; ++d) p.centre[d] = count == 0 ? 0.0f : static_cast<float>(sum[d] / count);
}

void nearest_code_pack(const NearestCodeParams& params, float* scratch, int64_t begin, int64_t end) {
  for (int64_t first = begin * kNearestCodeGroup; first < end * kNearestCodeGroup; first += kPanel) {
    pack_panel(params, first, params.panels + first * (params.D + 1), scratch);
  }
}

void nearest_code_drop_repeated(const NearestCodeParams& params, float* scratch) {
  const auto& p = params;
  const int64_t size = nearest_code_table_size(p.K);
  for (int64_t slot = 0; slot < size; ++slot) p.table[slot] = -1;
  if (p.D == 0) return;
  for (int64_t k = 0; k < p.K; ++k) {
    const float* code = float32_row(p.codebook, k, p.D, scratch);
    int64_t slot = hash_of(p, k) & (size - 1);
    while (p.table[slot] >= 0) {
      if (are_equal(code, float32_row(p.codebook, p.table[slot], p.D, scratch + p.D), p.D)) {
        *packed_element(p, k, -1) = __builtin_nanf("");  // its scores are not numbers, and so never the smallest
        break;
      }
      slot = (slot + 1) & (size - 1);
    }
    if (p.table[slot] < 0) p.table[slot] = static_cast<int32_t>(k);
  }
}

}  // namespace cbtalk::CBTALK_ISA
