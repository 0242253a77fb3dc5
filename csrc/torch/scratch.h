#pragma once

// Working memory of a CPU kernel.

#include <cstdint>
#include <new>

namespace cbtalk {

// Floats from the start of a cache line on, uninitialised; std::bad_alloc where there is no memory.
class Scratch {
 public:
  explicit Scratch(int64_t floats) : data_(static_cast<float*>(::operator new(floats * sizeof(float), kCacheLine))) {}
  ~Scratch() { ::operator delete(data_, kCacheLine); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  float* data() const { return data_; }

 private:
  static constexpr std::align_val_t kCacheLine{64};
  float* data_;
};

}  // namespace cbtalk
