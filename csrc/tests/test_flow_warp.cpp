#include "cbtalk/flow_warp.h"

#include <cmath>
#include <cstring>
#include <initializer_list>
#include <vector>

#include "check.h"
#include "exact_padding.h"
#include "levels.h"

namespace {

using cbtalk::FlowWarpGradParams;
using cbtalk::FlowWarpParams;
using cbtalk::Padding;

constexpr int64_t kB = 2, kN = 2, kC = 19, kH = 9, kW = 11, kHo = 12, kWo = 10, kh = 5, kw = 4;

std::vector<float> wave(int64_t count, float step, float height) {
  std::vector<float> values(count);
  for (int64_t i = 0; i < count; ++i) values[i] = height * std::sin(step * static_cast<float>(i) + 0.3f);
  return values;
}

struct Problem {
  std::vector<float> feature = wave(kB * kC * kH * kW, 0.37f, 1.0f);
  std::vector<float> flow = wave(kB * kN * kh * kw * 2, 0.71f, 1.2f);
  std::vector<float> occlusion = wave(kB * kh * kw, 0.53f, 1.0f);
  std::vector<float> output = std::vector<float>(kB * kN * kC * kHo * kWo, NAN);

  FlowWarpParams params(bool channels_last, Padding padding) {
    FlowWarpParams p{};
    p.batch = kB, p.flows = kN, p.channels = kC, p.height = kH, p.width = kW;
    p.out_height = kHo, p.out_width = kWo, p.flow_height = p.occlusion_height = kh;
    p.flow_width = p.occlusion_width = kw;
    p.feature = feature.data(), p.flow = flow.data(), p.occlusion = occlusion.data(), p.output = output.data();
    const int64_t planes[4] = {kC * kH * kW, kH * kW, kW, 1}, pixels[4] = {kC * kH * kW, 1, kW * kC, kC};
    const int64_t flow_stride[5] = {kN * kh * kw * 2, kh * kw * 2, kw * 2, 2, 1};
    const int64_t occlusion_stride[4] = {kh * kw, kh * kw, kw, 1};
    std::memcpy(p.feature_stride, channels_last ? pixels : planes, sizeof p.feature_stride);
    std::memcpy(p.flow_stride, flow_stride, sizeof flow_stride);
    std::memcpy(p.occlusion_stride, occlusion_stride, sizeof occlusion_stride);
    p.channels_last = channels_last;
    p.align_corners = true;
    p.padding = padding;
    return p;
  }
};

double resized(const float* map, int64_t stride, int64_t y, int64_t x) {
  const double row = static_cast<double>(y) * (kh - 1) / (kHo - 1);
  const double column = static_cast<double>(x) * (kw - 1) / (kWo - 1);
  double sum = 0;
  for (int64_t i = 0; i < kh; ++i) {
    for (int64_t j = 0; j < kw; ++j) {
      const double hat = std::fmax(0, 1 - std::fabs(row - i)) * std::fmax(0, 1 - std::fabs(column - j));
      sum += hat * map[(i * kw + j) * stride];
    }
  }
  return sum;
}

// The definition in double: a hat function around the position on every pixel of the feature.
double exact(const Problem& problem, const FlowWarpParams& params, int64_t b, int64_t n, int64_t c, int64_t y,
             int64_t x) {
  const int64_t* stride = params.feature_stride;
  const float* flow = problem.flow.data() + (b * kN + n) * kh * kw * 2;
  const double column = exact_position(resized(flow, 2, y, x), kW, true, params.padding);
  const double row = exact_position(resized(flow + 1, 2, y, x), kH, true, params.padding);
  double sum = 0;
  for (int64_t i = 0; i < kH; ++i) {
    for (int64_t j = 0; j < kW; ++j) {
      const double hat = std::fmax(0, 1 - std::fabs(row - i)) * std::fmax(0, 1 - std::fabs(column - j));
      sum += hat * problem.feature[b * stride[0] + c * stride[1] + i * stride[2] + j * stride[3]];
    }
  }
  return sum * resized(problem.occlusion.data() + b * kh * kw, 1, y, x);
}

void check_forward(bool channels_last, Padding padding) {
  Problem problem;
  const FlowWarpParams params = problem.params(channels_last, padding);
  cbtalk::flow_warp_forward()(params, 0, 7);  // in two uneven parts
  cbtalk::flow_warp_forward()(params, 7, kB * kN * kHo);
  for (int64_t i = 0; i < kB * kN * kC * kHo * kWo; ++i) {
    const int64_t image = i / (kC * kHo * kWo), rest = i % (kC * kHo * kWo);
    const int64_t c = channels_last ? rest % kC : rest / (kHo * kWo);
    const int64_t pixel = channels_last ? rest / kC : rest % (kHo * kWo);
    const int64_t b = image / kN, n = image % kN, y = pixel / kWo, x = pixel % kWo;
    CHECK_NEAR(problem.output[i], exact(problem, params, b, n, c, y, x), 1e-5);
  }
}

// For a linear function of the output, what the gradients say a small step changes is what it changes.
void check_backward(bool channels_last, Padding padding) {
  Problem problem;
  FlowWarpGradParams grads{};
  grads.forward = problem.params(channels_last, padding);
  const std::vector<float> grad_output = wave(problem.output.size(), 0.91f, 1.0f);
  std::vector<float> feature(problem.feature.size(), NAN), flow(problem.flow.size(), NAN);
  std::vector<float> occlusion(problem.occlusion.size(), NAN);
  std::vector<float> flow_rows(kB * kN * kHo * kw * 2, NAN), occlusion_rows(kB * kN * kHo * kw, NAN);
  grads.grad_output = grad_output.data();
  grads.grad_feature = feature.data(), grads.grad_flow = flow.data(), grads.grad_occlusion = occlusion.data();
  grads.grad_flow_rows = flow_rows.data(), grads.grad_occlusion_rows = occlusion_rows.data();
  cbtalk::flow_warp_backward_feature()(grads, 0, kB * cbtalk::warp_channel_blocks(kC));
  cbtalk::flow_warp_backward_rows()(grads, 0, kB * kN * kHo);
  cbtalk::flow_warp_backward_flow()(grads, 0, kB * kN * kh);
  cbtalk::flow_warp_backward_occlusion()(grads, 0, kB * kh);

  const auto objective = [&] {
    cbtalk::flow_warp_forward()(grads.forward, 0, kB * kN * kHo);
    double sum = 0;
    for (size_t i = 0; i < grad_output.size(); ++i) sum += static_cast<double>(grad_output[i]) * problem.output[i];
    return sum;
  };
  const auto check = [&](std::vector<float>& input, const std::vector<float>& grad, float step, double tolerance) {
    for (size_t i = 0; i < input.size(); i += 1 + input.size() / 50) {
      const float before = input[i];
      input[i] = before + step;
      const double above = objective();
      input[i] = before - step;
      const double below = objective();
      input[i] = before;
      CHECK_NEAR(grad[i], (above - below) / (2 * static_cast<double>(step)), tolerance);
    }
  };
  check(problem.feature, feature, 0.5f, 1e-3);  // linear in the feature and in the occlusion: a large step is exact
  check(problem.occlusion, occlusion, 0.5f, 1e-3);
  check(problem.flow, flow, 1e-3f, 0.1);
}

}  // namespace

int main() {
  at_each_level([] {
    for (const bool channels_last : {false, true}) {
      for (const Padding padding : {Padding::zeros, Padding::border, Padding::reflection}) {
        check_forward(channels_last, padding);
        check_backward(channels_last, padding);
      }
    }
  });
  return 0;
}
