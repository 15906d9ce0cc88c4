#include "text/grammar/grammar_builder.h"

#include <algorithm>
#include <array>

#include "text/tokenizer/utf8.h"

namespace fathom::text {
namespace {

using Kind = GrammarEdge::Kind;

constexpr char32_t kLast = 0x10FFFF;

// A sequence of byte ranges, one a byte of UTF-8.
struct ByteRanges {
  std::array<std::pair<uint8_t, uint8_t>, 4> ranges;
  size_t length = 0;
};

// Cuts [low, high], characters of equal length in UTF-8, into products of byte ranges.
void add_ranges(char32_t low, char32_t high, size_t length, std::vector<ByteRanges>* out) {
  for (size_t tail = 1; tail < length; ++tail) {
    // The last `tail` bytes must cover all continuations, unless the bytes before them are equal.
    const char32_t mask = (char32_t{1} << (6 * tail)) - 1;
    if ((low & ~mask) == (high & ~mask)) continue;
    if ((low & mask) != 0) {
      add_ranges(low, low | mask, length, out);
      return add_ranges((low | mask) + 1, high, length, out);
    }
    if ((high & mask) != mask) {
      add_ranges(low, (high & ~mask) - 1, length, out);
      return add_ranges(high & ~mask, high, length, out);
    }
  }
  std::string first;
  std::string last;
  append_utf8(low, &first);
  append_utf8(high, &last);
  ByteRanges product;
  product.length = length;
  for (size_t i = 0; i < length; ++i) {
    product.ranges[i] = {static_cast<uint8_t>(first[i]), static_cast<uint8_t>(last[i])};
  }
  out->push_back(product);
}

std::vector<ByteRanges> utf8_ranges(const CodePoints& set) {
  static constexpr std::pair<char32_t, char32_t> kLengths[] = {
      {0, 0x7F}, {0x80, 0x7FF}, {0x800, 0xD7FF}, {0xE000, 0xFFFF}, {0x10000, kLast}};
  std::vector<ByteRanges> out;
  for (const auto& [low, high] : set) {
    for (const auto& [first, last] : kLengths) {
      const char32_t from = std::max(low, first);
      const char32_t to = std::min(high, last);
      if (from > to) continue;
      add_ranges(from, to, first < 0x80 ? 1 : first < 0x800 ? 2 : first < 0x10000 ? 3 : 4, &out);
    }
  }
  return out;
}

}  // namespace

CodePoints normalize(CodePoints ranges) {
  std::sort(ranges.begin(), ranges.end());
  CodePoints out;
  for (const auto& range : ranges) {
    if (!out.empty() && range.first <= out.back().second + 1) {
      out.back().second = std::max(out.back().second, range.second);
    } else {
      out.push_back(range);
    }
  }
  return out;
}

CodePoints complement(const CodePoints& ranges) {
  CodePoints out;
  char32_t next = 0;
  for (const auto& [low, high] : ranges) {
    if (low > next) out.emplace_back(next, low - 1);
    next = high + 1;
  }
  if (next <= kLast) out.emplace_back(next, kLast);
  return out;
}

CodePoints intersect(const CodePoints& a, const CodePoints& b) {
  CodePoints out;
  for (const auto& [low, high] : a) {
    for (const auto& [first, last] : b) {
      if (std::max(low, first) <= std::min(high, last))
        out.emplace_back(std::max(low, first), std::min(high, last));
    }
  }
  return normalize(std::move(out));
}

int32_t GrammarBuilder::state() {
  automaton_.states.emplace_back();
  return static_cast<int32_t>(automaton_.states.size()) - 1;
}

void GrammarBuilder::link(int32_t from, int32_t to) {
  automaton_.states[static_cast<size_t>(from)].edges.push_back({Kind::kEmpty, 0, 0, 0, to});
}

Fragment GrammarBuilder::empty() {
  const int32_t only = state();
  return {only, only};
}

Fragment GrammarBuilder::byte_range(uint8_t low, uint8_t high) {
  const Fragment part{state(), state()};
  automaton_.states[static_cast<size_t>(part.in)].edges.push_back({Kind::kByte, low, high, 0, part.out});
  return part;
}

Fragment GrammarBuilder::literal(std::string_view bytes) {
  Fragment part = empty();
  for (char c : bytes) {
    const int32_t next = state();
    const auto byte = static_cast<uint8_t>(c);
    automaton_.states[static_cast<size_t>(part.out)].edges.push_back({Kind::kByte, byte, byte, 0, next});
    part.out = next;
  }
  return part;
}

Fragment GrammarBuilder::token(int32_t id) {
  const Fragment part{state(), state()};
  automaton_.states[static_cast<size_t>(part.in)].edges.push_back({Kind::kToken, 0, 0, id, part.out});
  return part;
}

Fragment GrammarBuilder::characters(const CodePoints& set) {
  const Fragment part{state(), state()};
  for (const ByteRanges& product : utf8_ranges(set)) {
    int32_t at = part.in;
    for (size_t i = 0; i < product.length; ++i) {
      const int32_t next = i + 1 == product.length ? part.out : state();
      automaton_.states[static_cast<size_t>(at)].edges.push_back(
          {Kind::kByte, product.ranges[i].first, product.ranges[i].second, 0, next});
      at = next;
    }
  }
  return part;
}

Fragment GrammarBuilder::sequence(std::vector<Fragment> parts) {
  if (parts.empty()) return empty();
  for (size_t i = 1; i < parts.size(); ++i) link(parts[i - 1].out, parts[i].in);
  return {parts.front().in, parts.back().out};
}

Fragment GrammarBuilder::choice(std::vector<Fragment> options) {
  if (options.size() == 1) return options[0];
  const Fragment whole{state(), state()};
  for (const Fragment& option : options) {
    link(whole.in, option.in);
    link(option.out, whole.out);
  }
  return whole;
}

Fragment GrammarBuilder::optional(Fragment part) {
  const Fragment whole{state(), state()};
  link(whole.in, part.in);
  link(whole.in, whole.out);
  link(part.out, whole.out);
  return whole;
}

Fragment GrammarBuilder::star(Fragment part) {
  const int32_t hub = state();
  link(hub, part.in);
  link(part.out, hub);
  return {hub, hub};
}

int32_t GrammarBuilder::declare_rule(std::string name) {
  automaton_.rules.push_back({std::move(name), -1});
  ends_.push_back(-1);
  return static_cast<int32_t>(automaton_.rules.size()) - 1;
}

void GrammarBuilder::define_rule(int32_t rule, Fragment body) {
  // States of its own: a fragment's way in may be entered again from inside, its way out left again.
  const Fragment whole{state(), state()};
  link(whole.in, body.in);
  link(body.out, whole.out);
  automaton_.rules[static_cast<size_t>(rule)].start = whole.in;
  ends_[static_cast<size_t>(rule)] = whole.out;
}

Fragment GrammarBuilder::call(int32_t rule) {
  const Fragment part{state(), state()};
  automaton_.states[static_cast<size_t>(part.in)].edges.push_back({Kind::kCall, 0, 0, rule, part.out});
  return part;
}

namespace {

// Replaces empty edges by the edges behind them and keeps the reachable states.
class Condenser {
 public:
  explicit Condenser(const Automaton& from, const std::vector<int32_t>& ends) : from_(from) {
    is_end_.resize(from.states.size());
    for (int32_t end : ends) is_end_[static_cast<size_t>(end)] = true;
    place_.assign(from.states.size(), -1);
    seen_.assign(from.states.size(), 0);
  }

