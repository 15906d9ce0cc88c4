// CHECK: an invariant of Fathom's own code. Failure prints the place, the condition and the values, then
// aborts. For anything that input from outside can cause, return a Result instead.
#pragma once

#include <fmt/format.h>

#include <string>

namespace fathom {

[[noreturn]] void check_failed(const char* file, int line, const char* condition, const std::string& message);

}  // namespace fathom

// FATHOM_CHECK(pages >= 0, "pages={} row={}", pages, row)
#define FATHOM_CHECK(condition, ...)                                                      \
  do {                                                                                    \
    if (!(condition)) [[unlikely]]                                                        \
      ::fathom::check_failed(__FILE__, __LINE__, #condition, ::fmt::format(__VA_ARGS__)); \
  } while (false)

#define FATHOM_CHECK_OP(a, op, b) FATHOM_CHECK((a)op(b), "{} vs {}", (a), (b))
#define FATHOM_CHECK_EQ(a, b) FATHOM_CHECK_OP(a, ==, b)
#define FATHOM_CHECK_NE(a, b) FATHOM_CHECK_OP(a, !=, b)
#define FATHOM_CHECK_LE(a, b) FATHOM_CHECK_OP(a, <=, b)
#define FATHOM_CHECK_LT(a, b) FATHOM_CHECK_OP(a, <, b)
#define FATHOM_CHECK_GE(a, b) FATHOM_CHECK_OP(a, >=, b)
#define FATHOM_CHECK_GT(a, b) FATHOM_CHECK_OP(a, >, b)
