// How many prompt tokens a step may take beside its decode rows, so that those who read an answer hardly
// notice that others' prompts are computed: a step shall last at most `ratio` times as long as one of its
// decode rows alone. Learnt from how long steps with decode rows take:
//   time = a + b * output tokens + (c + d * prompt tokens + e * tokens before those in their prompts),
// the bracket where there are prompts, by least squares of relative errors with no price below zero, in which
// older steps count less and one that took far longer than it should is somebody else's work. The last price
// is that of attention to what was cached or computed before: the shorter the chunks, the more often it is
// paid. Not thread safe.
//
// At that ratio prompts get (ratio - 1) / ratio of the time. When they are held back for longer than
// kPatience their share grows with that time, up to all that a step can take.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace fathom::sched {

class PromptBudget {
 public:
  // What a step computed.
  struct Step {
    int32_t outputs = 0, prompts = 0;  // tokens
    int64_t before = 0;  // of all its rows of prompts, the tokens of the prompt before the row's first
  };

  // ratio > 1, or 0: no limit.
  explicit PromptBudget(double ratio) : ratio_(ratio) {}

  // A step took so long. `held_back`: it left some of the prompts that could be computed.
  void note(const Step& step, int64_t ns, bool held_back);

  // Prompt tokens for a step with so many output tokens: at most `most`, at least a 32nd of it or 16. No more
  // than twice as many as in a step of late, since the price of more is a guess. `most` where nobody decodes.
  int32_t tokens(int32_t output_tokens, int32_t most);
  // As many prompt tokens as take the time that a row costs for the tokens before it. As of the last
  // tokens().
  int32_t price_of(int32_t before) const;

 private:
  static constexpr size_t kTerms = 5, kMixed = 2;  // a to e; c's place
  using Terms = std::array<double, kTerms>;

  static constexpr double kForget = 0.995;                 // a step
  static constexpr int32_t kEnough = 8;                    // steps that tell a price
  static constexpr double kOutlier = 2.0;                  // times what was expected
  static constexpr int32_t kLeast = 16, kLeastShare = 32;  // tokens, share of `most`
  static constexpr int32_t kFirst = 64, kFirstShare = 8;   // the same, before anything is known
  static constexpr int64_t kPatience = 1'000'000'000;      // ns

  bool known() const { return with_prompts_ >= kEnough; }
  void solve();

  double ratio_;
  int32_t with_prompts_ = 0, without_ = 0;
  double largest_ = 0.0;  // number of prompt tokens of a step of late
  int64_t held_ns_ = 0;   // for so long prompts have been held back, less what passed since
  // Weighted sums over steps of products of the terms, and of these with the time in ms; the prices that
  // follow.
  std::array<Terms, kTerms> products_{};
  Terms times_{};
  Terms prices_{};
};

}  // namespace fathom::sched
