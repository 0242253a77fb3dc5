#pragma once

namespace cbtalk {

// How the elements of a tensor are stored; the arithmetic is in float32 for each.
enum class Storage { float32, float16, bfloat16 };

}  // namespace cbtalk
