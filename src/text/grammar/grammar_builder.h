// A grammar as an automaton over bytes: rules, each a nondeterministic automaton whose edges read a byte,
// read a marker token, or call a rule. Built from the inside out: every function gives a fragment to be put
// into a larger one.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/result.h"

namespace fathom::text {

class Tokenizer;

// Ranges of code points, ascending and apart.
using CodePoints = std::vector<std::pair<char32_t, char32_t>>;
CodePoints normalize(CodePoints ranges);
CodePoints complement(const CodePoints& ranges);
CodePoints intersect(const CodePoints& a, const CodePoints& b);

struct GrammarEdge {
  enum class Kind : uint8_t { kByte, kToken, kCall, kEmpty };
  Kind kind = Kind::kEmpty;
  uint8_t low = 0, high = 0;  // kByte: the range
  int32_t argument = 0;       // kToken: the token; kCall: the rule
  int32_t target = 0;
};

struct GrammarState {
  std::vector<GrammarEdge> edges;
  bool end = false;  // of its rule
};

struct GrammarRule {
  std::string name;
  int32_t start = -1;
};

// The finished automaton. Immutable.
struct Automaton {
  std::vector<GrammarState> states;
  std::vector<GrammarRule> rules;
  int32_t root = 0;  // a rule
  // Bytes that no edge tells apart have one class, 0 .. num_classes - 1.
  std::array<uint8_t, 256> byte_class{};
  int32_t num_classes = 1;
};

// A part of an automaton with one way in and one way out. Each fragment is used once.
struct Fragment {
  int32_t in = 0;
  int32_t out = 0;
};

class GrammarBuilder {
 public:
  // A grammar with more than this is refused by finish().
  static constexpr size_t kMaxStates = 200'000;
  static constexpr size_t kMaxEdges = 2'000'000;
  static constexpr int kMaxRepeats = 10'000;

  Fragment empty();
  Fragment byte_range(uint8_t low, uint8_t high);
  Fragment literal(std::string_view bytes);
  Fragment any_literal(const std::vector<std::string>& texts);  // one of them; common beginnings are shared
  Fragment token(int32_t id);
  Fragment characters(const CodePoints& set);  // one character of the set, in UTF-8
  Fragment sequence(std::vector<Fragment> parts);
  Fragment choice(std::vector<Fragment> options);  // at least one
  Fragment optional(Fragment part);
  Fragment star(Fragment part);
  // `make` is called for each copy. max < 0: without end.
  template <class Make>
  Fragment repeat(Make make, int min, int max) {
    Fragment whole = empty();
    for (int i = 0; i < min && !too_large(); ++i) whole = sequence({whole, make()});
    if (max < 0) return sequence({whole, star(make())});
    // Nested, so that a copy is reached in one way only.
    const int32_t out = state();
    link(whole.out, out);
    for (int i = min; i < max && !too_large(); ++i) {
      const Fragment copy = make();
      link(whole.out, copy.in);
      link(copy.out, out);
      whole.out = copy.out;
    }
    return {whole.in, out};
  }

  // For graphs that no expression gives: a state of its own, and a way between states that reads nothing.
  int32_t state();
  void link(int32_t from, int32_t to);

  int32_t declare_rule(std::string name);
  void define_rule(int32_t rule, Fragment body);
  Fragment call(int32_t rule);

  bool too_large() const { return automaton_.states.size() > kMaxStates || edges_ > kMaxEdges; }

  // The automaton with all rules defined, without empty edges. kInvalidArgument when it is too large, a rule
  // calls itself before reading anything, or nothing can match.
  Result<Automaton> finish(int32_t root);

 private:
  void add_edge(int32_t from, GrammarEdge edge) {
    automaton_.states[static_cast<size_t>(from)].edges.push_back(edge);
    ++edges_;
  }

  Automaton automaton_;
  size_t edges_ = 0;
  std::vector<int32_t> ends_;  // by rule: the end state
};

}  // namespace fathom::text
