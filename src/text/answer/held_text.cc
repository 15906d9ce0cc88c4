#include "text/answer/held_text.h"

#include <algorithm>
#include <utility>

namespace fathom::text {

void HeldText::append(std::string_view text) {
  // Only once more is gone than is left: the moves together are shorter than the text.
  if (begin_ > text_.size() - begin_) {
    text_.erase(0, begin_);
    begin_ = 0;
  }
  text_ += text;
}

std::string_view HeldText::take(size_t bytes) {
  const std::string_view taken = view().substr(0, bytes);
  begin_ += taken.size();
  scanned_ -= std::min(scanned_, taken.size());
  waiting_ -= std::min(waiting_, taken.size());
  return taken;
}

bool HeldText::skip_blanks() {
  const std::string_view held = view();
  take(held.size() - trim_left(held).size());
  return begin_ < text_.size();
}

MarkerMatch HeldText::find(std::span<const std::string_view> markers) {
  const std::string_view rest = view().substr(scanned_);
  MarkerMatch match = find_marker(rest, markers);
  if (match.found()) {
    match.position += std::exchange(scanned_, 0);
  } else {
    scanned_ += rest.size() - marker_prefix_length(rest, markers);
  }
  return match;
}

size_t HeldText::leading_blanks() {
  const std::string_view rest = view().substr(waiting_);
  waiting_ += rest.size() - trim_left(rest).size();
  return waiting_;
}

}  // namespace fathom::text
