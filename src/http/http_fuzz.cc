// Request bytes through the parser of the server, cut into pieces as the first bytes say; event streams;
// targets and query strings. Besides not crashing: cuts change nothing, what is encoded decodes to itself.
#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/check.h"
#include "http/request_parser.h"
#include "http/sse.h"
#include "http/url.h"

namespace fathom::http {
namespace {

// All requests of a stream of bytes up to the first error. (An error may be noticed at once or only when the
// head is complete, so whether there was one is not part of the answer.)
std::string read_requests(std::string_view bytes, size_t piece) {
  RequestParser parser({512, 2048});
  std::string buffer;
  std::string seen;
  while (!bytes.empty()) {
    buffer += bytes.substr(0, piece);
    bytes.remove_prefix(std::min(piece, bytes.size()));
    while (true) {
      size_t used = 0;
      const auto status = parser.feed(buffer, &used);
      FATHOM_CHECK_LE(used, buffer.size());
      buffer.erase(0, used);
      if (status == RequestParser::Status::kError) {
        FATHOM_CHECK(parser.error().status >= 400 && parser.error().status < 600, "{}",
                     parser.error().status);
        return seen;
      }
      if (status == RequestParser::Status::kNeedMore) break;
      if (status == RequestParser::Status::kHead) continue;
      seen += parser.keep_alive() ? "keep " : "close ";
      const Request request = parser.take();
      FATHOM_CHECK_LE(request.body.size(), 2048u);
      seen += request.method + " " + request.path + "?" + request.query + "\n";
      for (const auto& [name, value] : request.headers) seen += name + ": " + value + "\n";
      seen += request.body + "\n";
    }
    FATHOM_CHECK_LE(buffer.size(), 512u + 1024u + piece);
  }
  return seen;
}

std::string read_events(std::string_view bytes, size_t piece) {
  SseParser parser(1024);
  std::string seen;
  while (!bytes.empty()) {
    const bool ok = parser.feed(bytes.substr(0, piece), [&](const SseEvent& event) {
      FATHOM_CHECK_LE(event.data.size(), 2048u);
      seen += event.name + "|" + event.data + "|" + event.id + "\n";
    });
    if (!ok) return seen + "error";
    bytes.remove_prefix(std::min(piece, bytes.size()));
  }
  return seen;
}

void check_event_round_trip(std::string_view text) {
  std::string expected;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '\r') {
      expected += '\n';
      if (i + 1 < text.size() && text[i + 1] == '\n') ++i;
    } else {
      expected += text[i];
    }
  }
  std::vector<std::string> got;
  SseParser parser(text.size() * 2 + 64);
  FATHOM_CHECK(parser.feed(sse_event(text), [&](const SseEvent& event) { got.push_back(event.data); }),
               "limit");
  FATHOM_CHECK(got.size() == 1 && got[0] == expected, "{} events", got.size());
}

}  // namespace
}  // namespace fathom::http

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace fathom::http;
  if (size < 2 || size > 8192) return 0;
  const size_t piece = data[1] % 64 + 1;
  const std::string_view bytes(reinterpret_cast<const char*>(data) + 2, size - 2);
  switch (data[0] % 3) {
    case 0: {
      // An error may be noticed earlier or later; what was accepted before it must be the same.
      const std::string whole = read_requests(bytes, bytes.size());
      const std::string pieces = read_requests(bytes, piece);
      FATHOM_CHECK(whole == pieces, "whole:\n{}\npieces of {}:\n{}", whole, piece, pieces);
      break;
    }
    case 1:
      FATHOM_CHECK(read_events(bytes, bytes.size()) == read_events(bytes, piece), "pieces of {}", piece);
      check_event_round_trip(bytes);
      break;
    default: {
      FATHOM_CHECK(percent_decode(percent_encode(bytes)) == bytes, "encoding");
      const std::string name(bytes.substr(0, piece));
      const std::string query = "x&" + percent_encode(name) + "=" + percent_encode(bytes) + "&y=1";
      if (name != "x") FATHOM_CHECK(find_query_param(query, name) == bytes, "query {}", query);
      find_query_param(bytes, name);
      if (const auto target = parse_target(bytes)) {
        FATHOM_CHECK(target->path == "*" || target->path.starts_with('/'), "{}", target->path);
      }
    }
  }
  return 0;
}
