// Server-sent events (text/event-stream, HTML Living Standard section 9.2): writing and reading.
#pragma once

#include <cstddef>
#include <functional>
#include <string>
#include <string_view>

namespace fathom::http {

// "data: <data>\n\n"; data of several lines becomes one data field a line, so a reader gets it back unchanged
// (CR and CRLF come back as LF).
std::string sse_event(std::string_view data);
// The same with an "event: <name>" field before the data.
std::string sse_event(std::string_view name, std::string_view data);
// ": <text>\n\n": ignored by readers; keeps proxies from closing a quiet stream. Line breaks become spaces.
std::string sse_comment(std::string_view text);

struct SseEvent {
  std::string name;  // "message" when the stream names none
  std::string data;
  std::string id;  // the last id seen
};

// Splits a byte stream, in pieces of any size, into events. Not thread safe.
class SseParser {
 public:
  explicit SseParser(size_t max_event_bytes = size_t{16} << 20) : max_event_bytes_(max_event_bytes) {}

  // Calls `on_event` for every event completed by `bytes`. False, now and for ever, once one event or line
  // exceeds max_event_bytes.
  bool feed(std::string_view bytes, const std::function<void(SseEvent)>& on_event);

 private:
  void take_line(const std::function<void(SseEvent)>& on_event);

  size_t max_event_bytes_;
  std::string line_;
  std::string name_, data_, id_;
  bool has_data_ = false;
  bool after_cr_ = false;
  bool first_line_ = true;
  bool failed_ = false;
};

}  // namespace fathom::http
