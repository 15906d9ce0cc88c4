#include "api/errors.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

int status_of(ErrorCode code) {
  switch (code) {
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kUnsupported:
      return 400;
    case ErrorCode::kUnauthorized:
      return 401;
    case ErrorCode::kNotFound:
      return 404;
    case ErrorCode::kTooLarge:
      return 413;
    case ErrorCode::kCancelled:
      return 499;
    case ErrorCode::kUnavailable:
      return 503;
    case ErrorCode::kDeadlineExceeded:
      return 504;
    case ErrorCode::kDataLoss:
    case ErrorCode::kInternal:
      return 500;
  }
  return 500;
}

const char* type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 429:
      return "rate_limit_error";
    case 503:
      return "service_unavailable_error";
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "server_error";
  }
}

}  // namespace

ApiError to_api_error(const Error& error, std::string param) {
  return {status_of(error.code), error.message, std::move(param), {}};
}

ApiError unsupported(std::string param, std::string_view reason) {
  std::string message = fmt::format("{}: {}", param, reason);
  return {400, std::move(message), std::move(param), "unsupported_field"};
}

ordered_json error_json(const ApiError& error) {
  const auto text_or_null = [](const std::string& text) {
    return text.empty() ? ordered_json() : ordered_json(text);
  };
  return {{"error",
           {{"message", error.message},
            {"type", type_of(error.status)},
            {"param", text_or_null(error.param)},
            {"code", text_or_null(error.code)}}}};
}

namespace {

const char* anthropic_type_of(int status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    case 504:
      return "timeout_error";
    default:
      return status < 500 ? "invalid_request_error" : "api_error";
  }
}

http::Response with_hints(http::Response response, int retry_after) {
  if (response.status == 401) response.headers.emplace_back("WWW-Authenticate", "Bearer");
  if (response.status == 429 || response.status == 503) {
    response.headers.emplace_back("Retry-After", std::to_string(retry_after));
  }
  return response;
}

}  // namespace

http::Response error_response(const ApiError& error) {
  return with_hints(json_response(error_json(error), error.status), error.retry_after);
}

ordered_json anthropic_error_json(const ApiError& error) {
  return {{"type", "error"},
          {"error", {{"type", anthropic_type_of(error.status)}, {"message", error.message}}}};
}

http::Response error_response(const ApiError& error, std::string_view path) {
  const bool anthropic = path.starts_with("/v1/messages") || path.starts_with("/anthropic/");
  return with_hints(json_response(anthropic ? anthropic_error_json(error) : error_json(error), error.status),
                    error.retry_after);
}

std::string dump(const ordered_json& value) {
  return value.dump(-1, ' ', false, ordered_json::error_handler_t::replace);
}

http::Response json_response(const ordered_json& value, int status) {
  http::Response response;
  response.status = status;
  response.body = dump(value);
  return response;
}

http::Response text_response(std::string text, int status) {
  http::Response response;
  response.status = status;
  response.content_type = "text/plain; charset=utf-8";
  response.body = std::move(text);
  return response;
}

}  // namespace fathom::api
