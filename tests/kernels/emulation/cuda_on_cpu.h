#pragma once

// Runs CUDA kernels on the CPU, a block at a time, each thread of it a fiber that is left at barriers and shuffles.
// Blocks take their threads in ascending and in descending order by turns: a missing barrier gives a wrong value in one
// of the two. What races within that stays unseen. Shared memory keeps what the block before left there.

#include <cuda_runtime_api.h>
#include <setjmp.h>
#include <ucontext.h>
#include <vector_functions.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <functional>
#include <memory>
#include <type_traits>
#include <utility>
#include <vector>

#undef __global__
#undef __device__
#undef __shared__
#undef __launch_bounds__
#undef __grid_constant__
#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __grid_constant__
#define cudaGetLastError() ::cuda_on_cpu::take_error()
#define cudaMemsetAsync(target, value, size, stream) (memset(target, value, size), (void)(stream), cudaSuccess)

inline uint3 threadIdx, blockIdx;
inline dim3 blockDim, gridDim;
using std::max, std::min;

namespace cuda_on_cpu {

enum class State { ready, at_warp, at_block, done };

struct Thread {
  uint3 index;
  State state = State::ready;
  int operation = 0;                    // which of the operations of a warp it waits in
  std::array<unsigned char, 32> given;  // to the other lanes
  std::array<unsigned char, 32> taken;  // what it gave, as the others read it: not yet overwritten by what comes next
  ucontext_t entry;
  jmp_buf context;
  std::unique_ptr<char[]> stack;
};

constexpr unsigned kStackBytes = 256 << 10;
inline std::vector<std::unique_ptr<Thread>> threads;  // of one block; kept for the blocks that follow
inline Thread* current;
inline unsigned current_number;
inline jmp_buf scheduler;
inline std::function<void()> kernel_of_thread;
inline bool descending = false;
inline int votes, vote;  // of __syncthreads_or: being collected, and collected
inline cudaError_t error = cudaSuccess;

inline cudaError_t take_error() { return std::exchange(error, cudaSuccess); }

// Leaves a thread, and enters it again. By setjmp: swapcontext makes a system call each time.
[[gnu::noinline]] inline void leave() {
  if (_setjmp(current->context) == 0) _longjmp(scheduler, 1);
}
[[gnu::noinline]] inline void enter(unsigned number) {
  current = threads[number].get();
  current_number = number;
  threadIdx = current->index;
  if (_setjmp(scheduler) == 0) _longjmp(current->context, 1);
}

inline void live() {
  for (;;) {
    current->state = State::done;
    leave();
    kernel_of_thread();
  }
}

[[gnu::noinline]] inline void add_thread() {
  threads.push_back(std::make_unique<Thread>());
  current = threads.back().get();
  current->stack.reset(new char[kStackBytes]);
  getcontext(&current->entry);
  current->entry.uc_stack.ss_sp = current->stack.get();
  current->entry.uc_stack.ss_size = kStackBytes;
  makecontext(&current->entry, live, 0);
  if (_setjmp(scheduler) == 0) setcontext(&current->entry);
}

inline void wait(State where, int operation) {
  current->state = where;
  current->operation = operation;
  leave();
}

// Runs a warp until all its threads are at a barrier of the block or done. False: they will never meet.
inline bool run_warp(unsigned first, unsigned last) {
  for (;;) {
    int at_warp = 0, at_block = 0, operation = 0;
    for (unsigned n = 0; n < last - first; ++n) {
      const unsigned i = descending ? last - 1 - n : first + n;
      if (threads[i]->state == State::ready) enter(i);
      at_block += threads[i]->state == State::at_block;
      if (threads[i]->state != State::at_warp) continue;
      if (at_warp++ > 0 && threads[i]->operation != operation) return false;
      operation = threads[i]->operation;
    }
    if (at_warp == 0) return true;
    if (at_block > 0) return false;
    for (unsigned i = first; i < last; ++i) {
      const bool meets = threads[i]->state == State::at_warp;
      // The value of a thread that has left the kernel is undefined: a NaN, or -1.
      if (!meets) threads[i]->given.fill(0xff);
      threads[i]->taken = threads[i]->given;
      if (meets) threads[i]->state = State::ready;
    }
  }
}

inline bool run_block(unsigned count) {
  for (unsigned i = 0; i < count; ++i) {
    threads[i]->index = {i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y};
    threads[i]->state = State::ready;
  }
  for (unsigned done = 0; done < count;) {
    for (unsigned n = 0; n < count; n += 32) {
      const unsigned first = descending ? (count - 1 - n) / 32 * 32 : n;
      if (!run_warp(first, min(first + 32, count))) return false;
    }
    vote = std::exchange(votes, 0);
    done = 0;
    for (unsigned i = 0; i < count; ++i) {
      if (threads[i]->state == State::at_block) threads[i]->state = State::ready;
      done += threads[i]->state == State::done;
    }
  }
  descending = !descending;
  return true;
}

inline void run_grid(dim3 grid, dim3 block, std::function<void()> kernel) {
  const unsigned count = block.x * block.y * block.z;
  if (grid.x == 0 || grid.x > 0x7fffffff || grid.y - 1 > 65534 || grid.z - 1 > 65534 || count - 1 > 1023) {
    error = cudaErrorInvalidConfiguration;
    return;
  }
  while (threads.size() < count) add_thread();
  kernel_of_thread = std::move(kernel);
  gridDim = grid, blockDim = block;
  for (blockIdx.z = 0; blockIdx.z < grid.z; ++blockIdx.z) {
    for (blockIdx.y = 0; blockIdx.y < grid.y; ++blockIdx.y) {
      for (blockIdx.x = 0; blockIdx.x < grid.x; ++blockIdx.x) {
        if (run_block(count)) continue;
        fprintf(stderr, "the threads of a warp wait for each other in different places\n");
        error = cudaErrorLaunchFailure;
        threads.clear();
        return;
      }
    }
  }
}

// kernel<<<grid, block, shared, stream>>>(arguments) becomes launch(kernel, grid, block, shared, stream)(arguments).
template <class... Parameters>
auto launch(void (*kernel)(Parameters...), dim3 grid, dim3 block, size_t, cudaStream_t) {
  return [=](std::type_identity_t<Parameters>... arguments) { run_grid(grid, block, [=] { kernel(arguments...); }); };
}

// Waits for the whole warp; then given_by<T>(lane) is what that lane gave.
template <class T>
void give(const T& value, int operation) {
  static_assert(sizeof(T) <= sizeof(Thread::given) && std::is_trivially_copyable_v<T>);
  memcpy(current->given.data(), &value, sizeof(T));
  wait(State::at_warp, operation);
}
template <class T>
T given_by(unsigned lane) {
  T value;
  const unsigned number = current_number / 32 * 32 + lane;
  memset(static_cast<void*>(&value), 0xff, sizeof(T));
  if (number < blockDim.x * blockDim.y * blockDim.z) memcpy(&value, threads[number]->taken.data(), sizeof(T));
  return value;
}

// sum (16, 8) += a (16, 8) * b (8, 8) of TF32, spread over a warp as PTX describes mma.m16n8k8.
inline void multiply_tf32(float (&sum)[4], const float (&a)[4], const float (&b)[2]) {
  using Parts = std::array<float, 6>;
  Parts parts = {a[0], a[1], a[2], a[3], b[0], b[1]};
  for (float& part : parts) {  // the tensor cores do not read the last 13 bits
    uint32_t bits;
    memcpy(&bits, &part, sizeof(bits));
    bits &= ~0x1fffu;
    memcpy(&part, &bits, sizeof(bits));
  }
  give(parts, 1);
  const unsigned lane = current_number % 32;
  for (unsigned i = 0; i < 4; ++i) {
    const unsigned row = lane / 4, column = lane % 4 * 2 + i % 2;
    for (unsigned k = 0; k < 8; ++k) {
      sum[i] += given_by<Parts>(row * 4 + k % 4)[i / 2 + k / 4 * 2] * given_by<Parts>(column * 4 + k % 4)[4 + k / 4];
    }
  }
}

// sum + a . b as tensor cores add: what lies below the 24 bits of the largest addend, and one more, is cut off, and so is
// what the result has beyond 24 bits.
template <size_t Depth>
float add_truncated(float sum, const float (&a)[Depth], const float (&b)[Depth]) {
  float largest = fabsf(sum);
  for (unsigned k = 0; k < Depth; ++k) largest = fmaxf(largest, fabsf(a[k] * b[k]));
  if (!std::isfinite(sum) || !std::isfinite(largest) || largest < 0x1p-80f) {
    for (unsigned k = 0; k < Depth; ++k) sum += a[k] * b[k];
    return sum;
  }
  const double unit = ldexp(1.0, ilogbf(largest) - 24);
  double units = trunc(sum / unit);
  for (unsigned k = 0; k < Depth; ++k) units += trunc(static_cast<double>(a[k]) * b[k] / unit);
  const double exact = units * unit;
  const float rounded = static_cast<float>(exact);
  return fabs(rounded) > fabs(exact) ? std::nextafter(rounded, 0.0f) : rounded;
}

// sum (16, 8) += a (16, 8 * Eights) * b (8 * Eights, 8) of float16 or bfloat16, two in a word, as mma.m16n8k8 and k16.
template <class T, size_t Words, size_t Eights>
void multiply_halves(float (&sum)[4], const uint32_t (&a)[Words], const uint32_t (&b)[Eights]) {
  static_assert(Words == 2 * Eights);
  using Parts = std::array<T, 6 * Eights>;
  Parts parts;
  memcpy(parts.data(), a, sizeof(a));
  memcpy(parts.data() + 4 * Eights, b, sizeof(b));
  give(parts, 2);
  const unsigned lane = current_number % 32;
  float left[2][8 * Eights], right[2][8 * Eights];  // two rows of a, two columns of b
  for (unsigned member = 0; member < 4; ++member) {
    const Parts rows = given_by<Parts>(lane / 4 * 4 + member);
    for (unsigned i = 0; i < 4 * Eights; ++i) {
      left[i / 2 % 2][2 * member + i / 4 * 8 + i % 2] = static_cast<float>(rows[i]);
    }
    for (unsigned n = 0; n < 2; ++n) {
      const Parts columns = given_by<Parts>((lane % 4 * 2 + n) * 4 + member);
      for (unsigned i = 0; i < 2 * Eights; ++i) {
        right[n][2 * member + i / 2 * 8 + i % 2] = static_cast<float>(columns[4 * Eights + i]);
      }
    }
  }
  for (unsigned i = 0; i < 4; ++i) sum[i] = add_truncated(sum[i], left[i / 2], right[i % 2]);
}

}  // namespace cuda_on_cpu

