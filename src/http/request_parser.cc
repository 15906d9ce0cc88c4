#include "http/request_parser.h"

#include <utility>

#include "http/url.h"

namespace fathom::http {
namespace {

namespace beast = boost::beast;

// Boost's string_view changed its type between releases.
template <class View>
std::string_view to_std(const View& view) {
  return {view.data(), view.size()};
}

bool equals_ignoring_case(std::string_view a, std::string_view b) {
  return beast::iequals(beast::string_view(a.data(), a.size()), beast::string_view(b.data(), b.size()));
}

// Beast calls everything that is wrong at the end of a request line a bad version.
bool names_version_1(std::string_view request) {
  const std::string_view line = request.substr(0, request.find('\n'));
  return line.find(" HTTP/1.") != std::string_view::npos || line.find(" HTTP/") == std::string_view::npos;
}

}  // namespace

RequestParser::RequestParser(ParseLimits limits) : limits_(limits) {
  reset();
}

void RequestParser::reset() {
  parser_.emplace();
  // Beast leaves the request line out of its count; feed() counts exactly.
  parser_->header_limit(static_cast<uint32_t>(limits_.max_header_bytes + 4096));
  parser_->body_limit(limits_.max_body_bytes);
  request_ = {};
  head_bytes_ = 0;
  head_done_ = false;
  http_1_0_ = keep_alive_ = expects_continue_ = false;
}

RequestParser::Status RequestParser::refuse(int status, std::string code, std::string message) {
  error_ = {status, std::move(code), std::move(message)};
  return Status::kError;
}

RequestParser::Status RequestParser::feed(std::string_view bytes, size_t* consumed) {
  *consumed = 0;
  if (!parser_->got_some()) {
    // Empty lines before a request are ignored (RFC 9112, 2.2).
    while (bytes.starts_with("\r\n")) {
      bytes.remove_prefix(2);
      *consumed += 2;
    }
    if (bytes.empty() || bytes == "\r") return Status::kNeedMore;
  }
  while (true) {
    const bool chunks = head_done_ && parser_->chunked() && !parser_->is_done();
    if (chunks && bytes.size() < kMinChunkedBytes) return Status::kNeedMore;
    beast::error_code ec;
    const size_t used =
        parser_->is_done() ? 0 : parser_->put(boost::asio::const_buffer(bytes.data(), bytes.size()), ec);
    *consumed += used;
    bytes.remove_prefix(used);
    if (!head_done_) head_bytes_ += used;
    const bool unfinished = ec == beast::http::error::need_more;
    const size_t head_so_far = head_bytes_ + (unfinished ? bytes.size() + 1 : 0);
    if (!head_done_ && (head_so_far > limits_.max_header_bytes || ec == beast::http::error::header_limit)) {
      return refuse(431, "headers_too_large",
                    "The request's head exceeds " + std::to_string(limits_.max_header_bytes) + " bytes.");
    }
    if (unfinished) {
      if (!head_done_ || bytes.size() < limits_.max_header_bytes + 1024) return Status::kNeedMore;
      return refuse(400, "bad_request", "The chunked body has an endless line.");
    }
    if (ec == beast::http::error::body_limit) {
      return refuse(
          413, "body_too_large",
          "The request's body exceeds the limit of " + std::to_string(limits_.max_body_bytes) + " bytes.");
    }
    if (ec == beast::http::error::bad_version && !names_version_1(bytes)) {
      return refuse(505, "http_version_not_supported", "This server speaks HTTP/1.1 and HTTP/1.0.");
    }
    if (ec) return refuse(400, "bad_request", "The request is not valid HTTP: " + ec.message() + ".");
    if (parser_->is_header_done() && !head_done_) {
      if (!accept_head()) return Status::kError;
      head_done_ = true;
      return Status::kHead;
    }
    if (parser_->is_done()) return Status::kComplete;
    if (used == 0 || bytes.empty()) return Status::kNeedMore;
  }
}

bool RequestParser::accept_head() {
  const auto& head = parser_->get();
  const auto fail = [this](int status, const char* code, const char* message) {
    refuse(status, code, message);
    return false;
  };
  http_1_0_ = head.version() == 10;
  keep_alive_ = head.keep_alive();
  int hosts = 0;
  int transfer_encodings = 0;
  bool has_length = false;
  for (const auto& field : head) {
    const std::string_view value = to_std(field.value());
    switch (field.name()) {
      case beast::http::field::host:
        ++hosts;
        break;
      case beast::http::field::content_length:
        has_length = true;
        break;
      case beast::http::field::transfer_encoding:
        ++transfer_encodings;
        if (!equals_ignoring_case(value, "chunked")) {
          return fail(501, "transfer_encoding", "The only transfer encoding understood is \"chunked\".");
        }
        break;
      case beast::http::field::expect:
        if (!equals_ignoring_case(value, "100-continue")) {
          return fail(417, "expectation_failed", "The only expectation understood is \"100-continue\".");
        }
        expects_continue_ = !http_1_0_;
        break;
      default:
        break;
    }
    request_.headers.emplace_back(to_std(field.name_string()), value);
  }
  if (transfer_encodings > 1 || (transfer_encodings > 0 && (has_length || http_1_0_))) {
    return fail(400, "bad_request", "The length of the request's body is ambiguous.");
  }
  if (hosts > 1 || (hosts == 0 && !http_1_0_)) {
    return fail(400, "bad_request", "A request of HTTP/1.1 has exactly one Host header.");
  }
  request_.method = to_std(head.method_string());
  if (head.method() == beast::http::verb::connect) {
    return fail(501, "not_a_proxy", "CONNECT: this server is not a proxy.");
  }
  std::optional<Target> target = parse_target(to_std(head.target()));
  if (!target) return fail(400, "bad_target", "The request's target is not a valid path.");
  request_.path = std::move(target->path);
  request_.query = std::move(target->query);
  return true;
}

Request RequestParser::take() {
  Request request = std::move(request_);
  request.body = std::move(parser_->get().body());
  reset();
  return request;
}

}  // namespace fathom::http
