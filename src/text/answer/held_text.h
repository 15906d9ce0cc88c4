// Text that a splitter has not decided about yet. However it comes in, each byte is looked at a bounded
// number of times and moved as seldom.
#pragma once

#include <cstddef>
#include <span>
#include <string>
#include <string_view>

#include "text/answer/markers.h"

namespace fathom::text {

// What is asked of the held text may go on where the last answer was "not yet": find() and the functions
// about what waits must be asked the same until find() succeeds or the bytes are taken.
class HeldText {
 public:
  void append(std::string_view text);
  void clear() { *this = HeldText(); }

  // Valid until the next append() or clear(), take() included.
  std::string_view view() const { return std::string_view(text_).substr(begin_); }
  bool starts_with(std::string_view text) const { return view().starts_with(text); }

  // Drops the first `bytes` and returns them.
  std::string_view take(size_t bytes);
  // Drops the blanks at the begin; false when nothing is left.
  bool skip_blanks();

  // The first complete marker.
  MarkerMatch find(std::span<const std::string_view> markers);
  // After a find() without success: where the part begins that may become a marker.
  size_t sure_end() const { return scanned_; }

  // The first `end` bytes without those at their end for which `waits` holds.
  template <class Waits>
  size_t without_waiting(size_t end, Waits waits) {
    const std::string_view held = view();
    size_t sure = end;
    while (sure > waiting_ && waits(held[sure - 1])) --sure;
    if (sure > waiting_) return sure;
    waiting_ = end;
    return 0;
  }
  // How many blanks the text begins with.
  size_t leading_blanks();

 private:
  std::string text_;
  size_t begin_ = 0;
  size_t scanned_ = 0;  // bytes from begin_ on in which no marker begins
  size_t waiting_ = 0;  // bytes from begin_ on that all wait
};

}  // namespace fathom::text