inline void __syncthreads() { cuda_on_cpu::wait(cuda_on_cpu::State::at_block, 0); }

inline int __syncthreads_or(int predicate) {
  cuda_on_cpu::votes |= predicate != 0;
  __syncthreads();
  return cuda_on_cpu::vote;
}

inline void __threadfence() {}

inline void __syncwarp() { cuda_on_cpu::give(0, 0); }

template <class T>
T __shfl_xor_sync(unsigned, T value, int lanes) {
  cuda_on_cpu::give(value, 100 + lanes);
  return cuda_on_cpu::given_by<T>(cuda_on_cpu::current_number % 32 ^ lanes);
}

template <class T>
T __shfl_down_sync(unsigned, T value, int lanes) {
  cuda_on_cpu::give(value, 200 + lanes);
  const unsigned lane = cuda_on_cpu::current_number % 32 + lanes;
  return lane < 32 ? cuda_on_cpu::given_by<T>(lane) : value;
}

inline uint32_t __float_as_uint(float x) {
  uint32_t bits;
  memcpy(&bits, &x, sizeof(bits));
  return bits;
}

template <class T>
T atomicAdd(T* target, std::type_identity_t<T> value) {
  return std::exchange(*target, *target + value);
}
inline float4 atomicAdd(float4* target, float4 value) {
  const float4 old = *target;
  *target = {old.x + value.x, old.y + value.y, old.z + value.z, old.w + value.w};
  return old;
}
template <class T>
T atomicMin(T* target, std::type_identity_t<T> value) {
  return std::exchange(*target, min(*target, value));
}
template <class T>
T atomicMax(T* target, std::type_identity_t<T> value) {
  return std::exchange(*target, max(*target, value));
}
