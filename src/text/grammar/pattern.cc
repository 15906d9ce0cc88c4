#include "text/grammar/pattern.h"

namespace fathom::text {

Fragment PatternEmitter::emit(const Pattern& pattern) const {
  std::vector<Fragment> parts;
  switch (pattern.kind) {
    case Pattern::Kind::kSet:
      return character(pattern.set);
    case Pattern::Kind::kRule:
      return rule(pattern.rule);
    case Pattern::Kind::kSequence:
      for (const Pattern& child : pattern.children) parts.push_back(emit(child));
      return builder.sequence(std::move(parts));
    case Pattern::Kind::kChoice:
      for (const Pattern& child : pattern.children) parts.push_back(emit(child));
      return builder.choice(std::move(parts));
    case Pattern::Kind::kRepeat:
      return builder.repeat([&] { return emit(pattern.children[0]); }, pattern.min, pattern.max);
  }
  return builder.empty();
}

Fragment PatternEmitter::emit(const RegexPattern& regex, bool anywhere) const {
  const auto anything = [&] { return builder.star(character({{0, 0x10FFFF}})); };
  std::vector<Fragment> branches;
  for (const RegexPattern::Branch& branch : regex.branches) {
    std::vector<Fragment> parts;
    if (anywhere && !branch.from_begin) parts.push_back(anything());
    parts.push_back(emit(branch.pattern));
    if (anywhere && !branch.to_end) parts.push_back(anything());
    branches.push_back(builder.sequence(std::move(parts)));
  }
  return builder.choice(std::move(branches));
}

}  // namespace fathom::text
