#include "text/grammar/token_trie.h"

#include <algorithm>
#include <string_view>
#include <utility>

namespace fathom::text {

TokenTrie::TokenTrie(const Tokenizer& tokenizer, const std::function<bool(std::string_view)>& holds) {
  std::vector<std::pair<std::string_view, int32_t>> tokens;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.token_bytes(id);
    if (!bytes.empty() && bytes.size() < UINT16_MAX && !tokenizer.is_added(id) && !tokenizer.is_special(id) &&
        holds(bytes))
      tokens.emplace_back(bytes, id);
  }
  std::sort(tokens.begin(), tokens.end());
  std::vector<int32_t> path;  // the nodes of the token before, by depth
  std::string_view before;
  for (const auto& [bytes, id] : tokens) {
    if (bytes == before) continue;  // of equal tokens the first is enough
    const auto common = static_cast<size_t>(
        std::mismatch(bytes.begin(), bytes.end(), before.begin(), before.end()).first - bytes.begin());
    while (path.size() > common) {
      nodes_[static_cast<size_t>(path.back())].end = static_cast<int32_t>(nodes_.size());
      path.pop_back();
    }
    for (size_t i = common; i < bytes.size(); ++i) {
      path.push_back(static_cast<int32_t>(nodes_.size()));
      nodes_.push_back({static_cast<uint8_t>(bytes[i]), static_cast<uint16_t>(i + 1), -1, 0});
    }
    nodes_.back().token = id;
    max_depth_ = std::max(max_depth_, static_cast<int32_t>(bytes.size()));
    before = bytes;
  }
  for (int32_t node : path) nodes_[static_cast<size_t>(node)].end = static_cast<int32_t>(nodes_.size());
}

}  // namespace fathom::text
