#include "sched/prompt_budget.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace fathom::sched {
namespace {

template <size_t N>
using Vector = std::array<double, N>;

// x with a x = b and x = 0 but for the terms in `chosen`, by elimination; `a` is symmetric and positive
// definite.
template <size_t N>
Vector<N> solve(std::array<Vector<N>, N> a, Vector<N> b, unsigned chosen) {
  for (size_t i = 0; i < N; ++i) {
    if ((chosen >> i & 1U) != 0) continue;
    for (size_t j = 0; j < N; ++j) a[i][j] = a[j][i] = 0.0;
    a[i][i] = 1.0;
    b[i] = 0.0;
  }
  for (size_t i = 0; i < N; ++i) {
    for (size_t row = i + 1; row < N; ++row) {
      const double factor = a[row][i] / a[i][i];
      for (size_t column = i; column < N; ++column) a[row][column] -= factor * a[i][column];
      b[row] -= factor * b[i];
    }
  }
  Vector<N> x{};
  for (size_t i = N; i-- > 0;) {
    double rest = b[i];
    for (size_t column = i + 1; column < N; ++column) rest -= a[i][column] * x[column];
    x[i] = rest / a[i][i];
  }
  return x;
}

// The x >= 0 with the least squared error: of all choices of the terms in `allowed`, the one that explains
// most.
template <size_t N>
Vector<N> solve_not_negative(const std::array<Vector<N>, N>& a, const Vector<N>& b, unsigned allowed) {
  Vector<N> best{};
  double most = 0.0;
  for (unsigned chosen = 1; chosen < 1U << N; ++chosen) {
    if ((chosen & ~allowed) != 0) continue;
    const Vector<N> x = solve<N>(a, b, chosen);
    double explained = 0.0;
    for (size_t i = 0; i < N; ++i) explained += x[i] * b[i];
    if (explained > most && std::ranges::all_of(x, [](double price) { return price >= 0.0; })) {
      most = explained;
      best = x;
    }
  }
  return best;
}

}  // namespace

void PromptBudget::note(const Step& step, int64_t ns, bool behind) {
  if (ratio_ <= 0.0 || ns <= 0) return;
  behind_ns_ =
      std::clamp<int64_t>(behind ? behind_ns_ + ns : behind_ns_ - 4 * ns, 0, kLeastShare * kPatience);
  if (step.outputs <= 0) return;
  const bool mixed = step.prompts > 0;
  const Terms terms = {1.0, static_cast<double>(step.outputs), mixed ? 1.0 : 0.0,
                       static_cast<double>(step.prompts), static_cast<double>(step.looks)};
  double ms = static_cast<double>(ns) * 1e-6;
  double expected = 0.0;
  for (size_t i = 0; i < kTerms; ++i) expected += prices_[i] * terms[i];
  if (expected > 0.0) ms = std::min(ms, kOutlier * expected);
  // What disturbs a step makes it so many times as long: a long step's error counts no more than a short
  // one's.
  const double scale = expected > 0.0 ? expected : ms;
  const double weight = 1.0 / (scale * scale);
  for (size_t i = 0; i < kTerms; ++i) {
    for (size_t j = 0; j < kTerms; ++j) {
      products_[i][j] = products_[i][j] * kForget + weight * terms[i] * terms[j];
    }
    times_[i] = times_[i] * kForget + weight * terms[i] * ms;
  }
  int32_t& kind = mixed ? with_prompts_ : without_;
  kind = std::min(kind + 1, kEnough);
  largest_ = std::max(largest_ * kForget, static_cast<double>(step.prompts));
}

void PromptBudget::solve() {
  auto products = products_;
  // Sizes that never change say nothing of their price: then it is taken to be small.
  for (size_t i = 0; i < kTerms; ++i) products[i][i] += 1e-6 * products[i][i] + 1e-12;
  // What any prompt costs and what a step costs are told apart by steps without prompts.
  const unsigned all = (1U << kTerms) - 1;
  prices_ = solve_not_negative<kTerms>(products, times_, without_ >= kEnough ? all : all & ~(1U << kMixed));
}

int32_t PromptBudget::tokens(int32_t output_tokens, int32_t most) {
  if (ratio_ <= 0.0 || output_tokens <= 0) return most;
  double room = std::max(most / kFirstShare, kFirst);
  if (known()) {
    solve();
    room = std::max(room, 2.0 * largest_);
    const auto [base, output, mixed, prompt, look] = prices_;
    const double alone = base + output * output_tokens;
    // What prompts cost by being there at all is made use of, whatever it is: tokens for half as much.
    const double spent = std::max((ratio_ - 1.0) * alone - mixed, mixed / 2.0);
    if (prompt > 0.0) room = std::min(room, spent / prompt);
  }
  room = std::max(room, static_cast<double>(std::max(most / kLeastShare, kLeast)));
  room *= std::max(1.0, static_cast<double>(behind_ns_) / static_cast<double>(kPatience));
  return static_cast<int32_t>(std::min(room, static_cast<double>(most)));
}

int64_t PromptBudget::looks(int32_t before, int32_t count) const {
  return int64_t{before} * (pairs_ > 0 ? std::min(count, pairs_) : 1);
}

double PromptBudget::look_price() const {
  const auto [base, output, mixed, prompt, look] = prices_;
  return prompt > 0.0 ? look / prompt : 0.0;
}

int32_t PromptBudget::cost_of(int32_t before, int32_t count) const {
  return count +
         static_cast<int32_t>(std::min(look_price() * static_cast<double>(looks(before, count)), 1e9));
}

int32_t PromptBudget::fitting(int32_t before, int32_t most) const {
  const double each = look_price() * before;
  if (pairs_ == 0) return static_cast<int32_t>(std::max(most - each, 0.0));
  const double short_row = most / (1.0 + each);
  return static_cast<int32_t>(short_row <= pairs_ ? short_row : most - each * pairs_);
}

}  // namespace fathom::sched
