#pragma once

// CHECK for the C++ tests: a failed check prints its expression and values, and the program ends with 1.

#include <cstdio>
#include <cstdlib>

#define CHECK(condition)                                                             \
  do {                                                                               \
    if (!(condition)) {                                                              \
      std::fprintf(stderr, "%s:%d: failed: %s\n", __FILE__, __LINE__, #condition);   \
      std::exit(1);                                                                  \
    }                                                                                \
  } while (false)

#define CHECK_NEAR(actual, expected, tolerance)                                                                    \
  do {                                                                                                             \
    const double check_actual = (actual), check_expected = (expected);                                             \
    const double check_difference = check_actual - check_expected;                                                 \
    /* Written so that a NaN fails. */                                                                             \
    if (!(check_difference <= (tolerance) && -check_difference <= (tolerance))) {                                  \
      std::fprintf(stderr, "%s:%d: failed: %s = %.9g, expected %.9g\n", __FILE__, __LINE__, #actual, check_actual, \
                   check_expected);                                                                                \
      std::exit(1);                                                                                                \
    }                                                                                                              \
  } while (false)
