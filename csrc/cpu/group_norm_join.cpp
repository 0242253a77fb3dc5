// The small sums between the passes over the pixels, in float64 and in a fixed order.

#include "cbtalk/group_norm.h"
#include "cbtalk/group_norm_math.h"

namespace cbtalk {
namespace {

// Rows of the coefficients of one image.
enum Row { kScale, kShift, kMean, kRstd, kSlope, kOffset, kRows };

float* row(const GroupNormParams& params, int64_t image, Row which) {
  return params.coefficients + (image * kRows + which) * params.channels;
}

const float* partial(const GroupNormParams& params, int64_t image, int64_t chunk, int which) {
  return params.partial + ((image * params.chunks() + chunk) * 2 + which) * params.channels;
}

double chunk_pixels(const GroupNormParams& params, int64_t chunk) {
  const int64_t left = params.pixels - chunk * params.kChunk;
  return static_cast<double>(left < params.kChunk ? left : params.kChunk);
}

// Mean and squared distances of one group, over its channels and chunks in their order.
void join_group(const GroupNormParams& params, int64_t image, int64_t group) {
  const int64_t width = params.channels / params.groups, first = group * width;
  Moments<double> moments{};
  double count = 0;
  for (int64_t chunk = 0; chunk < params.chunks(); ++chunk) {
    const float* means = partial(params, image, chunk, 0) + first;
    const float* squares = partial(params, image, chunk, 1) + first;
    for (int64_t c = 0; c < width; ++c) {
      const JoinWeights<double> weights = join_weights(count, chunk_pixels(params, chunk));
      moments = join(weights, moments, {means[c], squares[c]});
      count = weights.count;
    }
  }
  params.mean[image * params.groups + group] = static_cast<float>(moments.mean);
  params.rstd[image * params.groups + group] =
      static_cast<float>(reciprocal_deviation(moments.squares, count, params.eps));
}

}  // namespace

void group_norm_restore(const GroupNormParams& params, int64_t begin, int64_t end) {
  const int64_t width = params.channels / params.groups;
  for (int64_t image = begin; image < end; ++image) {
    for (int64_t c = 0; c < params.channels; ++c) {
      const float mean = params.mean[image * params.groups + c / width];
      const float rstd = params.rstd[image * params.groups + c / width];
      const float scale = params.weight[c] * rstd;
      row(params, image, kScale)[c] = scale;
      row(params, image, kShift)[c] =
          static_cast<float>(static_cast<double>(params.bias[c]) - static_cast<double>(scale) * mean);
      row(params, image, kMean)[c] = mean;
      row(params, image, kRstd)[c] = rstd;
    }
  }
}

void group_norm_join_moments(const GroupNormParams& params, int64_t begin, int64_t end) {
  for (int64_t image = begin; image < end; ++image) {
    for (int64_t group = 0; group < params.groups; ++group) join_group(params, image, group);
  }
  group_norm_restore(params, begin, end);
}

void group_norm_join_gradients(const GroupNormParams& params) {
  const int64_t width = params.channels / params.groups;
  const double count = static_cast<double>(params.pixels * width);
  for (int64_t c = 0; c < params.channels; ++c) params.grad_weight[c] = params.grad_bias[c] = 0;
  for (int64_t image = 0; image < params.batch; ++image) {
    for (int64_t group = 0; group < params.groups; ++group) {
      double group_sum = 0, group_product = 0;
      for (int64_t c = group * width; c < (group + 1) * width; ++c) {
        double sum = 0, product = 0;
        for (int64_t chunk = 0; chunk < params.chunks(); ++chunk) {
          sum += partial(params, image, chunk, 0)[c];
          product += partial(params, image, chunk, 1)[c];
        }
        params.grad_bias[c] += static_cast<float>(sum);
        params.grad_weight[c] += static_cast<float>(product);
        group_sum += params.weight[c] * sum;
        group_product += params.weight[c] * product;
      }
      const InputGradientTerms terms =
          input_gradient_terms(params.rstd[image * params.groups + group], group_sum, group_product, count);
      for (int64_t c = group * width; c < (group + 1) * width; ++c) {
        row(params, image, kSlope)[c] = terms.slope;
        row(params, image, kOffset)[c] = terms.offset;
      }
    }
  }
}

}  // namespace cbtalk
