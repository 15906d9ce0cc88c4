#include "http/response_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <ctime>

#include "http/server.h"

namespace fathom::http {
namespace {

// "Thu, 26 Nov 2026 12:00:00 GMT", made once a second a thread.
const std::string& http_date() {
  thread_local std::time_t made_at = -1;
  thread_local std::string text;
  const std::time_t now = std::time(nullptr);
  if (now != made_at) {
    static constexpr const char* kDays[] = {"Sun", "Mon", "Tue", "Wed", "Thu", "Fri", "Sat"};
    static constexpr const char* kMonths[] = {"Jan", "Feb", "Mar", "Apr", "May", "Jun",
                                              "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"};
    std::tm utc{};
    gmtime_r(&now, &utc);
    text = fmt::format("{}, {:02} {} {} {:02}:{:02}:{:02} GMT", kDays[utc.tm_wday], utc.tm_mday,
                       kMonths[utc.tm_mon], utc.tm_year + 1900, utc.tm_hour, utc.tm_min, utc.tm_sec);
    made_at = now;
  }
  return text;
}

// A value can never begin a header, or a response, of its own.
void append_field(std::string_view name, std::string_view value, std::string* out) {
  const auto append = [out](std::string_view text) {
    for (const char c : text) *out += (c == '\r' || c == '\n' || c == '\0') ? ' ' : c;
  };
  append(name);
  *out += ": ";
  append(value);
  *out += "\r\n";
}

std::string json_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    if (c == '"' || c == '\\') {
      out += '\\';
      out += c;
    } else if (byte < 0x20 || byte >= 0x7f) {
      out += fmt::format("\\u{:04x}", byte);
    } else {
      out += c;
    }
  }
  return out;
}

}  // namespace

Response json_error(int status, std::string_view code, std::string_view message) {
  const std::string_view type = status == 503   ? "service_unavailable_error"
                                : status >= 500 ? "server_error"
                                                : "invalid_request_error";
  Response response;
  response.status = status;
  response.body = fmt::format(R"({{"error":{{"message":"{}","type":"{}","code":"{}"}}}})",
                              json_escape(message), type, json_escape(code));
  return response;
}

std::string_view reason_phrase(int status) {
  switch (status) {
    case 100:
      return "Continue";
    case 200:
      return "OK";
    case 201:
      return "Created";
    case 202:
      return "Accepted";
    case 204:
      return "No Content";
    case 301:
      return "Moved Permanently";
    case 302:
      return "Found";
    case 304:
      return "Not Modified";
    case 307:
      return "Temporary Redirect";
    case 308:
      return "Permanent Redirect";
    case 400:
      return "Bad Request";
    case 401:
      return "Unauthorized";
    case 403:
      return "Forbidden";
    case 404:
      return "Not Found";
    case 405:
      return "Method Not Allowed";
    case 408:
      return "Request Timeout";
    case 409:
      return "Conflict";
    case 411:
      return "Length Required";
    case 413:
      return "Content Too Large";
    case 415:
      return "Unsupported Media Type";
    case 417:
      return "Expectation Failed";
    case 422:
      return "Unprocessable Content";
    case 429:
      return "Too Many Requests";
    case 431:
      return "Request Header Fields Too Large";
    case 499:
      return "Client Closed Request";
    case 500:
      return "Internal Server Error";
    case 501:
      return "Not Implemented";
    case 502:
      return "Bad Gateway";
    case 503:
      return "Service Unavailable";
    case 504:
      return "Gateway Timeout";
    case 505:
      return "HTTP Version Not Supported";
    default:
      return "Other";
  }
}

bool status_has_body(int status) {
  return status >= 200 && status != 204 && status != 304;
}

std::string format_head(int status, std::string_view content_type, const Headers& headers,
                        std::optional<size_t> content_length, const Framing& framing, bool keep_alive) {
  std::string out;
  out.reserve(256);
  fmt::format_to(std::back_inserter(out), "HTTP/1.1 {} {}\r\nDate: {}\r\n", status, reason_phrase(status),
                 http_date());
  if (!content_type.empty()) append_field("Content-Type", content_type, &out);
  for (const auto& [name, value] : headers) append_field(name, value, &out);
  for (const auto& [name, value] : framing.extra_headers) append_field(name, value, &out);
  if (status_has_body(status)) {
    if (content_length) {
      fmt::format_to(std::back_inserter(out), "Content-Length: {}\r\n", *content_length);
    } else if (!framing.http_1_0) {
      out += "Transfer-Encoding: chunked\r\n";
    }
  }
  if (!keep_alive) {
    out += "Connection: close\r\n";
  } else if (framing.http_1_0) {
    out += "Connection: keep-alive\r\n";
  }
  out += "\r\n";
  return out;
}

std::string chunk_size_line(size_t size) {
  return fmt::format("{:x}\r\n", size);
}

Headers cors_headers(const std::vector<std::string>& allowed, const std::string* origin) {
  if (allowed.empty()) return {};
  if (std::find(allowed.begin(), allowed.end(), "*") != allowed.end())
    return {{"Access-Control-Allow-Origin", "*"}};
  if (origin != nullptr && std::find(allowed.begin(), allowed.end(), *origin) != allowed.end()) {
    return {{"Access-Control-Allow-Origin", *origin}, {"Vary", "Origin"}};
  }
  return {{"Vary", "Origin"}};
}

bool is_cors_preflight(const Request& request) {
  return request.method == "OPTIONS" && request.header("Origin") != nullptr &&
         request.header("Access-Control-Request-Method") != nullptr;
}

Response cors_preflight_answer(const Request& request) {
  Response response;
  response.status = 204;
  response.content_type.clear();
  response.headers = {{"Access-Control-Allow-Methods", "GET, POST, PUT, DELETE, OPTIONS"},
                      {"Access-Control-Max-Age", "3600"}};
  if (const std::string* wanted = request.header("Access-Control-Request-Headers")) {
    response.headers.emplace_back("Access-Control-Allow-Headers", *wanted);
  }
  return response;
}

}  // namespace fathom::http
