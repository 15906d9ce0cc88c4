// Template text to syntax tree.
#pragma once

#include <string_view>

#include "text/template/ast.h"

namespace fathom::text::jinja {

// Throws Failure with the line of the fault. Variables are not resolved yet.
Program parse_program(std::string_view source);

}  // namespace fathom::text::jinja
