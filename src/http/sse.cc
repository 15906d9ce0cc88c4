#include "http/sse.h"

#include <utility>

namespace fathom::http {
namespace {

void append_data(std::string_view data, std::string* out) {
  size_t begin = 0;
  while (true) {
    const size_t end = data.find_first_of("\r\n", begin);
    *out += "data: ";
    *out += data.substr(begin, end == std::string_view::npos ? end : end - begin);
    *out += '\n';
    if (end == std::string_view::npos) return;
    begin = end + (data.substr(end, 2) == "\r\n" ? 2 : 1);
  }
}

void append_one_line(std::string_view text, std::string* out) {
  for (const char c : text) *out += (c == '\r' || c == '\n') ? ' ' : c;
}

}  // namespace

std::string sse_event(std::string_view data) {
  std::string out;
  out.reserve(data.size() + 8);
  append_data(data, &out);
  out += '\n';
  return out;
}

std::string sse_event(std::string_view name, std::string_view data) {
  std::string out = "event: ";
  append_one_line(name, &out);
  out += '\n';
  append_data(data, &out);
  out += '\n';
  return out;
}

std::string sse_comment(std::string_view text) {
  std::string out = ": ";
  append_one_line(text, &out);
  out += "\n\n";
  return out;
}

bool SseParser::feed(std::string_view bytes, const std::function<void(SseEvent)>& on_event) {
  while (!failed_ && !bytes.empty()) {
    if (after_cr_) {
      after_cr_ = false;
      if (bytes.front() == '\n') {
        bytes.remove_prefix(1);
        continue;
      }
    }
    const size_t end = bytes.find_first_of("\r\n");
    const std::string_view piece = bytes.substr(0, end);
    if (line_.size() + data_.size() + piece.size() > max_event_bytes_) {
      failed_ = true;
      break;
    }
    line_ += piece;
    if (end == std::string_view::npos) break;
    after_cr_ = bytes[end] == '\r';
    bytes.remove_prefix(end + 1);
    take_line(on_event);
  }
  return !failed_;
}

void SseParser::take_line(const std::function<void(SseEvent)>& on_event) {
  std::string line = std::exchange(line_, {});
  if (std::exchange(first_line_, false) && line.starts_with("\xEF\xBB\xBF")) line.erase(0, 3);
  if (line.empty()) {
    if (has_data_) {
      data_.pop_back();  // the line feed after the last data line
      on_event({name_.empty() ? "message" : std::move(name_), std::move(data_), id_});
    }
    name_.clear();
    data_.clear();
    has_data_ = false;
    return;
  }
  const size_t colon = line.find(':');
  const std::string_view field = std::string_view(line).substr(0, colon);
  std::string_view value;
  if (colon != std::string::npos) {
    value = std::string_view(line).substr(colon + 1);
    if (value.starts_with(' ')) value.remove_prefix(1);
  }
  if (field == "data") {
    data_ += value;
    data_ += '\n';
    has_data_ = true;
  } else if (field == "event") {
    name_ = value;
  } else if (field == "id" && value.find('\0') == std::string_view::npos) {
    id_ = value;
  }
}

}  // namespace fathom::http
