// How much the tests of the ops compute. Included by tests only.
#pragma once

#include <cstdlib>

namespace fathom::ops {

// Under sanitizers a kernel takes some twenty times as long: FATHOM_TEST_SMALL asks for fewer and shorter
// rows, of shapes that still end inside tiles, pages, splits and blocks of scales.
inline bool small_tests() {
  return std::getenv("FATHOM_TEST_SMALL") != nullptr;
}

}  // namespace fathom::ops
