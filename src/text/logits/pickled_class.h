// Reads the one thing that a pickle of an importable Python class says: its module and its name. Nothing is
// unpickled and nothing of it is run: a handful of opcodes is stepped through, and every other one, which
// might build an object or call something, is an error.
#pragma once

#include <string>
#include <string_view>

#include "base/result.h"

namespace fathom::text {

struct PickledClass {
  std::string module;
  std::string name;
};

// `pickle`: bytes of protocol 0 to 5. kInvalidArgument: cut off, or not a pickle; kUnsupported: more than the
// name of a class.
Result<PickledClass> read_pickled_class(std::string_view pickle);

}  // namespace fathom::text
