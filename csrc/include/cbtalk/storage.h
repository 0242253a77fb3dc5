#pragma once

namespace cbtalk {

// Storage types of the elements of a tensor; the arithmetic is in float32 for each.
enum class Storage { float32, float16, bfloat16 };

}  // namespace cbtalk
