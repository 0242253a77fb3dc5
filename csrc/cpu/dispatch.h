#pragma once

// The copy of a CPU kernel that runs. Every csrc/cpu/<op>.cpp is compiled once a level, into namespace cbtalk::<level>.

#if defined(__x86_64__)
#define CBTALK_HAS_X86_LEVELS 1
#else
#define CBTALK_HAS_X86_LEVELS 0
#endif

namespace cbtalk {

enum class Level { baseline = 0, avx2 = 1, avx512 = 2 };

// The level in use: the best of this processor, at most CBTALK_CPU_ISA where the environment names a level.
Level level();

// Asks for a level from now on, by name; the processor's best is the ceiling. False: no such name, nothing changed.
bool set_level(const char* name);

const char* level_name(Level level);

// The best level that this processor can run.
Level best_level();

// Declares kernel `name` at every level, and cbtalk::name(), which gives the copy for the level in use:
//   CBTALK_CPU_KERNEL(flow_warp_forward, (const FlowWarpParams& params, int64_t begin, int64_t end))
//   auto* kernel = flow_warp_forward();  kernel(params, begin, end);
#if CBTALK_HAS_X86_LEVELS
#define CBTALK_CPU_KERNEL(name, signature)                                                                  \
  namespace baseline { void name signature; }                                                               \
  namespace avx2 { void name signature; }                                                                   \
  namespace avx512 { void name signature; }                                                                 \
  static inline auto* name() {                                                                              \
    const Level in_use = level();                                                                           \
    return in_use == Level::avx512 ? &avx512::name : in_use == Level::avx2 ? &avx2::name : &baseline::name; \
  }
#else
#define CBTALK_CPU_KERNEL(name, signature)     \
  namespace baseline { void name signature; }  \
  static inline auto* name() { return &baseline::name; }
#endif

}  // namespace cbtalk
