// Response heads and chunk framing as bytes.
#pragma once

#include <chrono>
#include <cstddef>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "http/message.h"

namespace fathom::http {

std::string_view reason_phrase(int status);
// 1xx, 204 and 304 have no body and no length.
bool status_has_body(int status);

// How the connection wants this response framed.
struct Framing {
  bool http_1_0 = false;
  bool head_only = false;  // HEAD
  bool keep_alive = true;  // what the request allows
  Headers extra_headers;   // CORS
};

// "HTTP/1.1 200 OK\r\n...\r\n\r\n". `content_length`: nothing for a stream, which is then chunked (HTTP/1.1)
// or ends with the connection (HTTP/1.0).
std::string format_head(int status, std::string_view content_type, const Headers& headers,
                        std::optional<size_t> content_length, const Framing& framing, bool keep_alive);

// "1a2b\r\n"
std::string chunk_size_line(size_t size);

// The CORS headers for a request from `origin` (null: not from a browser page), empty when it is not allowed.
Headers cors_headers(const std::vector<std::string>& allowed, const std::string* origin);
// A browser's question before a cross-origin request.
bool is_cors_preflight(const Request& request);
Response cors_preflight_answer(const Request& request);

}  // namespace fathom::http
