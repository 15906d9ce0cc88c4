#include "text/tokenizer/stop_matcher.h"

#include <algorithm>
#include <utility>

namespace fathom::text {

StopStrings::StopStrings(std::vector<std::string> stops) : stops_(std::move(stops)) {
  std::sort(stops_.begin(), stops_.end());
  stops_.erase(std::unique(stops_.begin(), stops_.end()), stops_.end());
  if (!stops_.empty() && stops_.front().empty()) stops_.erase(stops_.begin());
  build();
}

// Each node in turn gets its children. A fallback is shorter than its node, so it is complete by then.
void StopStrings::build() {
  struct Range {  // of the stop strings that begin with a node's prefix
    size_t begin;
    size_t end;
  };
  std::vector<Range> ranges = {{0, stops_.size()}};
  nodes_.emplace_back();
  for (size_t i = 0; i < nodes_.size(); ++i) {
    auto [at, end] = ranges[i];
    const auto depth = static_cast<size_t>(nodes_[i].depth);
    nodes_[i].first_child = static_cast<int32_t>(nodes_.size());
    nodes_[i].stop = nodes_[nodes_[i].fallback].stop;
    if (at < end && stops_[at].size() == depth) nodes_[i].stop = static_cast<int32_t>(at++);
    while (at < end) {
      const size_t begin = at;
      const char byte = stops_[begin][depth];
      while (at < end && stops_[at][depth] == byte) ++at;
      const int32_t fallback = i == 0 ? 0 : advance(nodes_[i].fallback, byte);
      nodes_.push_back({byte, 0, fallback, static_cast<int32_t>(depth) + 1, -1});
      ranges.push_back({begin, at});
    }
  }
  nodes_.push_back({.first_child = static_cast<int32_t>(nodes_.size())});
  nodes_.shrink_to_fit();
}

int32_t StopStrings::advance(int32_t node, char byte) const {
  while (true) {
    const int32_t end = nodes_[node + 1].first_child;
    for (int32_t child = nodes_[node].first_child; child < end; ++child) {
      if (nodes_[child].byte == byte) return child;
    }
    if (node == 0) return 0;
    node = nodes_[node].fallback;
  }
}

StopMatcher::StopMatcher(std::shared_ptr<const StopStrings> stops, bool keep_stop)
    : stops_(std::move(stops)), keep_stop_(keep_stop) {}

std::string StopMatcher::push(std::string_view delta) {
  if (matched_) return {};
  if (stops_ == nullptr) return std::string(delta);
  std::string text = std::exchange(held_, {});
  const size_t old_size = text.size();
  text += delta;
  for (size_t i = old_size; i < text.size(); ++i) {
    node_ = stops_->advance(node_, text[i]);
    const int32_t stop = stops_->nodes_[node_].stop;
    if (stop < 0) continue;
    matched_ = stops_->stops_[stop];
    text.resize(keep_stop_ ? i + 1 : i + 1 - matched_->size());
    return text;
  }
  const size_t safe = text.size() - static_cast<size_t>(stops_->nodes_[node_].depth);
  held_ = text.substr(safe);
  text.resize(safe);
  return text;
}

std::string StopMatcher::finish() {
  return std::exchange(held_, {});
}

}  // namespace fathom::text
