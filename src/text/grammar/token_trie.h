// The tokens of a vocabulary by their bytes, as a tree in one array: what an automaton over bytes allows is
// found in one walk that leaves out whole branches.
#pragma once

#include <cstdint>
#include <functional>
#include <string_view>
#include <vector>

#include "text/tokenizer/tokenizer.h"

namespace fathom::text {

// Immutable. Holds the tokens that make up text, or those of them that `holds`; added tokens (markers) are
// not among them.
class TokenTrie {
 public:
  TokenTrie(const Tokenizer& tokenizer, const std::function<bool(std::string_view)>& holds);

  // In preorder: the nodes below node i are i + 1 .. end - 1.
  struct Node {
    uint8_t byte = 0;
    uint16_t depth = 0;  // 1 for the first byte of tokens
    int32_t token = -1;  // whose bytes end here, or -1
    int32_t end = 0;
  };
  const std::vector<Node>& nodes() const { return nodes_; }
  int32_t max_depth() const { return max_depth_; }
  bool has_children(int32_t node) const { return nodes_[static_cast<size_t>(node)].end > node + 1; }

 private:
  std::vector<Node> nodes_;
  int32_t max_depth_ = 0;
};

}  // namespace fathom::text
