// pattern.h: parse_ebnf.
#include "text/grammar/pattern_parser.h"
#include "text/tokenizer/utf8.h"

namespace fathom::text {
namespace {

bool is_name(char32_t c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' || c == '-';
}

class EbnfParser : private PatternParser {
 public:
  explicit EbnfParser(std::string_view text) : PatternParser(text) {}

  Result<std::map<std::string, Pattern>> run() {
    std::map<std::string, Pattern> rules;
    for (skip_blanks(); !at_end(); skip_blanks()) {
      const std::string name = take_name();
      skip_blanks();
      if (name.empty() || !take_if(':') || !take_if(':') || !take_if('=')) {
        fail("expected a rule, \"name ::= ...\"");
        break;
      }
      Pattern body = take_choice(0);
      if (!rules.emplace(name, std::move(body)).second) fail("rule '" + name + "' is defined twice");
    }
    if (error_) return error_->with_context("EBNF");
    return rules;
  }

 private:
  void skip_blanks() {
    while (!at_end()) {
      if (peek() == '#') {
        while (!at_end() && peek() != '\n') take();
      } else if (peek() == ' ' || peek() == '\t' || peek() == '\n' || peek() == '\r') {
        take();
      } else {
        return;
      }
    }
  }

  std::string take_name() {
    std::string name;
    while (is_name(peek())) append_utf8(take(), &name);
    return name;
  }

  // The beginning of the next rule?
  bool at_rule() const {
    size_t ahead = 0;
    while (is_name(peek(ahead))) ++ahead;
    if (ahead == 0) return false;
    while (peek(ahead) == ' ' || peek(ahead) == '\t') ++ahead;
    return peek(ahead) == ':' && peek(ahead + 1) == ':' && peek(ahead + 2) == '=';
  }

  Pattern take_choice(int depth) {
    Pattern choice;
    choice.kind = Pattern::Kind::kChoice;
    if (depth > kMaxDepth) fail("groups are nested too deeply");
    do {
      choice.children.push_back(take_sequence(depth));
    } while (take_if('|'));
    return choice;
  }

  Pattern take_sequence(int depth) {
    Pattern sequence;
    for (skip_blanks(); !at_end() && peek() != '|' && peek() != ')' && !at_rule(); skip_blanks()) {
      Pattern item = take_item(depth);
      take_count(&item);
      sequence.children.push_back(std::move(item));
    }
    return sequence;
  }

  Pattern take_item(int depth) {
    Pattern item;
    item.kind = Pattern::Kind::kSet;
    if (is_name(peek())) {
      item.kind = Pattern::Kind::kRule;
      item.rule = take_name();
      return item;
    }
    const char32_t c = take();
    if (c == '(') {
      item = take_choice(depth + 1);
      if (!take_if(')')) fail("a group has no )");
    } else if (c == '[') {
      item.set = take_class();
    } else if (c == '.') {
      item.set = {{0, 0x10FFFF}};
    } else if (c == '"' || c == '\'') {
      item = take_literal(c);
    } else {
      fail("expected a rule's name, a \"literal\", a [class] or a (group)");
    }
    return item;
  }

  Pattern take_literal(char32_t quote) {
    Pattern sequence;
    while (!at_end() && peek() != quote) {
      Pattern& item = sequence.children.emplace_back();
      item.kind = Pattern::Kind::kSet;
      bool single = true;
      if (take_if('\\')) {
        item.set = take_escape(&single);
      } else {
        const char32_t c = take();
        item.set = {{c, c}};
      }
    }
    if (!take_if(quote)) fail("a literal has no closing quote");
    return sequence;
  }
};

}  // namespace

Result<std::map<std::string, Pattern>> parse_ebnf(std::string_view text) {
  return EbnfParser(text).run();
}

}  // namespace fathom::text
