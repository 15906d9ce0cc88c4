// How many prompt tokens a step may take beside its decode rows, so that those who read an answer hardly
// notice that others' prompts are computed: a step shall last at most `ratio` times as long as one of its
// decode rows alone. Learnt from how long steps take:
//   seconds = a + b * output tokens + c * prompt tokens,
// by least squares in which older steps count less. Not thread safe.
#pragma once

#include <array>
#include <cstdint>

namespace fathom::sched {

class PromptBudget {
 public:
  // ratio > 1, or 0: no limit.
  explicit PromptBudget(double ratio) : ratio_(ratio) {}

  // A step took so long.
  void note(int32_t output_tokens, int32_t prompt_tokens, int64_t ns);
  // Prompt tokens for a step with so many output tokens, in [most / 8, most]: a prompt never crawls, whatever
  // it costs. `most` until enough is known.
  int32_t tokens(int32_t output_tokens, int32_t most) const;

 private:
  static constexpr double kForget = 0.99;  // a step
  static constexpr int32_t kEnough = 16;   // steps with prompts, and without
  static constexpr int32_t kLeastShare = 8;

  double ratio_;
  int32_t with_prompts_ = 0, without_ = 0;
  // Sums over steps of products of (1, output tokens, prompt tokens), and of these with the time in ms.
  std::array<std::array<double, 3>, 3> products_{};
  std::array<double, 3> times_{};
};

}  // namespace fathom::sched