  Automaton run(int32_t root) {
    out_.root = root;
    out_.rules = from_.rules;
    std::vector<int32_t> rules = {root};
    std::vector<bool> known(from_.rules.size());
    known[static_cast<size_t>(root)] = true;
    for (size_t i = 0; i < rules.size(); ++i) {
      GrammarRule& rule = out_.rules[static_cast<size_t>(rules[i])];
      rule.start = place(rule.start);
      while (next_ < work_.size()) {
        const int32_t state = work_[next_++];
        GrammarState condensed = condense(state);
        for (GrammarEdge& edge : condensed.edges) {
          edge.target = place(edge.target);
          if (edge.kind != Kind::kCall || known[static_cast<size_t>(edge.argument)]) continue;
          known[static_cast<size_t>(edge.argument)] = true;
          rules.push_back(edge.argument);
        }
        out_.states[static_cast<size_t>(place_[static_cast<size_t>(state)])] = std::move(condensed);
      }
    }
    return std::move(out_);
  }

 private:
  int32_t place(int32_t state) {
    int32_t& place = place_[static_cast<size_t>(state)];
    if (place < 0) {
      place = static_cast<int32_t>(out_.states.size());
      out_.states.emplace_back();
      work_.push_back(state);
    }
    return place;
  }

  GrammarState condense(int32_t state) {
    GrammarState out;
    ++mark_;
    std::vector<int32_t> stack = {state};
    seen_[static_cast<size_t>(state)] = mark_;
    while (!stack.empty()) {
      const int32_t at = stack.back();
      stack.pop_back();
      if (is_end_[static_cast<size_t>(at)]) out.end = true;
      for (const GrammarEdge& edge : from_.states[static_cast<size_t>(at)].edges) {
        if (edge.kind != Kind::kEmpty) {
          out.edges.push_back(edge);
        } else if (seen_[static_cast<size_t>(edge.target)] != mark_) {
          seen_[static_cast<size_t>(edge.target)] = mark_;
          stack.push_back(edge.target);
        }
      }
    }
    return out;
  }

