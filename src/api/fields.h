// Typed reading of a JSON object's fields. Every field read becomes a known one; `finish` refuses the rest,
// so that nothing a client asks for is silently ignored. A null is the same as an absent field.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

#include <nlohmann/json.hpp>

#include "api/errors.h"

namespace fathom::api {

// A short text for messages: what a value is, its beginning if it is long.
std::string describe(const nlohmann::ordered_json& value);

// The known name closest to `name` by edit distance, or empty when none is near.
std::string_view nearest_name(std::string_view name, const std::vector<std::string_view>& known);

struct Range {
  double min = 0;
  double max = 0;
  bool open_min = false;  // `min` itself is outside
};

// What a reader asked for under one name: how /openapi.json learns the fields.
struct FieldNote {
  enum class Kind {
    kBoolean,
    kInteger,
    kNumber,
    kString,
    kStrings,   // a string or a list of strings
    kIntegers,  // a list
    kList,
    kObject,
    kAny,
    kIgnored,  // accepted without effect
    kRefused,
  };
  std::string path = {};  // from the body, e.g. "stream_options.include_usage"
  Kind kind = Kind::kAny;
  Range range = {};           // of numbers, or of a list's integers
  size_t max_bytes = 0;       // of strings; 0: not bounded here
  size_t max_count = 0;       // of lists; 0: not bounded here
  std::string_view why = {};  // kRefused
};
using FieldLog = std::vector<FieldNote>;

// Keeps the first error and goes on, so that readers need no branch after each field. Not thread safe.
class Fields {
 public:
  // `object` must be a JSON object and must outlive this. `path` comes before field names in messages, e.g.
  // "messages[3]."; `what` names the object for unknown fields, e.g. "request".
  // `log`, where there is one, gets a note for each field read, and must outlive this.
  Fields(const nlohmann::ordered_json& object, std::string path, std::string_view what,
         FieldLog* log = nullptr);
  // The object in the field `name` of `outer`.
  Fields(const Fields& outer, const nlohmann::ordered_json& object, std::string_view name);

  // Each returns true when the field is there and good; otherwise *out keeps its value.
  bool boolean(std::string_view name, bool* out);
  bool integer(std::string_view name, int64_t min, int64_t max, int64_t* out);
  bool int32(std::string_view name, int32_t min, int32_t max, int32_t* out);
  bool number(std::string_view name, Range range, float* out);
  bool string(std::string_view name, size_t max_bytes, std::string* out);
  // A string or a list of strings, none empty.
  bool strings(std::string_view name, size_t max_count, size_t max_bytes, std::vector<std::string>* out);
  bool integers(std::string_view name, size_t max_count, int64_t min, int64_t max, std::vector<int32_t>* out);
  // Null when absent or of another kind (which is an error).
  const nlohmann::ordered_json* list(std::string_view name);
  const nlohmann::ordered_json* object(std::string_view name);
  // Whatever is there, or null.
  const nlohmann::ordered_json* any(std::string_view name);

  // Known fields that change nothing here: accepted, whatever they hold.
  void accept(std::initializer_list<std::string_view> names);
  // Fields that Fathom does not serve: refused, with the reason, unless they ask for nothing (null, false,
  // "", [] or {}).
  void refuse(std::initializer_list<std::string_view> names, std::string_view reason);

  // Sets the error if there is none yet. `name` may go deeper: "stop[2]".
  void fail(std::string_view name, std::string_view message);
  void fail_type(std::string_view name, std::string_view expected, const nlohmann::ordered_json& got);
  void fail(ApiError error);

  bool failed() const { return error_.has_value(); }
  // The first error, the unknown fields counted last.
  Refusal finish();

 private:
  const nlohmann::ordered_json* find(std::string_view name);
  // The same, noting what is expected.
  const nlohmann::ordered_json* find(std::string_view name, FieldNote note);
  const nlohmann::ordered_json* list(std::string_view name, FieldNote note);

  const nlohmann::ordered_json& object_;
  std::string path_;
  std::string what_;
  std::vector<std::string_view> known_;
  FieldLog* log_ = nullptr;
  Refusal error_;
};

}  // namespace fathom::api
