#include "cbtalk/ordering.h"

#include <cmath>
#include <limits>

#include "check.h"

using cbtalk::is_nearer;

int main() {
  const float infinity = std::numeric_limits<float>::infinity();
  const float nan = std::nanf("");

  CHECK(is_nearer(1.0f, 7, 2.0f, 3));
  CHECK(!is_nearer(2.0f, 3, 1.0f, 7));
  CHECK(is_nearer(-infinity, 7, -1.0f, 3));

  // Of equals the smaller index, in either order of comparison; nothing is nearer than itself.
  CHECK(is_nearer(1.0f, 3, 1.0f, 7));
  CHECK(!is_nearer(1.0f, 7, 1.0f, 3));
  CHECK(!is_nearer(1.0f, 3, 1.0f, 3));
  CHECK(is_nearer(-0.0f, 3, 0.0f, 7) && !is_nearer(-0.0f, 7, 0.0f, 3));

  // From (infinity, 0), neither a NaN nor another infinity moves the search.
  CHECK(!is_nearer(nan, 1, infinity, 0));
  CHECK(!is_nearer(nan, 0, nan, 1));
  CHECK(!is_nearer(infinity, 1, infinity, 0));
  return 0;
}
