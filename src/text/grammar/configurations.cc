#include "text/grammar/configurations.h"

#include <algorithm>

namespace fathom::text {
namespace {

using Kind = GrammarEdge::Kind;

uint64_t key(int32_t a, int32_t b) {
  return static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b);
}

}  // namespace

void Configurations::clear() {
  frames_.assign(1, {});
  frame_index_.clear();
  entries_.clear();
  entry_index_.clear();
  steps_.clear();
}

int32_t Configurations::push(int32_t parent, int32_t state) {
  // A call that nothing follows returns to where its caller returns: recursion at the end needs no stack.
  const GrammarState& after = automaton_.states[static_cast<size_t>(state)];
  if (after.end && after.edges.empty()) return parent;
  const auto [it, added] = frame_index_.try_emplace(key(parent, state), static_cast<int32_t>(frames_.size()));
  if (added) frames_.push_back({parent, state, frames_[static_cast<size_t>(parent)].depth + 1});
  return it->second;
}

void Configurations::reach(Way first) {
  pending_.push_back(first);
  while (!pending_.empty()) {
    const Way way = pending_.back();
    pending_.pop_back();
    if (exhausted()) return pending_.clear();
    if (!reached_.try_emplace(key(way.stack, way.state), true).second) continue;
    ++work_;
    const GrammarState& state = automaton_.states[static_cast<size_t>(way.state)];
    if (state.end) {
      if (way.stack == kBottom) {
        made_.ended = true;
      } else {
        pending_.push_back(caller(way.stack));
      }
    }
    bool reads = false;
    for (const GrammarEdge& edge : state.edges) {
      if (edge.kind != Kind::kCall) {
        reads = true;
        continue;
      }
      if (frames_[static_cast<size_t>(way.stack)].depth >= kMaxDepth) continue;
      pending_.push_back(
          {push(way.stack, edge.target), automaton_.rules[static_cast<size_t>(edge.argument)].start});
    }
    if (reads) made_.ways.push_back(way);
  }
}

int32_t Configurations::intern() {
  reached_.clear();
  Entry entry = std::move(made_);
  made_ = {};
  if (entry.ways.empty() && !entry.ended) return kDead;
  std::sort(entry.ways.begin(), entry.ways.end(), [](const Way& a, const Way& b) {
    return a.stack != b.stack ? a.stack < b.stack : a.state < b.state;
  });
  uint64_t hash = entry.ended ? 0x9E3779B97F4A7C15U : 0;
  for (const Way& way : entry.ways)
    hash = (hash ^ key(way.stack, way.state)) * 0xD6E8FEB86659FD93U + (hash >> 29);
  const auto [begin, end] = entry_index_.equal_range(hash);
  for (auto it = begin; it != end; ++it) {
    const Entry& other = entries_[static_cast<size_t>(it->second)];
    if (other.ended == entry.ended && other.ways == entry.ways) return it->second;
  }
  const auto number = static_cast<int32_t>(entries_.size());
  entry_index_.emplace(hash, number);
  entries_.push_back(std::move(entry));
  steps_.resize(steps_.size() + 256, kUnknown);
  return number;
}

int32_t Configurations::at(int32_t stack, int32_t state) {
  reach({stack, state});
  return intern();
}

int32_t Configurations::compute_next(int32_t configuration, uint8_t byte) {
  // By index: reaching may not move the entries, but keeps this readable.
  const std::vector<Way>& ways = entries_[static_cast<size_t>(configuration)].ways;
  for (const Way& way : ways) {
    for (const GrammarEdge& edge : automaton_.states[static_cast<size_t>(way.state)].edges) {
      ++work_;
      if (edge.kind == Kind::kByte && edge.low <= byte && byte <= edge.high) reach({way.stack, edge.target});
    }
  }
  const int32_t result = intern();
  steps_[static_cast<size_t>(configuration) * 256 + byte] = result;
  return result;
}

int32_t Configurations::next_token(int32_t configuration, int32_t token) {
  for (const Way& way : entries_[static_cast<size_t>(configuration)].ways) {
    for (const GrammarEdge& edge : automaton_.states[static_cast<size_t>(way.state)].edges) {
      if (edge.kind == Kind::kToken && edge.argument == token) reach({way.stack, edge.target});
    }
  }
  return intern();
}

int32_t Configurations::trim(int32_t configuration) {
  if (entries_.size() <= kMaxKept) return configuration;
  // The ways with their stacks written out, innermost frame last.
  const Entry kept = entries_[static_cast<size_t>(configuration)];
  std::vector<std::vector<int32_t>> stacks;
  for (const Way& way : kept.ways) {
    std::vector<int32_t>& stack = stacks.emplace_back();
    for (int32_t at = way.stack; at != kBottom; at = frames_[static_cast<size_t>(at)].parent)
      stack.push_back(frames_[static_cast<size_t>(at)].state);
    std::reverse(stack.begin(), stack.end());
  }
  clear();
  made_.ended = kept.ended;
  for (size_t i = 0; i < stacks.size(); ++i) {
    int32_t stack = kBottom;
    for (int32_t state : stacks[i]) stack = push(stack, state);
    made_.ways.push_back({stack, kept.ways[i].state});
  }
  return intern();
}

}  // namespace fathom::text
