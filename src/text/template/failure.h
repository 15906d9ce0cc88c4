// How the template engine reports a fault of a template or its data: an exception that never leaves
// chat_template.cc, where it becomes a Result.
#pragma once

#include <fmt/format.h>

#include <string>
#include <utility>

namespace fathom::text::jinja {

struct Failure {
  std::string message;
  int line = 0;             // 0: not known yet; the interpreter fills in the line it is at
  bool by_request = false;  // raise_exception: the message is for the caller as it stands
};

template <class... Args>
[[noreturn]] void fail(fmt::format_string<Args...> format, Args&&... args) {
  throw Failure{fmt::format(format, std::forward<Args>(args)...)};
}

template <class... Args>
[[noreturn]] void fail_at(int line, fmt::format_string<Args...> format, Args&&... args) {
  throw Failure{fmt::format(format, std::forward<Args>(args)...), line};
}

}  // namespace fathom::text::jinja
