// Jinja's tests: what may stand after `is`.
#pragma once

#include <string_view>

#include "text/template/ast.h"

namespace fathom::text::jinja {

// Null when there is no test of that name.
TestFunction find_test(std::string_view name);

}  // namespace fathom::text::jinja
