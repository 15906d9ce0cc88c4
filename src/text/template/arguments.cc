#include "text/template/arguments.h"

#include <algorithm>

namespace fathom::text::jinja {

ValueList bind(const char* callee, const Arguments& arguments, std::initializer_list<const char*> parameters,
               size_t required) {
  ValueList bound(parameters.size());
  if (arguments.positional.size() > parameters.size()) {
    fail("{}() takes at most {} arguments ({} given)", callee, parameters.size(),
         arguments.positional.size());
  }
  std::copy(arguments.positional.begin(), arguments.positional.end(), bound.begin());
  for (const auto& [name, value] : arguments.named) {
    const auto* it = std::find(parameters.begin(), parameters.end(), std::string_view(name));
    if (it == parameters.end()) fail("{}() got an unexpected keyword argument '{}'", callee, name);
    Value& slot = bound[static_cast<size_t>(it - parameters.begin())];
    if (!slot.is_missing()) fail("{}() got multiple values for argument '{}'", callee, name);
    slot = value;
  }
  for (size_t i = 0; i < required; ++i) {
    if (bound[i].is_missing()) fail("{}() misses the argument '{}'", callee, *(parameters.begin() + i));
  }
  return bound;
}

int64_t want_int(const char* what, const Value& value) {
  if (value.is_undefined()) fail("{}", value.as<UndefinedObject>().message);
  if (!value.is_integral())
    fail("{}: '{}' object cannot be interpreted as an integer", what, type_name(value));
  return value.as_int();
}

bool flag(const Value& value) {
  return truthy(value);
}

}  // namespace fathom::text::jinja
