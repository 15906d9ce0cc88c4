// The arguments of a call, filter or test, and how a callee takes them apart.
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "text/template/value.h"

namespace fathom::text::jinja {

struct Arguments {
  ValueList positional;
  std::vector<std::pair<std::string, Value>> named;

  bool empty() const { return positional.empty() && named.empty(); }
  const Value* find(std::string_view name) const {
    for (const auto& [key, value] : named) {
      if (key == name) return &value;
    }
    return nullptr;
  }
};

// The values of a callee's parameters in their order, Kind::kMissing where not given; the first `required`
// must be. Fails for arguments the callee does not have.
ValueList bind(const char* callee, const Arguments& arguments, std::initializer_list<const char*> parameters,
               size_t required = 0);

// Conversions of bound values that fail with a clear message.
int64_t want_int(const char* what, const Value& value);
bool flag(const Value& value);  // false when missing

}  // namespace fathom::text::jinja
