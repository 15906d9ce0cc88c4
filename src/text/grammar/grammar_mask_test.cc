// Which tokens a grammar allows: that random allowed tokens make texts that it reads, and that the shortcuts
// say what trying every token says.
#include <gtest/gtest.h>

#include <random>

#include "base/clock.h"
#include "text/grammar/grammar.h"
#include "text/grammar/grammars.h"
#include "text/grammar/testing.h"

namespace fathom::text {
namespace {

using nlohmann::ordered_json;

bool allows(const std::vector<uint64_t>& allowed, int32_t token) {
  return (allowed[static_cast<size_t>(token) / 64] >> (token % 64) & 1) != 0;
}

// Draws allowed tokens until the end; the text they make.
std::string random_output(const std::shared_ptr<Grammar>& grammar, std::mt19937_64& random, int max_tokens) {
  const auto mask = GrammarMaskSource(grammar, -1).begin();
  std::vector<uint64_t> allowed(num_mask_words(demo().vocab_size()));
  std::string text;
  for (int i = 0;; ++i) {
    EXPECT_TRUE(mask->fill(allowed).ok());
    std::vector<int32_t> tokens;
    for (int32_t t = 0; t < demo().vocab_size(); ++t) {
      if (allows(allowed, t)) tokens.push_back(t);
    }
    const bool may_end = std::find(tokens.begin(), tokens.end(), kEos) != tokens.end();
    if (may_end && (i >= max_tokens || random() % 4 == 0 || tokens.size() == 1)) return text;
    if (tokens.empty() || i > 20 * max_tokens) return text + "<endless>";
    // Late in the text prefer short ways out: tokens that are one closing character.
    int32_t token = tokens[random() % tokens.size()];
    if (i > max_tokens) {
      std::vector<int32_t> ways_out;
      for (int32_t t : tokens) {
        const std::string_view bytes = demo().token_bytes(t);
        if (bytes == "\"" || bytes == "}" || bytes == "]") ways_out.push_back(t);
      }
      if (!ways_out.empty()) token = ways_out[random() % ways_out.size()];
    }
    if (token == kEos) return text;
    text += demo().token_bytes(token);
    mask->accept(token);
  }
}

TEST(GrammarMask, RandomAllowedTokensMakeTextsThatItReads) {
  std::mt19937_64 random(11);
  const char* schemas[] = {
      R"({"type": "object", "properties": {"name": {"type": "string"}, "n": {"type": "number"}}, "required": ["name"]})",
      R"({"type": "array", "items": {"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, "minItems": 1})",
      R"({"type": "object", "additionalProperties": {"type": "array"}})",
      R"({"enum": ["red", "green", {"a": [1]}]})", R"({"type": "string", "pattern": "^[a-c]{2,8}$"})"};
  for (const char* text : schemas) {
    const Automaton automaton = schema(text);
    const auto grammar = std::make_shared<Grammar>(demo_tokens(), schema(text));
    for (int round = 0; round < 20; ++round) {
      const std::string output = random_output(grammar, random, 30);
      ASSERT_TRUE(matches(automaton, output)) << text << "\n" << output;
      ASSERT_TRUE(ordered_json::accept(output)) << output;
    }
  }
}

// The masks' shortcuts (layers, plain characters, shared shapes) must say what trying every token says.
void compare_with_trying(const Automaton& automaton, int rounds, std::mt19937_64& random) {
  const auto grammar = std::make_shared<Grammar>(demo_tokens(), automaton);
  for (int round = 0; round < rounds; ++round) {
    const auto mask = GrammarMaskSource(grammar, -1).begin();
    std::vector<uint64_t> allowed(num_mask_words(demo().vocab_size()));
    Configurations configurations(automaton);
    int32_t at = configurations.at(Configurations::kBottom,
                                   automaton.rules[static_cast<size_t>(automaton.root)].start);
    for (int i = 0; i < 40; ++i) {
      ASSERT_TRUE(mask->fill(allowed).ok());
      std::vector<int32_t> tokens;
      for (int32_t t = 0; t < demo().vocab_size(); ++t) {
        int32_t next = at;
        const std::string_view bytes = demo().token_bytes(t);
        if (demo().is_added(t) || bytes.empty()) next = Configurations::kDead;
        for (char byte : bytes) {
          if (next != Configurations::kDead) next = configurations.next(next, static_cast<uint8_t>(byte));
        }
        const bool good = t == kEos ? configurations.ended(at) : next != Configurations::kDead;
        ASSERT_EQ(allows(allowed, t), good) << "'" << bytes << "'";
        if (good && t != kEos) tokens.push_back(t);
        // Trying a token leaves no trace.
        const bool taken = i % 8 == 0 && mask->accept(t);
        ASSERT_EQ(taken, good && i % 8 == 0) << bytes;
        if (taken) mask->rollback(1);
      }
      if (tokens.empty()) break;
      const int32_t token = tokens[random() % tokens.size()];
      ASSERT_TRUE(mask->accept(token));
      for (char byte : demo().token_bytes(token)) at = configurations.next(at, static_cast<uint8_t>(byte));
    }
  }
}

