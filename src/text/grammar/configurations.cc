#include "text/grammar/configurations.h"

#include <algorithm>
#include <utility>

namespace fathom::text {
namespace {

using Kind = GrammarEdge::Kind;

uint64_t key(int32_t a, int32_t b) {
  return static_cast<uint64_t>(static_cast<uint32_t>(a)) << 32 | static_cast<uint32_t>(b);
}

uint64_t mixed(uint64_t key) {
  key *= 0x9E3779B97F4A7C15U;
  return key ^ (key >> 32);
}

}  // namespace

bool Configurations::WaySet::add(uint64_t key) {
  if (2 * size_ >= places_.size()) {
    const std::vector<Place> before = std::exchange(places_, std::vector<Place>(2 * places_.size()));
    const uint32_t round = round_;
    size_ = 0;
    for (const Place& place : before) {
      if (place.round == round) add(place.key);
    }
  }
  for (size_t at = mixed(key);; ++at) {
    Place& place = places_[at & (places_.size() - 1)];
    if (place.round != round_) {
      place = {key, round_};
      ++size_;
      return true;
    }
    if (place.key == key) return false;
  }
}

void Configurations::WaySet::clear() {
  size_ = 0;
  if (++round_ == 0) {
    places_.assign(places_.size(), {});
    round_ = 1;
  }
}

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
    if (!reached_.add(key(way.stack, way.state))) continue;
    work_ += kWayWork;
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
  steps_.resize(steps_.size() + classes_, kUnknown);
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
      work_ += 2;
      if (edge.kind == Kind::kByte && edge.low <= byte && byte <= edge.high) reach({way.stack, edge.target});
    }
  }
  const int32_t result = intern();
  steps_[static_cast<size_t>(configuration) * classes_ + automaton_.byte_class[byte]] = result;
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

void Configurations::trim(std::span<int32_t*> kept) {
  if (entries_.size() <= kMaxKept) return;
  // The ways with their stacks written out, innermost frame last.
  struct Written {
    Entry entry;
    std::vector<std::vector<int32_t>> stacks;
  };
  std::vector<Written> all;
  for (const int32_t* number : kept) {
    Written& written = all.emplace_back();
    written.entry = entries_[static_cast<size_t>(*number)];
    for (const Way& way : written.entry.ways) {
      std::vector<int32_t>& stack = written.stacks.emplace_back();
      for (int32_t at = way.stack; at != kBottom; at = frames_[static_cast<size_t>(at)].parent)
        stack.push_back(frames_[static_cast<size_t>(at)].state);
      std::reverse(stack.begin(), stack.end());
    }
  }
  clear();
  for (size_t k = 0; k < kept.size(); ++k) {
    made_.ended = all[k].entry.ended;
    for (size_t i = 0; i < all[k].stacks.size(); ++i) {
      int32_t stack = kBottom;
      for (int32_t state : all[k].stacks[i]) stack = push(stack, state);
      made_.ways.push_back({stack, all[k].entry.ways[i].state});
    }
    *kept[k] = intern();
  }
}

}  // namespace fathom::text
