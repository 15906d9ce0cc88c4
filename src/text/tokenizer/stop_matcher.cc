#include "text/tokenizer/stop_matcher.h"

#include <queue>
#include <utility>

namespace fathom::text {

StopMatcher::StopMatcher(std::vector<std::string> stops, bool keep_stop)
    : stops_(std::move(stops)), keep_stop_(keep_stop), nodes_(1) {
  for (size_t i = 0; i < stops_.size(); ++i) {
    if (!stops_[i].empty()) add(static_cast<int32_t>(i));
  }
  link();
}

void StopMatcher::add(int32_t stop) {
  int32_t node = 0;
  for (const char byte : stops_[stop]) {
    const auto found = nodes_[node].children.find(byte);
    if (found != nodes_[node].children.end()) {
      node = found->second;
      continue;
    }
    const auto child = static_cast<int32_t>(nodes_.size());
    nodes_[node].children[byte] = child;
    nodes_.push_back({{}, 0, nodes_[node].depth + 1, -1});
    node = child;
  }
  nodes_[node].stop = stop;
}

// Fallbacks in order of depth, so that a node's own fallback is complete when it is used.
void StopMatcher::link() {
  std::queue<int32_t> queue;
  queue.push(0);
  while (!queue.empty()) {
    const int32_t parent = queue.front();
    queue.pop();
    for (const auto& [byte, child] : nodes_[parent].children) {
      if (parent != 0) nodes_[child].fallback = advance(nodes_[parent].fallback, byte);
      if (nodes_[child].stop < 0) nodes_[child].stop = nodes_[nodes_[child].fallback].stop;
      queue.push(child);
    }
  }
}

int32_t StopMatcher::advance(int32_t node, char byte) const {
  while (true) {
    const auto found = nodes_[node].children.find(byte);
    if (found != nodes_[node].children.end()) return found->second;
    if (node == 0) return 0;
    node = nodes_[node].fallback;
  }
}

std::string StopMatcher::push(std::string_view delta) {
  if (matched_) return {};
  std::string text = std::exchange(held_, {});
  const size_t old_size = text.size();
  text += delta;
  for (size_t i = old_size; i < text.size(); ++i) {
    node_ = advance(node_, text[i]);
    if (nodes_[node_].stop < 0) continue;
    matched_ = stops_[nodes_[node_].stop];
    text.resize(keep_stop_ ? i + 1 : i + 1 - matched_->size());
    return text;
  }
  const size_t safe = text.size() - static_cast<size_t>(nodes_[node_].depth);
  held_ = text.substr(safe);
  text.resize(safe);
  return text;
}

std::string StopMatcher::finish() {
  return std::exchange(held_, {});
}

}  // namespace fathom::text
