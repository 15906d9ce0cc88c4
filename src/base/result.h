// Result<T>: the answer of anything that wrong input can make fail. A bug is not an Error: it is a CHECK.
//
// An Error says what was got, what was expected and what to do. It travels up unchanged, or with
// `with_context`, and becomes an HTTP status or an exit code at the edge.
#pragma once

#include <string>
#include <utility>
#include <variant>

#include "base/check.h"

namespace fathom {

enum class ErrorCode {
  kInvalidArgument,   // the caller's input is wrong: 400
  kUnauthorized,      // 401
  kNotFound,          // 404
  kTooLarge,          // a body or a header over its limit: 413
  kCancelled,         // the caller went away or asked for it: 499
  kUnavailable,       // full, starting or draining; the same call may work later: 503
  kDeadlineExceeded,  // 504
  kDataLoss,          // a file is truncated or corrupt
  kUnsupported,       // well formed, but something Fathom does not do: 400 / 501
  kInternal,          // a fault of the device or of Fathom: 500
};

const char* to_string(ErrorCode code);

struct Error {
  ErrorCode code = ErrorCode::kInternal;
  std::string message;

  // The same error with "context: " before its message.
  Error with_context(const std::string& context) const { return {code, context + ": " + message}; }
};

template <class T>
class [[nodiscard]] Result {
 public:
  Result(T value) : state_(std::in_place_index<0>, std::move(value)) {}      // NOLINT: implicit on purpose
  Result(Error error) : state_(std::in_place_index<1>, std::move(error)) {}  // NOLINT

  bool ok() const { return state_.index() == 0; }
  explicit operator bool() const { return ok(); }

  // The value; a CHECK failure that prints the error when there is none.
  T& value() & {
    FATHOM_CHECK(ok(), "{}", std::get<1>(state_).message);
    return std::get<0>(state_);
  }
  const T& value() const& {
    FATHOM_CHECK(ok(), "{}", std::get<1>(state_).message);
    return std::get<0>(state_);
  }
  T&& value() && {
    FATHOM_CHECK(ok(), "{}", std::get<1>(state_).message);
    return std::get<0>(std::move(state_));
  }
  T& operator*() & { return value(); }
  const T& operator*() const& { return value(); }
  T&& operator*() && { return std::move(*this).value(); }
  T* operator->() { return &value(); }
  const T* operator->() const { return &value(); }

  const Error& error() const {
    FATHOM_CHECK(!ok(), "error() of a Result that holds a value");
    return std::get<1>(state_);
  }

 private:
  std::variant<T, Error> state_;
};

template <>
class [[nodiscard]] Result<void> {
 public:
  Result() = default;
  Result(Error error) : error_(std::move(error)), ok_(false) {}  // NOLINT: implicit on purpose

  bool ok() const { return ok_; }
  explicit operator bool() const { return ok_; }
  void value() const { FATHOM_CHECK(ok_, "{}", error_.message); }
  const Error& error() const {
    FATHOM_CHECK(!ok_, "error() of a Result that holds a value");
    return error_;
  }

 private:
  Error error_;
  bool ok_ = true;
};

// fathom::error(ErrorCode::kInvalidArgument, "got {} heads, expected {}", a, b)
template <class... Args>
Error error(ErrorCode code, fmt::format_string<Args...> format, Args&&... args) {
  return Error{code, fmt::format(format, std::forward<Args>(args)...)};
}

}  // namespace fathom

#define FATHOM_CONCAT_INNER(a, b) a##b
#define FATHOM_CONCAT(a, b) FATHOM_CONCAT_INNER(a, b)

// Returns the error of `expr` (a Result<void> or Result<T>) from the enclosing function, if it has one.
#define FATHOM_TRY(expr)                                                                \
  do {                                                                                  \
    if (auto fathom_result = (expr); !fathom_result.ok()) return fathom_result.error(); \
  } while (false)

// FATHOM_ASSIGN(auto x, f()): x is the value of f(); on error, returns it.
#define FATHOM_ASSIGN(declaration, expr) \
  FATHOM_ASSIGN_INNER(declaration, expr, FATHOM_CONCAT(result_, __LINE__))
#define FATHOM_ASSIGN_INNER(declaration, expr, name) \
  auto name = (expr);                                \
  if (!name.ok()) return name.error();               \
  declaration = std::move(name).value()