  const Automaton& from_;
  Automaton out_;
  std::vector<bool> is_end_;
  std::vector<int32_t> place_;
  std::vector<uint32_t> seen_;
  uint32_t mark_ = 0;
  std::vector<int32_t> work_;
  size_t next_ = 0;
};

// Which rules can match nothing, and which can come to an end at all.
struct RuleFacts {
  std::vector<bool> nullable;
  std::vector<bool> ending;
};

// States from which the rule's end is reached, by edges that `passes`.
template <class Passes>
std::vector<bool> reaching_end(const Automaton& automaton, Passes passes) {
  std::vector<std::vector<int32_t>> before(automaton.states.size());
  std::vector<int32_t> stack;
  std::vector<bool> reached(automaton.states.size());
  for (size_t s = 0; s < automaton.states.size(); ++s) {
    for (const GrammarEdge& edge : automaton.states[s].edges) {
      if (passes(edge)) before[static_cast<size_t>(edge.target)].push_back(static_cast<int32_t>(s));
    }
    if (automaton.states[s].end) {
      reached[s] = true;
      stack.push_back(static_cast<int32_t>(s));
    }
  }
  while (!stack.empty()) {
    const int32_t at = stack.back();
    stack.pop_back();
    for (int32_t from : before[static_cast<size_t>(at)]) {
      if (reached[static_cast<size_t>(from)]) continue;
      reached[static_cast<size_t>(from)] = true;
      stack.push_back(from);
    }
  }
  return reached;
}

// Grows `facts` until nothing changes: each round takes calls of the rules known so far as passable.
std::vector<bool> fixed_point(const Automaton& automaton, bool bytes_pass) {
  std::vector<bool> known(automaton.rules.size());
  for (;;) {
    const std::vector<bool> reached = reaching_end(automaton, [&](const GrammarEdge& edge) {
      return edge.kind == Kind::kCall ? known[static_cast<size_t>(edge.argument)] : bytes_pass;
    });
    bool changed = false;
    for (size_t r = 0; r < known.size(); ++r) {
      const int32_t start = automaton.rules[r].start;
      if (known[r] || start < 0 || static_cast<size_t>(start) >= reached.size() ||
          !reached[static_cast<size_t>(start)])
        continue;
      known[r] = true;
      changed = true;
    }
    if (!changed) return known;
  }
}

// Removes edges that lead nowhere, so that what is allowed can always be finished.
void drop_dead_ends(Automaton* automaton, const std::vector<bool>& ending) {
  const std::vector<bool> alive = reaching_end(*automaton, [&](const GrammarEdge& edge) {
    return edge.kind != Kind::kCall || ending[static_cast<size_t>(edge.argument)];
  });
  for (GrammarState& state : automaton->states) {
    std::erase_if(state.edges, [&](const GrammarEdge& edge) {
      return !alive[static_cast<size_t>(edge.target)] ||
             (edge.kind == Kind::kCall && !ending[static_cast<size_t>(edge.argument)]);
    });
  }
}

// A rule that can call itself before it reads anything; -1: none.
int32_t left_recursive_rule(const Automaton& automaton, const std::vector<bool>& nullable) {
  // The rules that each rule can call first.
  std::vector<std::vector<int32_t>> first(automaton.rules.size());
  for (size_t r = 0; r < automaton.rules.size(); ++r) {
    const int32_t start = automaton.rules[r].start;
    if (start < 0 || static_cast<size_t>(start) >= automaton.states.size()) continue;
    std::vector<int32_t> stack = {start};
    std::vector<bool> seen(automaton.states.size());
    seen[static_cast<size_t>(start)] = true;
    while (!stack.empty()) {
      const int32_t at = stack.back();
      stack.pop_back();
      for (const GrammarEdge& edge : automaton.states[static_cast<size_t>(at)].edges) {
        if (edge.kind != Kind::kCall) continue;
        first[r].push_back(edge.argument);
        if (!nullable[static_cast<size_t>(edge.argument)] || seen[static_cast<size_t>(edge.target)]) continue;
        seen[static_cast<size_t>(edge.target)] = true;
        stack.push_back(edge.target);
      }
    }
  }
  // A cycle, by removing rules whose first calls are all removed.
  std::vector<bool> free(automaton.rules.size());
  for (bool changed = true; changed;) {
    changed = false;
    for (size_t r = 0; r < first.size(); ++r) {
      if (free[r]) continue;
      free[r] = std::all_of(first[r].begin(), first[r].end(),
                            [&](int32_t called) { return free[static_cast<size_t>(called)]; });
      changed = changed || free[r];
    }
  }
  for (size_t r = 0; r < free.size(); ++r) {
    if (!free[r]) return static_cast<int32_t>(r);
  }
  return -1;
}

}  // namespace

Result<Automaton> GrammarBuilder::finish(int32_t root) {
  if (too_large()) {
    return error(ErrorCode::kInvalidArgument, "the grammar has more than {} states: make it smaller",
                 kMaxStates);
  }
  for (const GrammarRule& rule : automaton_.rules) {
    if (rule.start < 0) return error(ErrorCode::kInvalidArgument, "rule '{}' is not defined", rule.name);
  }
  Automaton automaton = Condenser(automaton_, ends_).run(root);
  size_t edges = 0;
  for (const GrammarState& state : automaton.states) edges += state.edges.size();
  if (edges > 8 * kMaxStates) {
    return error(ErrorCode::kInvalidArgument, "the grammar has more than {} edges: make it smaller",
                 8 * kMaxStates);
  }
  // Rules that nothing calls were not condensed; their starts mean nothing.
  std::vector<bool> used(automaton.rules.size());
  used[static_cast<size_t>(root)] = true;
  for (const GrammarState& state : automaton.states) {
    for (const GrammarEdge& edge : state.edges) {
      if (edge.kind == Kind::kCall) used[static_cast<size_t>(edge.argument)] = true;
    }
  }
  for (size_t r = 0; r < used.size(); ++r) {
    if (!used[r]) automaton.rules[r].start = -1;
  }
  const std::vector<bool> ending = fixed_point(automaton, true);
  if (!ending[static_cast<size_t>(root)]) {
    return error(ErrorCode::kInvalidArgument, "no text can match the grammar");
  }
  drop_dead_ends(&automaton, ending);
  const int32_t recursive = left_recursive_rule(automaton, fixed_point(automaton, false));
  if (recursive >= 0) {
    return error(ErrorCode::kInvalidArgument, "rule '{}' can begin with itself (left recursion): rewrite it",
                 automaton.rules[static_cast<size_t>(recursive)].name);
  }
  return automaton;
}

}  // namespace fathom::text
