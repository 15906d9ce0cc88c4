// Stop strings over a stream of text, which may cut them anywhere.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::text {

// A list of stop strings, ready to be looked for: an Aho-Corasick automaton of 20 bytes a byte. Immutable;
// shared by all choices of a request.
class StopStrings {
 public:
  // Empty strings are ignored.
  explicit StopStrings(std::vector<std::string> stops);

  bool empty() const { return stops_.empty(); }
  size_t bytes() const { return nodes_.size() * sizeof(Node); }

 private:
  friend class StopMatcher;

  // A prefix of some stop string. Nodes are in order of length, so that a node's children are neighbours:
  // from its first_child to the next node's.
  struct Node {
    char byte = 0;  // the prefix's last
    int32_t first_child = 0;
    int32_t fallback = 0;  // the longest proper suffix that is also a prefix
    int32_t depth = 0;     // length of the prefix
    int32_t stop = -1;     // the longest stop string that ends here: index into stops_
  };

  void build();
  int32_t advance(int32_t node, char byte) const;

  std::vector<std::string> stops_;  // sorted
  std::vector<Node> nodes_;         // and one more, where the last one's children end
};

// One per stream; not thread safe. The stream ends at the first place where any stop string is complete; if
// two end there, the longer counts. How the text is cut into pushes makes no difference to the text emitted
// before and at the end, or to the match.
class StopMatcher {
 public:
  // `stops` may be null: there are none. With `keep_stop` (no_stop_trim) the text ends with the stop string,
  // else before it.
  StopMatcher(std::shared_ptr<const StopStrings> stops, bool keep_stop);

  // The text that is now safe to emit: all but the longest suffix that could be the start of a stop string.
  // After a match it gives nothing.
  std::string push(std::string_view delta);

  // What was held back, when the stream ends without a match.
  std::string finish();

  // The stop string that ended the stream.
  const std::optional<std::string>& matched() const { return matched_; }

 private:
  const std::shared_ptr<const StopStrings> stops_;  // null: none
  const bool keep_stop_;
  int32_t node_ = 0;  // the longest suffix of the stream that is a prefix of a stop string
  std::string held_;  // that suffix
  std::optional<std::string> matched_;
};

}  // namespace fathom::text
