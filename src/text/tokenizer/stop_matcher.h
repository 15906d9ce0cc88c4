// Stop strings over a stream of text, which may cut them anywhere.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::text {

// One per stream; not thread safe. The stream ends at the first place where any stop string is complete; if
// two end there, the longer counts. How the text is cut into pushes makes no difference to the text emitted
// before and at the end, or to the match.
class StopMatcher {
 public:
  // Empty stop strings are ignored. With `keep_stop` (no_stop_trim) the text ends with the stop string, else
  // before it.
  StopMatcher(std::vector<std::string> stops, bool keep_stop);

  // The text that is now safe to emit: all but the longest suffix that could be the start of a stop string.
  // After a match it gives nothing.
  std::string push(std::string_view delta);

  // What was held back, when the stream ends without a match.
  std::string finish();

  // The stop string that ended the stream.
  const std::optional<std::string>& matched() const { return matched_; }

 private:
  // A node of the Aho-Corasick automaton: a prefix of some stop string.
  struct Node {
    std::map<char, int32_t> children;
    int32_t fallback = 0;  // the longest proper suffix that is also a prefix
    int32_t depth = 0;     // length of the prefix
    int32_t stop = -1;     // the longest stop string that ends here: index into stops_
  };

  void add(int32_t stop);
  void link();
  int32_t advance(int32_t node, char byte) const;

  const std::vector<std::string> stops_;
  const bool keep_stop_;
  std::vector<Node> nodes_;
  int32_t node_ = 0;  // the longest suffix of the stream that is a prefix of a stop string
  std::string held_;  // that suffix
  std::optional<std::string> matched_;
};

}  // namespace fathom::text
