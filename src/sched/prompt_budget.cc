#include "sched/prompt_budget.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace fathom::sched {
namespace {

// x with a x = b, by elimination; `a` is symmetric and made positive definite by its caller.
std::array<double, 3> solve(std::array<std::array<double, 3>, 3> a, std::array<double, 3> b) {
  for (size_t i = 0; i < 3; ++i) {
    for (size_t row = i + 1; row < 3; ++row) {
      const double factor = a[row][i] / a[i][i];
      for (size_t column = i; column < 3; ++column) a[row][column] -= factor * a[i][column];
      b[row] -= factor * b[i];
    }
  }
  std::array<double, 3> x{};
  for (size_t i = 3; i-- > 0;) {
    double rest = b[i];
    for (size_t column = i + 1; column < 3; ++column) rest -= a[i][column] * x[column];
    x[i] = rest / a[i][i];
  }
  return x;
}

}  // namespace

void PromptBudget::note(int32_t output_tokens, int32_t prompt_tokens, int64_t ns) {
  if (ratio_ <= 0.0 || ns <= 0) return;
  const std::array<double, 3> step = {1.0, static_cast<double>(output_tokens),
                                      static_cast<double>(prompt_tokens)};
  for (size_t i = 0; i < 3; ++i) {
    for (size_t j = 0; j < 3; ++j) products_[i][j] = products_[i][j] * kForget + step[i] * step[j];
    times_[i] = times_[i] * kForget + step[i] * static_cast<double>(ns) * 1e-6;
  }
  int32_t& kind = prompt_tokens > 0 ? with_prompts_ : without_;
  kind = std::min(kind + 1, kEnough);
}

int32_t PromptBudget::tokens(int32_t output_tokens, int32_t most) const {
  if (ratio_ <= 0.0 || output_tokens <= 0 || with_prompts_ < kEnough || without_ < kEnough) return most;
  auto products = products_;
  // Sizes that never change say nothing of their price: then it is taken to be small.
  for (size_t i = 0; i < 3; ++i) products[i][i] += 1e-6 * products[i][i] + 1e-3;
  const auto [base, output, prompt] = solve(products, times_);
  if (prompt <= 0.0) return most;
  const double alone = base + std::max(output, 0.0) * output_tokens;
  const double room = (ratio_ - 1.0) * std::max(alone, 0.0) / prompt;
  return std::clamp(static_cast<int32_t>(std::min(room, 1e9)), std::max(most / kLeastShare, 1), most);
}

}  // namespace fathom::sched
