// Request bytes -> Request, piece by piece, with limits. Boost.Beast reads the grammar; what it leaves open
// and what has been used to smuggle requests past proxies is refused here.
#pragma once

#include <boost/beast/http/parser.hpp>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "http/growing_body.h"
#include "http/message.h"

namespace fathom::http {

struct ParseLimits {
  size_t max_header_bytes = size_t{64} << 10;
  size_t max_body_bytes = size_t{64} << 20;
};

struct ParseError {
  int status = 400;
  std::string code;
  std::string message;
};

// One parser a connection; take() makes it ready for the next request. Not thread safe.
class RequestParser {
 public:
  enum class Status { kNeedMore, kHead, kComplete, kError };

  explicit RequestParser(ParseLimits limits);

  // Reads from `bytes`, which continue after what was consumed before; *consumed says how many it took. The
  // rest must be given again, with more. kHead is returned once a request, when its head is complete; then
  // feed again.
  Status feed(std::string_view bytes, size_t* consumed);

  const ParseError& error() const { return error_; }
  // Some of a request has been read.
  bool begun() const { return parser_->got_some(); }
  size_t body_bytes() const { return parser_->get().body().size(); }

  // Valid from kHead on.
  bool http_1_0() const { return http_1_0_; }
  bool keep_alive() const { return keep_alive_; }
  bool expects_continue() const { return expects_continue_; }
  // The request without its body.
  const Request& head() const { return request_; }
  bool complete() const { return parser_->is_done(); }

  // The request as far as it has been read (without `remote`).
  Request take();

 private:
  using Parser = boost::beast::http::request_parser<GrowingBody>;
  void reset();
  bool accept_head();
  Status refuse(int status, std::string code, std::string message);

  ParseLimits limits_;
  std::optional<Parser> parser_;
  Request request_;
  ParseError error_;
  size_t head_bytes_ = 0;
  bool head_done_ = false;
  bool http_1_0_ = false;
  bool keep_alive_ = false;
  bool expects_continue_ = false;
};

}  // namespace fathom::http
