// What grammars read, which tokens they allow, and that random allowed tokens make texts that they read.
#include "text/grammar/grammar.h"

#include <gtest/gtest.h>

#include <random>

#include "base/clock.h"
#include "text/grammar/grammar_cache.h"
#include "text/grammar/grammars.h"

namespace fathom::text {
namespace {

using nlohmann::ordered_json;

constexpr int32_t kEos = 1;

const Tokenizer& demo() {
  static const auto tokenizer = Tokenizer::load(FATHOM_SOURCE_DIR "/models/demo").value();
  return *tokenizer;
}

std::shared_ptr<GrammarTokens> demo_tokens() {
  static const auto tokens = std::make_shared<GrammarTokens>(demo(), std::vector<int32_t>{kEos});
  return tokens;
}

Automaton schema(const char* text) {
  return json_schema_grammar(ordered_json::parse(text)).value();
}

std::string refusal(const char* text) {
  const auto grammar = json_schema_grammar(ordered_json::parse(text));
  return grammar.ok() ? "" : grammar.error().message;
}

TEST(Grammar, ReadsAnyJsonObject) {
  const Automaton object = json_object_grammar().value();
  for (const char* good :
       {"{}", R"({"a": [1, -2.5e3, true, null], "b": {"c": "\u00e9\n"}})", "{\n  \"a\": 1\n}"}) {
    EXPECT_TRUE(matches(object, good)) << good;
  }
  for (const char* bad : {"", "[]", "{", R"({"a" 1})", R"({"a": 01})", R"({"a": "\x"})", R"({"a": 1},)",
                          "{} ", "{      }", "{\"a\": \"\n\"}", R"({"a": "\ud800"})", "{\"a\": \"\xff\"}"}) {
    EXPECT_FALSE(matches(object, bad)) << bad;
  }
}

TEST(Grammar, ReadsWhatTheSchemaAllows) {
  const Automaton person = schema(R"({"type": "object", "properties": {"name": {"type": "string"},
      "age": {"type": "integer", "minimum": 0, "maximum": 150}, "tags": {"type": "array", "items": {"enum": ["a", "b"]},
      "maxItems": 2}}, "required": ["name"], "additionalProperties": false})");
  for (const char* good :
       {R"({"name": "x"})", R"({"name": "x", "age": 150})", R"({"name":"","tags":["a","b"]})"}) {
    EXPECT_TRUE(matches(person, good)) << good;
  }
  for (const char* bad : {"{}", R"({"age": 3})", R"({"name": "x", "age": 151})",
                          R"({"name": "x", "age": -1})", R"({"name": "x", "tags": ["c"]})",
                          R"({"name": "x", "tags": ["a", "a", "a"]})", R"({"name": "x", "y": 1})"}) {
    EXPECT_FALSE(matches(person, bad)) << bad;
  }
}

TEST(Grammar, NumbersKeepTheirBounds) {
  std::mt19937 random(3);
  for (int round = 0; round < 300; ++round) {
    const int a = static_cast<int>(random() % 4001) - 2000;
    const int b = a + static_cast<int>(random() % 1500);
    const Automaton integers =
        json_schema_grammar({{"type", "integer"}, {"minimum", a}, {"exclusiveMaximum", b + 1}}).value();
    const Automaton numbers =
        json_schema_grammar({{"type", "number"}, {"minimum", a / 10.0}, {"maximum", b / 10.0}}).value();
    for (int k = 0; k < 40; ++k) {
      const int x = static_cast<int>(random() % 5000) - 2500;
      ASSERT_EQ(matches(integers, std::to_string(x)), a <= x && x <= b) << x << " in " << a << ".." << b;
      const std::string tenths = fmt::format("{}{}.{}", x < 0 ? "-" : "", std::abs(x) / 10, std::abs(x) % 10);
      ASSERT_EQ(matches(numbers, tenths), a <= x && x <= b) << tenths << " in tenths of " << a << ".." << b;
    }
  }
  EXPECT_TRUE(matches(schema(R"({"type": "number", "exclusiveMinimum": 0})"), "0.5"));
  EXPECT_FALSE(matches(schema(R"({"type": "number", "exclusiveMinimum": 0})"), "0"));
  EXPECT_TRUE(matches(schema(R"({"type": "integer", "maximum": -5})"), "-123"));
  EXPECT_FALSE(matches(schema(R"({"type": "integer", "minimum": 1})"), "-3"));
}

