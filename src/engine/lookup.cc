// Prompt look-up decoding: what followed the last tokens when they stood in the sequence before.
#include <algorithm>
#include <bit>
#include <unordered_map>

#include "engine/drafter.h"

namespace fathom::engine {
namespace {

constexpr size_t kLongestMatch = 12;   // a longer one says nothing more
constexpr int kMostCandidates = 256;   // places that are compared with the end, the latest first
constexpr int32_t kFewOutputs = 1024;  // that memory is taken for at once

// A sequence's tokens, and where each two in a row stand: to look a match up takes as long in a long sequence
// as in a short one.
class History {
 public:
  void clear(size_t expected) {
    tokens_.clear();
    earlier_.clear();
    latest_.clear();
    heads_.assign(std::bit_ceil(std::max<size_t>(expected, 64)), -1);
    tokens_.reserve(expected);
    earlier_.reserve(expected);
  }
  void add(int32_t token) {
    if (!tokens_.empty()) index_last();  // now that something follows it
    tokens_.push_back(token);
  }
  const std::vector<int32_t>& tokens() const { return tokens_; }

  // Behind the longest earlier match of the last tokens, the latest of equals; 0: there is none.
  size_t next_of_match() const {
    if (tokens_.empty()) return 0;
    const size_t count = tokens_.size();
    size_t best = 0;
    size_t best_length = 1;
    int candidates = 0;
    for (int32_t place = count < 2 ? -1 : heads_[bucket(count - 1)];
         place >= 0 && candidates < kMostCandidates && best_length < kLongestMatch;
         place = earlier_[static_cast<size_t>(place)], ++candidates) {
      const size_t end = static_cast<size_t>(place) + 1;
      const size_t most = std::min(end, kLongestMatch);
      size_t length = 0;
      while (length < most && tokens_[end - 1 - length] == tokens_[count - 1 - length]) ++length;
      if (length > best_length) {
        best_length = length;
        best = end;
      }
    }
    if (best > 0) return best;
    const auto single = latest_.find(tokens_.back());
    return single == latest_.end() ? 0 : static_cast<size_t>(single->second) + 1;
  }

 private:
  // Of the two tokens that end at `place`.
  size_t bucket(size_t place) const {
    const uint64_t pair =
        uint64_t{static_cast<uint32_t>(tokens_[place - 1])} << 32 | static_cast<uint32_t>(tokens_[place]);
    return pair * 0x9e3779b97f4a7c15U >> (64 - std::countr_zero(heads_.size()));
  }
  void link(size_t place) {
    int32_t& head = heads_[bucket(place)];
    earlier_[place] = head;
    head = static_cast<int32_t>(place);
  }
  void index_last() {
    const size_t place = tokens_.size() - 1;
    latest_[tokens_[place]] = static_cast<int32_t>(place);
    earlier_.push_back(-1);
    if (place == 0) return;
    if (place < heads_.size()) return link(place);
    heads_.assign(heads_.size() * 2, -1);
    for (size_t i = 1; i <= place; ++i) link(i);
  }

  std::vector<int32_t> tokens_;
  // Places where two tokens end, chained by the hash of both: the latest, and [place] the one before it.
  std::vector<int32_t> heads_, earlier_;
  std::unordered_map<int32_t, int32_t> latest_;  // [token] its latest place that something follows
};

class Lookup final : public Drafter {
 public:
  explicit Lookup(int32_t slots) : histories_(static_cast<size_t>(slots)) {}

  void open(int32_t slot, const SlotInit& init) override {
    History& history = histories_[static_cast<size_t>(slot)];
    const auto outputs = static_cast<size_t>(std::clamp(init.sampling.max_new_tokens, 0, kFewOutputs));
    history.clear(init.prompt.size() + std::max(outputs, init.output.size()));
    for (const int32_t token : init.prompt) history.add(token);
    for (const int32_t token : init.output) history.add(token);
  }

  void draft(device::Launch& /*launch*/, std::span<DraftRow> rows) override {
    for (DraftRow& row : rows) {
      const History& history = histories_[static_cast<size_t>(row.slot)];
      const size_t from = history.next_of_match();
      if (from == 0) continue;
      const auto& tokens = history.tokens();
      // Beyond the end the guesses themselves go on: the sequence may be repeating what is still short.
      for (size_t i = from; row.guesses.size() < row.drafts; ++i) {
        row.guesses.extend(i < tokens.size() ? tokens[i] : row.guesses.tokens[i - tokens.size()]);
      }
    }
  }

  void follow(device::Launch& /*launch*/, std::span<const ComputedRow> rows,
              const device::Tensor& /*hidden*/) override {
    for (const ComputedRow& row : rows) {
      for (const TokenOutput& output : row.outputs)
        histories_[static_cast<size_t>(row.slot)].add(output.token);
    }
  }

 private:
  std::vector<History> histories_;  // [slot] of prompts and outputs
};

}  // namespace

std::unique_ptr<Drafter> make_lookup(int32_t slots) {
  return std::make_unique<Lookup>(slots);
}

}  // namespace fathom::engine
