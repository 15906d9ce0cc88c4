// Where an automaton stands: all the ways in which the bytes so far can be read, each a state and the stack
// of calls it is in. Configurations are numbered as they come up, and their steps remembered, so that reading
// is mostly looking up.
#pragma once

#include <cstdint>
#include <span>
#include <unordered_map>
#include <vector>

#include "text/grammar/grammar_builder.h"

namespace fathom::text {

// Not thread safe. `automaton` must outlive it.
class Configurations {
 public:
  static constexpr int32_t kDead = -1;
  static constexpr int32_t kBottom = 0;      // the stack of the first rule
  static constexpr int32_t kMaxDepth = 512;  // of calls; what nests deeper is not allowed
  static constexpr size_t kMaxKept = 1024;   // configurations; trim() forgets when there are more

  struct Way {
    int32_t stack = kBottom;
    int32_t state = 0;
    bool operator==(const Way&) const = default;
  };

  explicit Configurations(const Automaton& automaton)
      : automaton_(automaton), classes_(static_cast<size_t>(automaton.num_classes)) {
    clear();
  }
  void clear();

  // The configuration at a state, before anything is read, in the given stack.
  int32_t at(int32_t stack, int32_t state);
  // The configuration after one more byte, or kDead.
  int32_t next(int32_t configuration, uint8_t byte) {
    const int32_t known = steps_[static_cast<size_t>(configuration) * classes_ + automaton_.byte_class[byte]];
    return known != kUnknown ? known : compute_next(configuration, byte);
  }
  // After a marker token.
  int32_t next_token(int32_t configuration, int32_t token);

  // The ways whose next step reads something.
  const std::vector<Way>& ways(int32_t configuration) const {
    return entries_[static_cast<size_t>(configuration)].ways;
  }
  // The first rule can end here.
  bool ended(int32_t configuration) const { return entries_[static_cast<size_t>(configuration)].ended; }
  // Where a rule that was called in `stack` goes on: the caller's stack and state.
  Way caller(int32_t stack) const {
    const Frame& frame = frames_[static_cast<size_t>(stack)];
    return {frame.parent, frame.state};
  }

  int32_t depth(int32_t stack) const { return frames_[static_cast<size_t>(stack)].depth; }

  // Work is counted in nodes of a trie (some five nanoseconds); a way counts kWayWork. spend() adds to it.
  // Once `amount` has been done since the call, nothing is computed any more and what next() and at() say is
  // worthless, until clear().
  void allow_work(uint64_t amount) {
    work_ = 0;
    limit_ = amount;
  }
  void spend(uint64_t amount) { work_ += amount; }
  void exhaust() { work_ = limit_ + 1; }
  uint64_t work() const { return work_; }
  bool exhausted() const { return work_ > limit_; }
  size_t count() const { return entries_.size(); }
  // Forgets all but these configurations when many have come up, and gives them their numbers from now on.
  void trim(std::span<int32_t*> kept);

 private:
  static constexpr int32_t kUnknown = -2;
  static constexpr uint64_t kWayWork = 16;  // found, sorted, compared
  struct Frame {
    int32_t parent = -1;
    int32_t state = -1;  // of the caller, after the call
    int32_t depth = 0;
  };
  struct Entry {
    std::vector<Way> ways;
    bool ended = false;
  };

  int32_t compute_next(int32_t configuration, uint8_t byte);
  int32_t push(int32_t parent, int32_t state);
  // Adds a way, and what it leads to without reading.
  void reach(Way way);
  int32_t intern();  // of what was reached

  // A set of ways, emptied at no cost.
  class WaySet {
   public:
    bool add(uint64_t key);
    void clear();

   private:
    struct Place {
      uint64_t key = 0;
      uint32_t round = 0;
    };
    std::vector<Place> places_ = std::vector<Place>(64);
    size_t size_ = 0;
    uint32_t round_ = 1;
  };

  const Automaton& automaton_;
  const size_t classes_;
  std::vector<Frame> frames_;
  std::unordered_map<uint64_t, int32_t> frame_index_;
  std::vector<Entry> entries_;
  std::unordered_multimap<uint64_t, int32_t> entry_index_;  // by hash
  std::vector<int32_t> steps_;                              // [configuration][class of bytes]
  uint64_t work_ = 0;
  uint64_t limit_ = UINT64_MAX;
  // The configuration being made.
  Entry made_;
  std::vector<Way> pending_;
  WaySet reached_;
};

}  // namespace fathom::text
