// Where an automaton stands: all the ways in which the bytes so far can be read, each a state and the stack
// of calls it is in. Configurations are numbered as they come up, and their steps remembered, so that reading
// is mostly looking up.
#pragma once

#include <cstdint>
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
  static constexpr size_t kMaxKept = 4096;   // configurations kept by trim()

  struct Way {
    int32_t stack = kBottom;
    int32_t state = 0;
    bool operator==(const Way&) const = default;
  };

  explicit Configurations(const Automaton& automaton) : automaton_(automaton) { clear(); }

  // The configuration at a state, before anything is read, in the given stack.
  int32_t at(int32_t stack, int32_t state);
  // The configuration after one more byte, or kDead.
  int32_t next(int32_t configuration, uint8_t byte) {
    const int32_t known = steps_[static_cast<size_t>(configuration) * 256 + byte];
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

  // Work is counted in ways looked at. Once more than `amount` has been done since the call, nothing is
  // computed any more and what next() and at() say is worthless.
  void allow_work(uint64_t amount) { limit_ = work_ + amount; }
  bool exhausted() const { return work_ > limit_; }
  size_t count() const { return entries_.size(); }
  // Forgets all but one configuration when many have come up; the number that this one has now.
  int32_t trim(int32_t configuration);

 private:
  static constexpr int32_t kUnknown = -2;
  struct Frame {
    int32_t parent = -1;
    int32_t state = -1;  // of the caller, after the call
    int32_t depth = 0;
  };
  struct Entry {
    std::vector<Way> ways;
    bool ended = false;
  };

  void clear();
  int32_t compute_next(int32_t configuration, uint8_t byte);
  int32_t push(int32_t parent, int32_t state);
  // Adds a way, and what it leads to without reading.
  void reach(Way way);
  int32_t intern();  // of what was reached

  const Automaton& automaton_;
  std::vector<Frame> frames_;
  std::unordered_map<uint64_t, int32_t> frame_index_;
  std::vector<Entry> entries_;
  std::unordered_multimap<uint64_t, int32_t> entry_index_;  // by hash
  std::vector<int32_t> steps_;                              // [configuration][byte]
  uint64_t work_ = 0;
  uint64_t limit_ = UINT64_MAX;
  // The configuration being made.
  Entry made_;
  std::vector<Way> pending_;
  std::unordered_map<uint64_t, bool> reached_;
};

}  // namespace fathom::text
