// Prompt look-up decoding: what followed the last tokens when they stood in the sequence before.
#include <algorithm>

#include "engine/drafter.h"

namespace fathom::engine {
namespace {

constexpr size_t kLongestMatch = 12;   // a longer one says nothing more
constexpr int32_t kFewOutputs = 1024;  // that memory is taken for at once

class Lookup final : public Drafter {
 public:
  explicit Lookup(int32_t slots) : tokens_(static_cast<size_t>(slots)) {}

  void open(int32_t slot, const SlotInit& init) override {
    auto& tokens = tokens_[static_cast<size_t>(slot)];
    tokens.clear();
    const auto outputs = static_cast<size_t>(std::clamp(init.sampling.max_new_tokens, 0, kFewOutputs));
    tokens.reserve(init.prompt.size() + std::max(outputs, init.output.size()));
    tokens.insert(tokens.end(), init.prompt.begin(), init.prompt.end());
    tokens.insert(tokens.end(), init.output.begin(), init.output.end());
  }

  void draft(device::Launch& /*launch*/, std::span<DraftRow> rows) override {
    for (DraftRow& row : rows) {
      const auto& tokens = tokens_[static_cast<size_t>(row.slot)];
      const size_t from = next_of_match(tokens);
      if (from == 0) continue;
      // Beyond the end the guesses themselves go on: the sequence may be repeating what is still short.
      for (size_t i = from; row.guesses.size() < row.drafts; ++i) {
        row.guesses.extend(i < tokens.size() ? tokens[i] : row.guesses.tokens[i - tokens.size()]);
      }
    }
  }

  void follow(device::Launch& /*launch*/, std::span<const ComputedRow> rows,
              const device::Tensor& /*hidden*/) override {
    for (const ComputedRow& row : rows) {
      for (const TokenOutput& output : row.outputs) {
        tokens_[static_cast<size_t>(row.slot)].push_back(output.token);
      }
    }
  }

 private:
  // Behind the longest earlier match of the last tokens, the latest of equals; 0: there is none.
  static size_t next_of_match(const std::vector<int32_t>& tokens) {
    const size_t count = tokens.size();
    size_t best = 0;
    size_t best_length = 0;
    for (size_t end = count - 1; end > 0 && best_length < kLongestMatch; --end) {
      const size_t most = std::min(end, kLongestMatch);
      size_t length = 0;
      while (length < most && tokens[end - 1 - length] == tokens[count - 1 - length]) ++length;
      if (length > best_length) {
        best_length = length;
        best = end;
      }
    }
    return best;
  }

  std::vector<std::vector<int32_t>> tokens_;  // [slot] prompt and outputs
};

}  // namespace

std::unique_ptr<Drafter> make_lookup(int32_t slots) {
  return std::make_unique<Lookup>(slots);
}

}  // namespace fathom::engine
