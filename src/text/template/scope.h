// Works out where every variable of a template lives. Jinja's scopes are lexical and decided before a render:
// a loop, a macro, a `with` or a captured block opens one, an `if` does not; an assignment inside stays
// inside; and each scope, when entered, copies, looks up or clears the variables that it touches. A variable
// becomes a slot of a frame, one frame for each running macro, call block, recursive loop or loop filter.
#pragma once

#include "text/template/ast.h"

namespace fathom::text::jinja {

// Fills in the scopes, slots and functions of a parsed program, and checks the names of filters and tests.
// Throws Failure for what Jinja refuses to compile.
void resolve_scopes(Program& program);

}  // namespace fathom::text::jinja
