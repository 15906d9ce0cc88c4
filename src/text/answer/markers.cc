#include "text/answer/markers.h"

#include <algorithm>

namespace fathom::text {

MarkerMatch find_marker(std::string_view text, std::span<const std::string_view> markers) {
  MarkerMatch first;
  for (size_t i = 0; i < markers.size(); ++i) {
    const size_t position = text.find(markers[i]);
    if (position < first.position) first = {position, i};
  }
  return first;
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
