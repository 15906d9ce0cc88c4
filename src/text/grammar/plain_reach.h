// How far plain characters (grammar_tokens.h) lead, whatever they are.
#pragma once

#include <optional>
#include <vector>

#include "text/grammar/configurations.h"

namespace fathom::text {

class PlainReach {
 public:
  explicit PlainReach(const Automaton& automaton);

  // The number of plain characters up to which every one may follow `from`, at most GrammarTokens::kMaxPlain;
  // below that, none may follow them. Nothing where some may and others not, or, with `returns`, where the
  // first rule can end among them.
  std::optional<int> count(Configurations* configurations, int32_t from, bool returns) const;

 private:
  struct Lead {
    uint8_t byte = 0;
    std::vector<uint8_t> second;
    int others = 0;  // further bytes, any continuations
  };
  struct Step {
    bool some_live = false, some_die = false, ends = false;
    std::vector<int32_t> targets;
  };
  void expand(Configurations* configurations, int32_t from, Step* step) const;

  // One byte of each class.
  std::vector<uint8_t> ascii_, continuations_;
  std::vector<Lead> leads_;
};

}  // namespace fathom::text