TEST(Grammar, PatternsAreSearchedForAndEscaped) {
  const Automaton inside = schema(R"({"type": "string", "pattern": "b+c"})");
  EXPECT_TRUE(matches(inside, R"("abbcd")"));
  EXPECT_FALSE(matches(inside, R"("abd")"));
  const Automaton whole = schema(R"({"type": "string", "pattern": "^(\\d{2}|[\"\\\\]\\n)$"})");
  EXPECT_TRUE(matches(whole, R"("42")"));
  EXPECT_TRUE(matches(whole, R"("\"\n")"));
  EXPECT_FALSE(matches(whole, R"("423")"));
  EXPECT_TRUE(matches(schema(R"({"type": "string", "format": "date"})"), R"("2026-11-26")"));
  EXPECT_FALSE(matches(schema(R"({"type": "string", "format": "date"})"), R"("2026-13-26")"));
  EXPECT_TRUE(matches(schema(R"({"type": "string", "minLength": 2, "maxLength": 3})"), R"("é\u00e9")"));
  EXPECT_FALSE(matches(schema(R"({"type": "string", "maxLength": 3})"), R"("abcd")"));
}

TEST(Grammar, OtherMembersAreNotTheListedOnes) {
  const Automaton open = schema(R"({"properties": {"a": {"type": "null"}, "ab": {"type": "null"}},
                                    "additionalProperties": {"type": "integer"}})");
  EXPECT_TRUE(matches(open, R"({"a": null, "abc": 1, "b": 2})"));
  EXPECT_FALSE(matches(open, R"({"a": 1})"));
  EXPECT_FALSE(matches(open, R"({"ab": 1})"));
  EXPECT_FALSE(matches(open, R"({"\u0061": 1})"));
}

TEST(Grammar, ReferencesMayRecurse) {
  const Automaton tree = schema(R"({"$ref": "#/$defs/node", "$defs": {"node": {"type": "object", "properties":
      {"value": {"type": "integer"}, "children": {"type": "array", "items": {"$ref": "#/$defs/node"}}},
      "required": ["value", "children"]}}})");
  EXPECT_TRUE(matches(tree, R"({"value": 1, "children": [{"value": 2, "children": []}]})"));
  EXPECT_FALSE(matches(tree, R"({"value": 1, "children": [{}]})"));
}

