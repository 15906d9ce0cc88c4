// A bound on a model's thoughts: once they have taken their tokens, the next ones are chosen for the model,
// and close them. Plain numbers, so that every engine keeps them where it chooses tokens, the GPU included.
#pragma once

#include <cstdint>

namespace fathom {

// Token ids are the tokenizer's.
struct ThinkingBudget {
  int32_t tokens = -1;      // thoughts take at most so many before they are closed; -1: no bound
  int32_t start = -1;       // "<think>"; -1: only the prompt can open thoughts
  int32_t end = -1;         // "</think>"
  int32_t line_break = -1;  // comes before `end`, unless it is the last token anyway; -1: nothing does
  int32_t begun = -1;       // tokens of the thoughts that the prompt leaves open; -1: it leaves none open
};

// Where a sequence stands.
struct ThinkingState {
  int32_t thought = -1;  // tokens of the open thoughts; -1: none are open
  int32_t last = -1;     // the last output token

  // An output token. A `start` inside thoughts does not begin them anew.
  constexpr void accept(const ThinkingBudget& budget, int32_t token) {
    last = token;
    if (token == budget.end) {
      thought = -1;
    } else if (thought >= 0) {
      ++thought;
    } else if (token == budget.start && budget.start >= 0) {
      thought = 0;
    }
  }

  // The token that must come next, or -1.
  constexpr int32_t forced(const ThinkingBudget& budget) const {
    if (budget.tokens < 0 || thought < budget.tokens) return -1;
    return budget.line_break >= 0 && last != budget.line_break ? budget.line_break : budget.end;
  }
};

}  // namespace fathom
