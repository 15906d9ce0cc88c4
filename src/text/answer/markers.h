// Finding markers in text that comes in pieces.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace fathom::text {

struct MarkerMatch {
  size_t position = std::string_view::npos;  // npos: none is complete
  size_t marker = 0;                         // index into the markers

  bool found() const { return position != std::string_view::npos; }
};

// The first complete marker, in one pass over what comes before it. No marker may be a prefix of another.
MarkerMatch find_marker(std::string_view text, std::span<const std::string_view> markers);

// The length of the longest end of `text` that is the beginning, but not the whole, of a marker.
size_t marker_prefix_length(std::string_view text, std::span<const std::string_view> markers);

// Whether `text` is the beginning, but not the whole, of `marker`.
inline bool is_partial(std::string_view text, std::string_view marker) {
  return text.size() < marker.size() && marker.substr(0, text.size()) == text;
}

inline bool is_blank(char c) {
  return c == ' ' || c == '\n' || c == '\t' || c == '\r';
}

// `text` without the blanks at its begin or end.
std::string_view trim_left(std::string_view text);
std::string_view trim_right(std::string_view text);

}  // namespace fathom::text