TEST(Grammar, WhatIsNotEnforcedIsRefusedByName) {
  EXPECT_NE(refusal(R"({"type": "array", "uniqueItems": true})").find("/uniqueItems"), std::string::npos);
  EXPECT_NE(refusal(R"({"properties": {"a": {"not": {}}}})").find("/properties/a/not"), std::string::npos);
  EXPECT_NE(refusal(R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})").find("anyOf"),
            std::string::npos);
  EXPECT_EQ(refusal(R"({"oneOf": [{"type": "integer"}, {"type": "string"}]})"), "");
  EXPECT_NE(refusal(R"({"type": "string", "format": "iri"})").find("'iri'"), std::string::npos);
  EXPECT_NE(refusal(R"({"$ref": "#"})").find("no text"), std::string::npos);
  EXPECT_NE(refusal(R"({"type": "integer", "minimum": 3, "maximum": 2})").find("no text"), std::string::npos);
  EXPECT_NE(refusal(R"x({"type": "string", "pattern": "(?=a)"})x").find("look-around"), std::string::npos);
  EXPECT_NE(refusal(R"({"type": "string", "pattern": "((a{9999}){9999}){9999}"})").find("states"),
            std::string::npos);
}

// What a request can do to the server at worst: be refused, or fail alone, within a bounded time.
TEST(Grammar, HostileGrammarsAreRefusedOrFailAlone) {
  EXPECT_FALSE(regex_grammar("a" + std::string(100'000, '*')).ok());
  EXPECT_FALSE(regex_grammar(std::string(100'000, '(')).ok());
  EXPECT_FALSE(ebnf_grammar("root ::= " + std::string(100'000, '(')).ok());
  std::string deep = "true";
  for (int i = 0; i < 100; ++i) deep = R"({"items": )" + deep + "}";
  EXPECT_NE(refusal(deep.c_str()).find("nested deeper"), std::string::npos);
  EXPECT_FALSE(json_schema_grammar({{"properties", {{std::string(100'000, 'x'), true}}}}).ok());
  std::string rules;
  for (int i = 0; i < 300; ++i) rules += fmt::format("r{} ::= r{} r{} | \"\"\n", i, i + 1, i + 1);
  const auto chain = ebnf_grammar("root ::= r0\n" + rules + "r300 ::= [a-z]?\n");
  for (const Result<Automaton>& automaton : {regex_grammar("((a?){60}){60}[ab]*(a?){3000}"), chain}) {
    if (!automaton.ok()) continue;
    const auto mask = GrammarMaskSource(std::make_shared<Grammar>(demo_tokens(), *automaton), -1).begin();
    std::vector<uint64_t> allowed(num_mask_words(demo().vocab_size()));
    const int64_t start = steady_clock().now_ns();
    const Result<void> filled = mask->fill(allowed);  // an error, or a mask; but soon
    EXPECT_LT(seconds_since(start), 5.0) << (filled.ok() ? "" : filled.error().message);
  }
}

TEST(Grammar, ReadsRegularExpressionsAndEbnf) {
  const Automaton regex = regex_grammar("(yes|no)!?|[^a-z]{2,3}").value();
  for (const char* good : {"yes", "no!", "AB", "é é"}) EXPECT_TRUE(matches(regex, good)) << good;
  for (const char* bad : {"", "yes!!", "A", "ABCD"}) EXPECT_FALSE(matches(regex, bad)) << bad;
  const Automaton sum =
      ebnf_grammar("root ::= term (\" + \" term)*  # a sum\nterm ::= [0-9]+ | \"(\" root \")\"\n").value();
  EXPECT_TRUE(matches(sum, "1 + (22 + 3)"));
  EXPECT_FALSE(matches(sum, "1 + "));
  EXPECT_FALSE(ebnf_grammar("root ::= root \"a\" | \"b\"").ok());
  EXPECT_FALSE(ebnf_grammar("root ::= other").ok());
  EXPECT_FALSE(regex_grammar("(a").ok());
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
      if (allowed[static_cast<size_t>(t) / 64] >> (t % 64) & 1) tokens.push_back(t);
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

TEST(Grammar, RandomAllowedTokensMakeTextsThatItReads) {
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

// The masks' shortcuts (base masks, exits, shared shapes) must say what trying every token says.
TEST(Grammar, TheMaskIsWhatTryingEveryTokenSays) {
  std::mt19937_64 random(5);
  const Automaton automaton =
      schema(R"({"type": "object", "properties": {"a": {"type": "array", "items": {"type": "number"}},
      "b": {"type": "string"}, "c": {"type": ["object", "null"]}}, "required": ["a", "c"]})");
  const auto grammar = std::make_shared<Grammar>(demo_tokens(), automaton);
  for (int round = 0; round < 10; ++round) {
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
        ASSERT_EQ((allowed[static_cast<size_t>(t) / 64] >> (t % 64)) & 1, good ? 1U : 0U) << bytes;
        if (good && t != kEos) tokens.push_back(t);
      }
      if (tokens.empty()) break;
      const int32_t token = tokens[random() % tokens.size()];
      mask->accept(token);
      for (char byte : demo().token_bytes(token)) at = configurations.next(at, static_cast<uint8_t>(byte));
    }
  }
}

TEST(Grammar, BeginsAfterTheThoughts) {
  const auto grammar = std::make_shared<Grammar>(demo_tokens(), regex_grammar("yes").value());
  const int32_t end = demo().token_to_id("</think>").value();
  const auto mask = GrammarMaskSource(grammar, end).begin();
  // Everything may be thought, but the output must not end before the thoughts do.
  const auto free = [&](bool* ends) {
    std::vector<uint64_t> allowed(num_mask_words(demo().vocab_size()));
    EXPECT_TRUE(mask->fill(allowed).ok());
    int64_t count = 0;
    for (int64_t t = 0; t < demo().vocab_size(); ++t)
      count += allowed[static_cast<size_t>(t / 64)] >> (t % 64) & 1U;
    *ends = (allowed[kEos / 64] >> (kEos % 64) & 1U) != 0;
    return count;
  };
  bool ends = true;
  EXPECT_EQ(free(&ends), demo().vocab_size() - 1);
  EXPECT_FALSE(ends);
  for (int32_t token : demo().encode("no yes", false)) mask->accept(token);
  EXPECT_EQ(free(&ends), demo().vocab_size() - 1);
  mask->accept(end);
  EXPECT_LT(free(&ends), 100);
}

TEST(Grammar, ToolCallsAreForced) {
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
    ASSERT_TRUE((allowed[static_cast<size_t>(token) / 64] >> (token % 64)) & 1) << demo().token_bytes(token);
    mask->accept(token);
  }
  ASSERT_TRUE(mask->fill(allowed).ok());
  EXPECT_EQ(allowed[0], uint64_t{1} << kEos);
  tools.format = ToolFormat::kV32;
  EXPECT_FALSE(tool_call_grammar(demo(), tools).ok());
}

TEST(GrammarCache, KeepsWhatItCompiled) {
  GrammarCache cache(demo(), {kEos});
  int made = 0;
  const auto make = [&] {
    ++made;
    return json_object_grammar();
  };
  const auto first = cache.get("a", make).value();
  EXPECT_EQ(cache.get("a", make).value(), first);
  EXPECT_EQ(made, 1);
}

}  // namespace
}  // namespace fathom::text
