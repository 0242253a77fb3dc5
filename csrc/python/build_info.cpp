// Facts of how the compiled part was built, for `cbtalk doctor` and the tests.

#include <pybind11/pybind11.h>

#include "dispatch.h"

PYBIND11_MODULE(_build_info, module) {
  module.doc() = "How the compiled part of cbtalk was built.";
  module.attr("compiler") = CBTALK_INFO_COMPILER;
  module.attr("flags") = CBTALK_INFO_FLAGS;
  module.attr("levels") = CBTALK_INFO_LEVELS;
  module.attr("cuda") = CBTALK_INFO_CUDA;  // empty where the CUDA C++ kernels were not built
  module.attr("switches") = CBTALK_INFO_SWITCHES;
  module.attr("processor_level") = cbtalk::level_name(cbtalk::best_level());
}
