#pragma once

#include <cstdio>
#include <cstring>
#include <initializer_list>

#include "check.h"
#include "dispatch.h"

// Calls `check` once at each instruction level that this processor has, and names those that it lacks.
template <typename Check>
void at_each_level(Check check) {
  for (const char* name : {"baseline", "avx2", "avx512"}) {
    CHECK(cbtalk::set_level(name));
    if (std::strcmp(cbtalk::level_name(cbtalk::level()), name) != 0) {
      std::printf("%s: skipped: this processor lacks it\n", name);
      continue;
    }
    check();
    std::printf("%s: passed\n", name);
  }
}