TEST(GrammarMask, IsWhatTryingEveryTokenSays) {
  std::mt19937_64 random(5);
  const char* schemas[] = {
      R"({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}},
          "b": {"type": "string"}, "c": {"type": ["object", "null"]}}, "required": ["a", "c"]})",
      R"({"type": "array", "items": {"type": "string", "minLength": 3, "maxLength": 9}})",
      R"({"type": "array", "items": {"type": "string", "maxLength": 300}})",
      R"({"type": "object", "additionalProperties": {"enum": ["red", "green", "greenish", 12, "é", {"a": [1]}]}})",
      R"({"type": "array", "items": {"type": "string", "pattern": "^[a-zé]+( \\d{1,3})?$"}})",
      R"({"$ref": "#/$defs/n", "$defs": {"n": {"type": "array", "items": {"anyOf": [{"$ref": "#/$defs/n"},
          {"type": "object", "properties": {"x": {"$ref": "#/$defs/n"}, "y": {}}}]}}}})",
      R"({"type": "object", "properties": {"t": {"format": "date-time"}, "n": {"type": "number", "minimum": -3.5}}})"};
  for (const char* text : schemas) {
    SCOPED_TRACE(text);
    compare_with_trying(schema(text), 4, random);
  }
  for (const char* regex : {"[^x]*", "(.|\\n)*END", "\\w{2,40}[!?]", "(a|b)*a(a|b){5}"}) {
    SCOPED_TRACE(regex);
    compare_with_trying(regex_grammar(regex).value(), 3, random);
  }
  // Rules that end in the middle of tokens, several at once, and go on in different callers.
  for (const char* ebnf :
       {"root ::= list\nlist ::= \"[\" (item (\",\" item)*)? \"]\"\nitem ::= word | list\nword ::= [a-z]+",
        "root ::= (pair | word) \"!\"\npair ::= word \" \" word\nword ::= letter word?\nletter ::= "
        "[a-zA-Z]"}) {
    SCOPED_TRACE(ebnf);
    compare_with_trying(ebnf_grammar(ebnf).value(), 5, random);
  }
}

TEST(GrammarMask, NestsToALimitAndStaysRight) {
  const Automaton automaton = ebnf_grammar("root ::= \"[\" root \"]\" | \"x\"").value();
  const auto mask = GrammarMaskSource(std::make_shared<Grammar>(demo_tokens(), automaton), -1).begin();
  std::vector<uint64_t> allowed(num_mask_words(demo().vocab_size()));
  int32_t open = demo().encode("[", false)[0];
  int depth = 0;
  for (; depth < 2000; ++depth) {
    ASSERT_TRUE(mask->fill(allowed).ok());
    for (int32_t t = 0; t < demo().vocab_size() && depth % 16 == 0; ++t) {
      ASSERT_EQ(mask->accept(t), allows(allowed, t)) << depth << ": '" << demo().token_bytes(t) << "'";
      if (allows(allowed, t)) mask->rollback(1);
    }
    if (!mask->accept(open)) break;
  }
  EXPECT_GT(depth, 400);
  EXPECT_LE(depth, Configurations::kMaxDepth);
  EXPECT_FALSE(allows(allowed, open));
}

// Grammars that compile, but whose masks cost much: each output may use up a budget, and ends with an error.
TEST(GrammarMask, ACostlyGrammarFailsAlone) {
  std::string rules;
  for (int i = 0; i < 300; ++i) rules += fmt::format("r{} ::= r{} r{} | \"\"\n", i, i + 1, i + 1);
  std::string many = "root ::= ";
  for (int i = 0; i < 3000; ++i)
    many += fmt::format("{}\"x\" [^{}]*", i > 0 ? " | " : "", static_cast<char>('a' + i % 26));
  Result<Automaton> hostile[] = {regex_grammar("((a?){60}){20}[ab]*(a?){300}"),
                                 ebnf_grammar("root ::= r0\n" + rules + "r300 ::= [a-z]?\n"),
                                 ebnf_grammar(many), regex_grammar("(a|b|ab|ba|aa|bb)*c(a|b|ab){200}")};
  for (Result<Automaton>& automaton : hostile) {
    if (!automaton.ok()) continue;
    const auto grammar = std::make_shared<Grammar>(demo_tokens(), std::move(*automaton));
    const auto mask = GrammarMaskSource(grammar, -1).begin();
    std::vector<uint64_t> allowed(num_mask_words(demo().vocab_size()));
    const int64_t start = steady_clock().now_ns();
    std::mt19937_64 random(3);
    for (int i = 0; i < 50 && mask->fill(allowed).ok(); ++i) {
      std::vector<int32_t> tokens;
      for (int32_t t = 0; t < demo().vocab_size(); ++t) {
        if (t != kEos && allows(allowed, t)) tokens.push_back(t);
      }
      if (tokens.empty()) break;
      mask->accept(tokens[random() % tokens.size()]);
    }
    EXPECT_LT(seconds_since(start), 10.0);  // a second at most, but for sanitizers
  }
}

