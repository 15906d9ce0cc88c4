// What a client is told when its request cannot be served, in OpenAI's form:
//   {"error": {"message": ..., "type": ..., "param": field or null, "code": word or null}}
#pragma once

#include <optional>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "base/result.h"
#include "http/message.h"

namespace fathom::api {

struct ApiError {
  int status = 400;
  std::string message;
  std::string param;    // path of the field at fault, e.g. "messages[2].role"; empty when there is none
  std::string code;     // a word for programs, e.g. "model_not_found"; empty when there is none
  int retry_after = 1;  // seconds, where the status (429, 503) says to come again
};

// The answer of a step that may refuse the request: nothing when all is well.
using Refusal = std::optional<ApiError>;

ApiError to_api_error(const Error& error, std::string param = {});
ApiError unsupported(std::string param, std::string_view reason);

nlohmann::ordered_json error_json(const ApiError& error);
http::Response error_response(const ApiError& error);

// In the form of Anthropic's API: {"type": "error", "error": {"type", "message"}}.
nlohmann::ordered_json anthropic_error_json(const ApiError& error);
// In the form of the API that `path` belongs to.
http::Response error_response(const ApiError& error, std::string_view path);

// `value` as text. Bytes that are no UTF-8 become U+FFFD, so that this never fails.
std::string dump(const nlohmann::ordered_json& value);
http::Response json_response(const nlohmann::ordered_json& value, int status = 200);
http::Response text_response(std::string text, int status = 200);

}  // namespace fathom::api
