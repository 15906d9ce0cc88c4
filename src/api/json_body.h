// Reads a request's JSON body, which may be hostile.
#pragma once

#include <string_view>

#include <nlohmann/json.hpp>

#include "base/result.h"

namespace fathom::api {

struct JsonLimits {
  int depth = 64;             // nested objects and lists
  size_t keys = 4096;         // of one object; its look-ups are linear
  size_t values = 4'000'000;  // of the whole body
};

// The object in `body`, keys in their order (templates see it). kInvalidArgument, with the place, when it is
// not one well-formed UTF-8 JSON object within the limits, when a key comes twice, a number overflows a
// double, or an escape is half a surrogate pair. Time and memory are linear in the body's size.
Result<nlohmann::ordered_json> parse_json_object(std::string_view body, const JsonLimits& limits = {});

}  // namespace fathom::api