TEST(GrammarMask, TakesBackTokens) {
  std::mt19937_64 random(9);
  const auto grammar = std::make_shared<Grammar>(demo_tokens(), json_object_grammar().value());
  const auto mask = GrammarMaskSource(grammar, -1).begin();
  const size_t words = num_mask_words(demo().vocab_size());
  std::vector<std::vector<uint64_t>> seen = {std::vector<uint64_t>(words)};
  ASSERT_TRUE(mask->fill(seen[0]).ok());
  for (int round = 0; round < 400; ++round) {
    const size_t back = random() % std::min<size_t>(seen.size(), TokenMask::kMaxRollback + 1);
    mask->rollback(static_cast<int>(back));
    seen.resize(seen.size() - back);
    std::vector<uint64_t> now(words);
    ASSERT_TRUE(mask->fill(now).ok());
    ASSERT_EQ(now, seen.back());
    for (int ahead = 0; ahead < 12; ++ahead) {
      std::vector<int32_t> tokens;
      for (int32_t t = 0; t < demo().vocab_size(); ++t) {
        if (t != kEos && allows(seen.back(), t)) tokens.push_back(t);
      }
      if (tokens.empty()) break;
      ASSERT_TRUE(mask->accept(tokens[random() % tokens.size()]));
      ASSERT_TRUE(mask->fill(seen.emplace_back(words)).ok());
    }
  }
}

TEST(GrammarMask, BeginsAfterTheThoughts) {
  const int32_t end = demo().token_to_id("</think>").value();
  std::vector<uint64_t> allowed(num_mask_words(demo().vocab_size()));
  for (const char* regex : {"yes", "(yes)?"}) {
    const auto grammar = std::make_shared<Grammar>(demo_tokens(), regex_grammar(regex).value());
    const auto mask = GrammarMaskSource(grammar, end).begin();
    const bool may_be_empty = regex[0] == '(';
    // An answer that must not be empty may not be left out by ending among the thoughts.
    EXPECT_EQ(mask->constrains(), !may_be_empty);
    ASSERT_TRUE(mask->fill(allowed).ok());
    for (int32_t t = 0; t < demo().vocab_size(); ++t) ASSERT_EQ(allows(allowed, t), t != kEos) << t;
    EXPECT_EQ(mask->accept(kEos), may_be_empty);
    if (may_be_empty) mask->rollback(1);
    for (int32_t token : demo().encode("no yes", false)) EXPECT_TRUE(mask->accept(token));
    EXPECT_TRUE(mask->accept(end));
    EXPECT_TRUE(mask->constrains());
    EXPECT_FALSE(mask->accept(demo().encode("no", false)[0]));
    mask->rollback(2);
    EXPECT_TRUE(mask->accept(demo().encode("no", false)[0]));
  }
}

TEST(GrammarMask, ToolCallsAreForced) {
  ToolGrammar tools;
  tools.format = ToolFormat::kV3;
  tools.required = true;
  tools.tools.push_back({"get_time",
                         ordered_json::parse(R"({"type": "object", "properties": {"city": {"type": "string"}},
                                                            "required": ["city"]})"),
                         false});
  const auto grammar = std::make_shared<Grammar>(demo_tokens(), tool_call_grammar(demo(), tools).value());
  const auto mask = GrammarMaskSource(grammar, -1).begin();
  std::vector<uint64_t> allowed(num_mask_words(demo().vocab_size()));
  const std::string text =
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n"
      "{\"city\": \"Rome\"}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
  for (int32_t token : demo().encode(text, false)) {
    ASSERT_TRUE(mask->fill(allowed).ok());
    ASSERT_TRUE(allows(allowed, token)) << demo().token_bytes(token);
    mask->accept(token);
  }
  ASSERT_TRUE(mask->fill(allowed).ok());
  EXPECT_EQ(allowed[0], uint64_t{1} << kEos);
  tools.format = ToolFormat::kV32;
  EXPECT_FALSE(tool_call_grammar(demo(), tools).ok());
}

}  // namespace
}  // namespace fathom::text
