#include "dispatch.h"

#include <atomic>
#include <cstdlib>
#include <cstring>

namespace cbtalk {
namespace {

constexpr Level kLevels[] = {Level::baseline, Level::avx2, Level::avx512};

Level level_from_environment() {
  const char* name = std::getenv("CBTALK_CPU_ISA");
  for (const Level candidate : kLevels) {
    if (name != nullptr && std::strcmp(name, level_name(candidate)) == 0 && candidate < best_level()) return candidate;
  }
  return best_level();
}

std::atomic<Level>& current() {
  static std::atomic<Level> value{level_from_environment()};
  return value;
}

}  // namespace

const char* level_name(Level level) {
  return level == Level::avx512 ? "avx512" : level == Level::avx2 ? "avx2" : "baseline";
}

Level best_level() {
#if CBTALK_HAS_X86_LEVELS
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  return avx512 ? Level::avx512 : avx2 ? Level::avx2 : Level::baseline;
#else
  return Level::baseline;
#endif
}

Level level() { return current().load(std::memory_order_relaxed); }

bool set_level(const char* name) {
  for (const Level candidate : kLevels) {
    if (std::strcmp(name, level_name(candidate)) == 0) {
      current().store(candidate < best_level() ? candidate : best_level(), std::memory_order_relaxed);
      return true;
    }
  }
  return false;
}

}  // namespace cbtalk
