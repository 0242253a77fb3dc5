#pragma once

// torch's stable sort, which the stable ABI has no function for.

#include <array>
#include <optional>
#include <utility>

#include "check.h"

namespace cbtalk {

// {sorted keys, int64: where each was}; equal keys keep their order.
inline std::pair<Tensor, Tensor> stable_sort(const Tensor& keys) {
  using torch::stable::detail::from;
  std::array<StableIValue, 4> stack{from(keys), from(std::optional<bool>(true)), from(int64_t{-1}), from(false)};
  STD_TORCH_CHECK(torch_call_dispatcher("aten::sort", "stable", stack.data(), TORCH_ABI_VERSION) == 0,
                  "torch could not sort ", keys.numel(), " keys");
  return {torch::stable::detail::to<Tensor>(stack[0]), torch::stable::detail::to<Tensor>(stack[1])};
}

}  // namespace cbtalk
