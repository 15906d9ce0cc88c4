#include "text/answer/markers.h"

#include <algorithm>
#include <string>

namespace fathom::text {

MarkerMatch find_marker(std::string_view text, std::span<const std::string_view> markers) {
  std::string begins;  // the markers' first bytes
  for (std::string_view marker : markers) {
    if (begins.find(marker[0]) == std::string::npos) begins += marker[0];
  }
  const auto next = [&](size_t from) {
    return begins.size() == 1 ? text.find(begins[0], from) : text.find_first_of(begins, from);
  };
  for (size_t at = next(0); at != std::string_view::npos; at = next(at + 1)) {
    for (size_t i = 0; i < markers.size(); ++i) {
      if (text.substr(at).starts_with(markers[i])) return {at, i};
    }
  }
  return {};
}

size_t marker_prefix_length(std::string_view text, std::span<const std::string_view> markers) {
  size_t longest = 0;
  for (std::string_view marker : markers) {
    for (size_t length = std::min(marker.size() - 1, text.size()); length > longest; --length) {
      if (text.ends_with(marker.substr(0, length))) longest = length;
    }
  }
  return longest;
}

std::string_view trim_left(std::string_view text) {
  while (!text.empty() && is_blank(text.front())) text.remove_prefix(1);
  return text;
}

std::string_view trim_right(std::string_view text) {
  while (!text.empty() && is_blank(text.back())) text.remove_suffix(1);
  return text;
}

}  // namespace fathom::text
