#include "text/grammar/plain_reach.h"

#include <algorithm>
#include <unordered_set>

#include "text/grammar/grammar_tokens.h"

namespace fathom::text {

PlainReach::PlainReach(const Automaton& automaton) {
  const auto one_of_each = [&](int low, int high, auto takes) {
    std::vector<uint8_t> bytes;
    std::vector<bool> known(256);
    for (int byte = low; byte <= high; ++byte) {
      const uint8_t number = automaton.byte_class[static_cast<size_t>(byte)];
      if (known[number] || !takes(static_cast<uint8_t>(byte))) continue;
      known[number] = true;
      bytes.push_back(static_cast<uint8_t>(byte));
    }
    return bytes;
  };
  const auto any = [](uint8_t) { return true; };
  ascii_ = one_of_each(0, 0x7F, is_plain_ascii);
  continuations_ = one_of_each(0x80, 0xBF, any);
  // Well-formed UTF-8 (Unicode, table 3-7).
  struct Row {
    int low, high, second_low, second_high, others;
  };
  constexpr Row kRows[] = {{0xC2, 0xDF, 0x80, 0xBF, 0}, {0xE0, 0xE0, 0xA0, 0xBF, 1},
                           {0xE1, 0xEC, 0x80, 0xBF, 1}, {0xED, 0xED, 0x80, 0x9F, 1},
                           {0xEE, 0xEF, 0x80, 0xBF, 1}, {0xF0, 0xF0, 0x90, 0xBF, 2},
                           {0xF1, 0xF3, 0x80, 0xBF, 2}, {0xF4, 0xF4, 0x80, 0x8F, 2}};
  for (const Row& row : kRows) {
    for (const uint8_t byte : one_of_each(row.low, row.high, any))
      leads_.push_back({byte, one_of_each(row.second_low, row.second_high, any), row.others});
  }
}

void PlainReach::expand(Configurations* configurations, int32_t from, Step* step) const {
  std::vector<int32_t> now;
  const auto follow = [&](const std::vector<int32_t>& before, const std::vector<uint8_t>& bytes) {
    std::vector<int32_t> after;
    for (const int32_t at : before) {
      for (const uint8_t byte : bytes) {
        const int32_t next = configurations->next(at, byte);
        if (next == Configurations::kDead) {
          step->some_die = true;
          continue;
        }
        step->ends = step->ends || configurations->ended(next);
        if (std::find(after.begin(), after.end(), next) == after.end()) after.push_back(next);
      }
    }
    configurations->spend(before.size() * bytes.size());
    return after;
  };
  const auto arrive = [&](const std::vector<int32_t>& at) {
    step->some_live = step->some_live || !at.empty();
    step->targets.insert(step->targets.end(), at.begin(), at.end());
  };
  arrive(follow({from}, ascii_));
  for (const Lead& lead : leads_) {
    if (step->some_live && step->some_die) return;
    std::vector<int32_t> at = follow(follow({from}, {lead.byte}), lead.second);
    for (int i = 0; i < lead.others; ++i) at = follow(at, continuations_);
    arrive(at);
  }
}

std::optional<int> PlainReach::count(Configurations* configurations, int32_t from, bool returns) const {
  std::vector<int32_t> frontier = {from};
  std::unordered_set<int32_t> known = {from};
  for (int count = 0; count < GrammarTokens::kMaxPlain; ++count) {
    Step step;
    for (const int32_t at : frontier) expand(configurations, at, &step);
    if ((step.some_live && step.some_die) || (returns && step.ends)) return std::nullopt;
    if (configurations->exhausted()) return std::nullopt;
    if (step.some_die) return count;
    frontier.clear();
    for (const int32_t target : step.targets) {
      if (known.insert(target).second) frontier.push_back(target);
    }
    if (frontier.empty()) break;  // it goes on like this
  }
  return GrammarTokens::kMaxPlain;
}

}  // namespace fathom::text
