#include "text/grammar/grammar_builder.h"

#include <algorithm>
#include <array>
#include <map>
#include <set>
#include <utility>

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
  add_edge(from, {Kind::kEmpty, 0, 0, 0, to});
}

Fragment GrammarBuilder::empty() {
  const int32_t only = state();
  return {only, only};
}

Fragment GrammarBuilder::byte_range(uint8_t low, uint8_t high) {
  const Fragment part{state(), state()};
  add_edge(part.in, {Kind::kByte, low, high, 0, part.out});
  return part;
}

Fragment GrammarBuilder::literal(std::string_view bytes) {
  Fragment part = empty();
  for (char c : bytes) {
    const int32_t next = state();
    const auto byte = static_cast<uint8_t>(c);
    add_edge(part.out, {Kind::kByte, byte, byte, 0, next});
    part.out = next;
  }
  return part;
}

Fragment GrammarBuilder::any_literal(const std::vector<std::string>& texts) {
  const Fragment whole{state(), state()};
  std::map<std::pair<int32_t, uint8_t>, int32_t> next;
  std::set<int32_t> ends;
  for (const std::string& text : texts) {
    int32_t at = whole.in;
    for (const char c : text) {
      const auto byte = static_cast<uint8_t>(c);
      const auto [it, added] = next.try_emplace({at, byte}, -1);
      if (added) {
        it->second = state();
        add_edge(at, {Kind::kByte, byte, byte, 0, it->second});
      }
      at = it->second;
    }
    if (ends.insert(at).second) link(at, whole.out);
  }
  return whole;
}

Fragment GrammarBuilder::token(int32_t id) {
  const Fragment part{state(), state()};
  add_edge(part.in, {Kind::kToken, 0, 0, id, part.out});
  return part;
}

