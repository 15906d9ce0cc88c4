// pattern.h: parse_regex.
#include "text/grammar/pattern_parser.h"

namespace fathom::text {
namespace {

class RegexParser : private PatternParser {
 public:
  explicit RegexParser(std::string_view text) : PatternParser(text) {}

  Result<RegexPattern> run() {
    RegexPattern regex;
    do {
      RegexPattern::Branch& branch = regex.branches.emplace_back();
      branch.from_begin = take_if('^');
      branch.pattern = take_sequence(0);
      branch.to_end = take_if('$');
    } while (take_if('|'));
    if (!at_end()) fail(peek() == ')' ? "a ) without a (" : "^ and $ are only read at the ends");
    if (error_) return error_->with_context("regular expression");
    return regex;
  }

 private:
  Pattern take_sequence(int depth) {
    Pattern sequence;
    if (depth > kMaxDepth) fail("groups are nested too deeply");
    while (!at_end() && peek() != '|' && peek() != ')' && peek() != '$' && peek() != '^') {
      Pattern item = take_atom(depth);
      take_count(&item);
      sequence.children.push_back(std::move(item));
    }
    return sequence;
  }

  Pattern take_group(int depth) {
    if (take_if('?')) {
      const bool named = take_if('P') || peek() == '<';
      if (named && peek() == '<' && peek(1) != '=' && peek(1) != '!') {
        while (!at_end() && take() != '>') {
        }
      } else if (!take_if(':')) {
        fail("look-around and group options are not available");
      }
    }
    Pattern choice;
    choice.kind = Pattern::Kind::kChoice;
    do {
      choice.children.push_back(take_sequence(depth + 1));
      if (peek() == '^' || peek() == '$') fail("^ and $ are only read at the ends");
    } while (take_if('|'));
    if (!take_if(')')) fail("a group has no )");
    return choice;
  }

  Pattern take_atom(int depth) {
    Pattern item;
    item.kind = Pattern::Kind::kSet;
    const char32_t c = take();
    bool single = true;
    switch (c) {
      case '(':
        return take_group(depth);
      case '[':
        item.set = take_class();
        return item;
      case '.':
        item.set = complement({{'\n', '\n'}, {'\r', '\r'}});
        return item;
      case '\\':
        if (peek() >= '1' && peek() <= '9') fail("back references are not available");
        item.set = take_escape(&single);
        return item;
      case '*':
      case '+':
      case '?':
        fail("nothing to repeat");
        return item;
      default:
        item.set = {{c, c}};
        return item;
    }
  }
};

}  // namespace

Result<RegexPattern> parse_regex(std::string_view text) {
  return RegexParser(text).run();
}

}  // namespace fathom::text
