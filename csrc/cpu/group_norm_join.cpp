// The small sums between the passes over the pixels, in float64 and in a fixed order.

#include <cmath>

#include "cbtalk/group_norm.h"

namespace cbtalk {
namespace {

// Of a set of numbers: how many, their mean, and the sum of their squared distances from it.
struct Moments {
  double count, mean, squares;
};

// Chan, Golub and LeVeque (1983): no difference of large numbers, whatever the mean.
Moments join(const Moments& first, const Moments& second) {
  const double count = first.count + second.count;
  const double share = count > 0 ? second.count / count : 0;
  const double delta = second.mean - first.mean;
  return {count, first.mean + delta * share, first.squares + second.squares + delta * delta * (first.count * share)};
}

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
  Moments moments{};
  for (int64_t chunk = 0; chunk < params.chunks(); ++chunk) {
    const float* means = partial(params, image, chunk, 0) + first;
    const float* squares = partial(params, image, chunk, 1) + first;
    for (int64_t c = 0; c < width; ++c) {
      moments = join(moments, {chunk_pixels(params, chunk), means[c], squares[c]});
    }
  }
  params.mean[image * params.groups + group] = static_cast<float>(moments.mean);
  params.rstd[image * params.groups + group] =
      static_cast<float>(1.0 / sqrt(moments.squares / moments.count + params.eps));
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
      // grad_x = weight rstd g + (x - mean) slope + offset, with g the gradient ahead of the SiLU:
      //   rstd (w g - mean of w g - x^ (mean of w g x^)), x^ = (x - mean) rstd, the means over the group.
      const double rstd = params.rstd[image * params.groups + group];
      for (int64_t c = group * width; c < (group + 1) * width; ++c) {
        row(params, image, kSlope)[c] = static_cast<float>(-rstd * rstd * group_product / count);
        row(params, image, kOffset)[c] = static_cast<float>(-rstd * group_sum / count);
      }
    }
  }
}

}  // namespace cbtalk
