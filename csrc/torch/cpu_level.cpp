#include "dispatch.h"

// Called by cbtalk._native through ctypes: the level belongs to this library's state, not to a tensor operation.
extern "C" __attribute__((visibility("default"))) const char* cbtalk_cpu_level() {
  return cbtalk::level_name(cbtalk::level());
}

extern "C" __attribute__((visibility("default"))) bool cbtalk_set_cpu_level(const char* name) {
  return cbtalk::set_level(name);
}
