// How many prompt tokens a step may take beside its decode rows, so that those who read an answer hardly
// notice that others' prompts are computed: a step shall last at most `ratio` times as long as one of its
// decode rows alone. Learnt from how long steps with decode rows take:
//   time = a + b * output tokens + (c + d * prompt tokens + e * looks at what is before them),
// the bracket where there are prompts, by least squares of relative errors with no price below zero, in which
// older steps count less and one that took far longer than it should is somebody else's work. A look is a
// pair of a row's token and one before the row in its prompt; of rows longer than `pairs` tokens, as many as
// if they had so many. 0 pairs: a token before the row, however long the row is: then the shorter the chunks,
// the more often it is paid. Not thread safe.
//
// At that ratio prompts get (ratio - 1) / ratio of the time. Where that is too little, ever more of those
// that run have prompts to compute and ever fewer decode: when that has been so for longer than kPatience,
// the share grows with that time, up to all that a step can take.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace fathom::sched {

class PromptBudget {
 public:
  static constexpr int32_t kBehind = 8;

  // What a step computed.
  struct Step {
    int32_t outputs = 0, prompts = 0;  // tokens
    int64_t looks = 0;                 // of all its rows of prompts
  };

  // ratio > 1, or 0: no limit.
  explicit PromptBudget(double ratio, int32_t pairs = 0) : ratio_(ratio), pairs_(pairs) {}

  // A step took so long. `behind`: it left more prompts than a kBehind-th of what runs.
  void note(const Step& step, int64_t ns, bool behind);

  // Prompt tokens for a step with so many output tokens: at most `most`, at least a 32nd of it or 16. No more
  // than twice as many as in a step of late, since the price of more is a guess. `most` where nobody decodes.
  int32_t tokens(int32_t output_tokens, int32_t most);
  // Of a row of `count` tokens after `before` others.
  int64_t looks(int32_t before, int32_t count) const;
  // As many prompt tokens with nothing before them as take the time of such a row; and the longest such row
  // that takes no more time than `most` of them, perhaps 0. As of the last tokens().
  int32_t cost_of(int32_t before, int32_t count) const;
  int32_t fitting(int32_t before, int32_t most) const;

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
  double look_price() const;  // in prompt tokens

  double ratio_;
  int32_t pairs_;
  int32_t with_prompts_ = 0, without_ = 0;
  double largest_ = 0.0;   // number of prompt tokens of a step of late
  int64_t behind_ns_ = 0;  // for so long prompts have been behind, less what passed since
  // Weighted sums over steps of products of the terms, and of these with the time in ms; the prices that
  // follow.
  std::array<Terms, kTerms> products_{};
  Terms times_{};
  Terms prices_{};
};

}  // namespace fathom::sched
