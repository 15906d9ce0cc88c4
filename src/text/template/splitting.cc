#include "text/template/splitting.h"

#include <algorithm>

#include "text/template/unicode.h"

namespace fathom::text::jinja {

std::string strip_text(std::string_view text, bool left, bool right) {
  if (left) text = strip_left(text);
  if (right) text = strip_right(text);
  return std::string(text);
}

std::string strip_characters(std::string_view text, std::string_view characters, bool left, bool right) {
  auto set = code_points(characters);
  std::sort(set.begin(), set.end());
  const auto in_set = [&](uint32_t code) { return std::binary_search(set.begin(), set.end(), code); };
  const auto codes = code_points(text);
  size_t begin = 0;
  size_t end = codes.size();
  while (left && begin < end && in_set(codes[begin])) ++begin;
  while (right && end > begin && in_set(codes[end - 1])) --end;
  return from_code_points(
      {codes.begin() + static_cast<std::ptrdiff_t>(begin), codes.begin() + static_cast<std::ptrdiff_t>(end)});
}

std::vector<std::string_view> split_spaces(std::string_view text, int64_t most, bool from_right) {
  std::vector<std::string_view> parts;
  if (from_right) {
    text = strip_right(text);
    while (!text.empty() && (most < 0 || static_cast<int64_t>(parts.size()) < most)) {
      size_t start = text.size();
      while (start > 0) {
        size_t before = start - 1;
        while (before > 0 && (static_cast<unsigned char>(text[before]) & 0xC0) == 0x80) --before;
        size_t at = before;
        if (is_space(next_code_point(text, at))) break;
        start = before;
      }
      parts.push_back(text.substr(start));
      text = strip_right(text.substr(0, start));
    }
    if (!text.empty()) parts.push_back(text);
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  text = strip_left(text);
  while (!text.empty()) {
    if (most >= 0 && static_cast<int64_t>(parts.size()) >= most) {
      parts.push_back(text);
      break;
    }
    size_t end = 0;
    while (end < text.size()) {
      size_t next = end;
      if (is_space(next_code_point(text, next))) break;
      end = next;
    }
    parts.push_back(text.substr(0, end));
    text = strip_left(text.substr(end));
  }
  return parts;
}

std::vector<std::string_view> split_text(std::string_view text, std::string_view separator, int64_t most,
                                         bool from_right) {
  if (separator.empty()) fail("empty separator");
  if (from_right && most >= 0) {
    // From the right only the last splits count; overlapping matches are resolved from that side too.
    const std::string backward(text.rbegin(), text.rend());
    const std::string separator_backward(separator.rbegin(), separator.rend());
    std::vector<std::string_view> parts;
    size_t end = text.size();
    for (const auto& part : split_text(backward, separator_backward, most, false)) {
      parts.push_back(text.substr(end - part.size(), part.size()));
      end -= std::min(end, part.size() + separator.size());
    }
    std::reverse(parts.begin(), parts.end());
    return parts;
  }
  if (from_right) return split_text(text, separator, static_cast<int64_t>(text.size()) + 1, true);
  std::vector<std::string_view> parts;
  size_t start = 0;
  while (most < 0 || static_cast<int64_t>(parts.size()) < most) {
    const size_t at = find_text(text, separator, start);
    if (at == text.npos) break;
    parts.push_back(text.substr(start, at - start));
    start = at + separator.size();
  }
  parts.push_back(text.substr(start));
  return parts;
}

std::vector<std::string_view> split_lines(std::string_view text, bool keep_ends) {
  std::vector<std::string_view> lines;
  size_t start = 0;
  for (size_t at = 0; at < text.size();) {
    const size_t before = at;
    const uint32_t code = next_code_point(text, at);
    if (!is_line_break(code)) continue;
    if (code == '\r' && at < text.size() && text[at] == '\n') ++at;
    lines.push_back(text.substr(start, (keep_ends ? at : before) - start));
    start = at;
  }
  if (start < text.size()) lines.push_back(text.substr(start));
  return lines;
}

std::string replace_text(Heap& heap, std::string_view text, std::string_view from, std::string_view to,
                         int64_t most) {
  std::string out;
  heap.step_bytes(text.size());
  int64_t count = 0;
  const auto put = [&](std::string_view piece) {
    heap.check_text(out.size() + piece.size());
    heap.step_bytes(piece.size());
    out += piece;
  };
  if (from.empty()) {
    // Between all characters and at both ends.
    size_t at = 0;
    for (; most < 0 || count < most; ++count) {
      put(to);
      if (at >= text.size()) return out;
      const size_t size = code_point_size(text, at);
      put(text.substr(at, size));
      at += size;
    }
    put(text.substr(at));
    return out;
  }
  size_t start = 0;
  for (; most < 0 || count < most; ++count) {
    const size_t at = find_text(text, from, start);
    if (at == text.npos) break;
    put(text.substr(start, at - start));
    put(to);
    start = at + from.size();
  }
  put(text.substr(start));
  return out;
}

std::string center_text(Heap& heap, std::string_view text, int64_t width, std::string_view fill) {
  const auto length = static_cast<int64_t>(code_points(text).size());
  if (width <= length) return std::string(text);
  const int64_t missing = width - length;
  heap.check_text(static_cast<size_t>(missing));
  heap.check_text(static_cast<size_t>(missing) * fill.size() + text.size());
  heap.step_bytes(static_cast<size_t>(missing));
  // Python puts the odd one to the left when the width is odd.
  const int64_t left = missing / 2 + (missing & width & 1);
  std::string out;
  for (int64_t i = 0; i < left; ++i) out += fill;
  out += text;
  for (int64_t i = left; i < missing; ++i) out += fill;
  return out;
}

}  // namespace fathom::text::jinja
