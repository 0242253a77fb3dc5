// conv3x3 for the CPU: check, allocate, fill the parameters, share the tiles out.

#include "cbtalk/conv3x3.h"

#include <optional>

#include "check.h"
#include "scratch.h"

namespace {

using cbtalk::Conv3x3Params;
using cbtalk::Tensor;

void check_image(const Tensor& x, const char* name) {
  cbtalk::check_float32(x, name);
  cbtalk::check_dense_channels_last(x, name);
}

// The weight as it was before its transform is there for the derivative, which is not computed here.
Tensor conv3x3(const Tensor& x, const Tensor& /*untransformed*/, const Tensor& weight, const Tensor& bias,
               const std::optional<Tensor>& residual, double leak, bool upsample) {
  check_image(x, "x");
  cbtalk::check_float32(weight, "weight");
  cbtalk::check_contiguous(weight, "weight");
  cbtalk::check_dim(weight, 4, "weight");
  cbtalk::check_float32(bias, "bias");
  cbtalk::check_contiguous(bias, "bias");
  const int64_t scale = upsample ? 2 : 1, side = upsample ? 3 : weight.size(0) == 36 ? 6 : 4;
  Conv3x3Params params{x.size(0), x.size(2) * scale, x.size(3) * scale, x.size(1), bias.numel(), side,
                       static_cast<float>(leak), x.const_data_ptr<float>(), weight.const_data_ptr<float>(),
                       bias.const_data_ptr<float>(), nullptr, nullptr};
  cbtalk::check_size(weight, 0, params.points(), "weight");
  cbtalk::check_size(weight, 1, params.out_panels(), "weight");
  cbtalk::check_size(weight, 2, params.channels, "weight");
  cbtalk::check_size(weight, 3, Conv3x3Params::kPanel, "weight");
  Tensor y = torch::stable::empty({params.batch, params.out_channels, params.height, params.width},
                                  x.scalar_type(), std::nullopt, std::nullopt, std::nullopt,
                                  torch::headeronly::MemoryFormat::ChannelsLast);
  if (residual) {
    check_image(*residual, "residual");
    const int64_t shape[4] = {params.batch, params.out_channels, params.height, params.width};
    for (int i = 0; i < 4; ++i) cbtalk::check_size(*residual, i, shape[i], "residual");
    params.residual = residual->const_data_ptr<float>();
  }
  params.y = y.mutable_data_ptr<float>();
  auto* kernel = cbtalk::conv3x3_forward();
  torch::stable::parallel_for(0, params.blocks(), 1, [&](int64_t begin, int64_t end) {
    const cbtalk::Scratch scratch(params.scratch_size());
    kernel(params, scratch.data(), begin, end);
  });
  return y;
}

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(cbtalk, CPU, m) { m.impl("conv3x3", TORCH_BOX(&conv3x3)); }