Fragment GrammarBuilder::characters(const CodePoints& set) {
  const Fragment part{state(), state()};
  for (const ByteRanges& product : utf8_ranges(set)) {
    int32_t at = part.in;
    for (size_t i = 0; i < product.length; ++i) {
      const int32_t next = i + 1 == product.length ? part.out : state();
      add_edge(at, {Kind::kByte, product.ranges[i].first, product.ranges[i].second, 0, next});
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
  add_edge(part.in, {Kind::kCall, 0, 0, rule, part.out});
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

  // Stops early when there is too much; too_large() then.
  Automaton run(int32_t root) {
    out_.root = root;
    out_.rules = from_.rules;
    std::vector<int32_t> rules = {root};
    std::vector<bool> known(from_.rules.size());
    known[static_cast<size_t>(root)] = true;
    for (size_t i = 0; i < rules.size(); ++i) {
      GrammarRule& rule = out_.rules[static_cast<size_t>(rules[i])];
      rule.start = place(rule.start);
      while (next_ < work_.size() && !too_large()) {
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
  bool too_large() const { return visited_ > kMaxVisited || edges_ > kMaxEdges; }

 private:
  // A chain of n optional parts has n * n / 2 ways from one to another.
  static constexpr size_t kMaxVisited = 20'000'000;
  static constexpr size_t kMaxEdges = 8 * GrammarBuilder::kMaxStates;

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
      ++visited_;
      if (is_end_[static_cast<size_t>(at)]) out.end = true;
      for (const GrammarEdge& edge : from_.states[static_cast<size_t>(at)].edges) {
        if (edge.kind != Kind::kEmpty) {
          ++edges_;
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
  size_t visited_ = 0, edges_ = 0;
};

// Which states come to their rule's end, and which rules to an end at all: over edges that read bytes or
// tokens only where `reading`, and over calls of rules that come to an end themselves.
struct Ending {
  std::vector<bool> states, rules;
};
Ending find_ending(const Automaton& automaton, bool reading) {
  std::vector<std::vector<const GrammarEdge*>> into(automaton.states.size());
  std::vector<std::vector<int32_t>> from(automaton.states.size());
  std::vector<std::vector<size_t>> started_by(automaton.states.size());  // the rules that begin at a state
  for (size_t s = 0; s < automaton.states.size(); ++s) {
    for (const GrammarEdge& edge : automaton.states[s].edges) {
      if (edge.kind != Kind::kCall && !reading) continue;
      into[static_cast<size_t>(edge.target)].push_back(&edge);
      from[static_cast<size_t>(edge.target)].push_back(static_cast<int32_t>(s));
    }
  }
  for (size_t r = 0; r < automaton.rules.size(); ++r) {
    const int32_t start = automaton.rules[r].start;
    if (start >= 0 && static_cast<size_t>(start) < automaton.states.size())
      started_by[static_cast<size_t>(start)].push_back(r);
  }
  Ending ending{std::vector<bool>(automaton.states.size()), std::vector<bool>(automaton.rules.size())};
  std::vector<std::vector<int32_t>> waiting(automaton.rules.size());  // states that end once the rule does
  std::vector<int32_t> work;
  const auto reach = [&](int32_t state) {
    if (ending.states[static_cast<size_t>(state)]) return;
    ending.states[static_cast<size_t>(state)] = true;
    work.push_back(state);
  };
  for (size_t s = 0; s < automaton.states.size(); ++s) {
    if (automaton.states[s].end) reach(static_cast<int32_t>(s));
  }
  while (!work.empty()) {
    const auto at = static_cast<size_t>(work.back());
    work.pop_back();
    for (size_t i = 0; i < into[at].size(); ++i) {
      const GrammarEdge& edge = *into[at][i];
      if (edge.kind != Kind::kCall || ending.rules[static_cast<size_t>(edge.argument)]) {
        reach(from[at][i]);
      } else {
        waiting[static_cast<size_t>(edge.argument)].push_back(from[at][i]);
      }
    }
    for (const size_t rule : started_by[at]) {
      ending.rules[rule] = true;
      for (const int32_t state : std::exchange(waiting[rule], {})) reach(state);
    }
  }
  return ending;
}

// Removes edges that lead nowhere, so that what is allowed can always be finished.
void drop_dead_ends(Automaton* automaton, const Ending& ending) {
  for (GrammarState& state : automaton->states) {
    std::erase_if(state.edges, [&](const GrammarEdge& edge) {
      return !ending.states[static_cast<size_t>(edge.target)] ||
             (edge.kind == Kind::kCall && !ending.rules[static_cast<size_t>(edge.argument)]);
    });
  }
}

void number_byte_classes(Automaton* automaton) {
  std::array<bool, 257> border{};
  for (const GrammarState& state : automaton->states) {
    for (const GrammarEdge& edge : state.edges) {
      if (edge.kind != Kind::kByte) continue;
      border[edge.low] = true;
      border[edge.high + 1] = true;
    }
  }
  int32_t number = 0;
  for (size_t byte = 0; byte < 256; ++byte) {
    if (byte > 0 && border[byte]) ++number;
    automaton->byte_class[byte] = static_cast<uint8_t>(number);
  }
  automaton->num_classes = number + 1;
}

// The rules that a rule can call before it reads anything.
std::vector<std::vector<int32_t>> first_calls(const Automaton& automaton, const std::vector<bool>& nullable) {
  std::vector<std::vector<int32_t>> first(automaton.rules.size());
  std::vector<size_t> seen(automaton.states.size(), SIZE_MAX);  // by which rule
  for (size_t r = 0; r < automaton.rules.size(); ++r) {
    const int32_t start = automaton.rules[r].start;
    if (start < 0 || static_cast<size_t>(start) >= automaton.states.size()) continue;
    std::vector<int32_t> stack = {start};
    seen[static_cast<size_t>(start)] = r;
    while (!stack.empty()) {
      const int32_t at = stack.back();
      stack.pop_back();
      for (const GrammarEdge& edge : automaton.states[static_cast<size_t>(at)].edges) {
        if (edge.kind != Kind::kCall) continue;
        first[r].push_back(edge.argument);
        if (!nullable[static_cast<size_t>(edge.argument)] || seen[static_cast<size_t>(edge.target)] == r)
          continue;
        seen[static_cast<size_t>(edge.target)] = r;
        stack.push_back(edge.target);
      }
    }
  }
  return first;
}

// A rule that can call itself before it reads anything; -1: none.
int32_t left_recursive_rule(const Automaton& automaton, const std::vector<bool>& nullable) {
  const auto first = first_calls(automaton, nullable);
  // Rules whose first calls are all free of it are free as well; what remains has a cycle.
  std::vector<std::vector<int32_t>> callers(first.size());
  std::vector<size_t> open(first.size());
  std::vector<int32_t> free;
  for (size_t r = 0; r < first.size(); ++r) {
    open[r] = first[r].size();
    for (const int32_t called : first[r])
      callers[static_cast<size_t>(called)].push_back(static_cast<int32_t>(r));
    if (open[r] == 0) free.push_back(static_cast<int32_t>(r));
  }
  for (size_t i = 0; i < free.size(); ++i) {
    for (const int32_t caller : callers[static_cast<size_t>(free[i])]) {
      if (--open[static_cast<size_t>(caller)] == 0) free.push_back(caller);
    }
  }
  const auto found = std::find_if(open.begin(), open.end(), [](size_t calls) { return calls > 0; });
  return found == open.end() ? -1 : static_cast<int32_t>(found - open.begin());
}

}  // namespace

Result<Automaton> GrammarBuilder::finish(int32_t root) {
  const auto refused = [] {
    return error(
        ErrorCode::kInvalidArgument,
        "the grammar is too large: more than {} states, {} edges, or optional parts in a row that make "
        "as many; make it smaller",
        kMaxStates, kMaxEdges);
  };
  if (too_large()) return refused();
  for (const GrammarRule& rule : automaton_.rules) {
    if (rule.start < 0) return error(ErrorCode::kInvalidArgument, "rule '{}' is not defined", rule.name);
  }
  Condenser condenser(automaton_, ends_);
  Automaton automaton = condenser.run(root);
  if (condenser.too_large()) return refused();
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
  const Ending ending = find_ending(automaton, true);
  if (!ending.rules[static_cast<size_t>(root)]) {
    return error(ErrorCode::kInvalidArgument, "no text can match the grammar");
  }
  drop_dead_ends(&automaton, ending);
  const int32_t recursive = left_recursive_rule(automaton, find_ending(automaton, false).rules);
  if (recursive >= 0) {
    return error(ErrorCode::kInvalidArgument, "rule '{}' can begin with itself (left recursion): rewrite it",
                 automaton.rules[static_cast<size_t>(recursive)].name);
  }
  number_byte_classes(&automaton);
  return automaton;
}

}  // namespace fathom::text
