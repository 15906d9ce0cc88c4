// What grammars read, and what is refused.
#include "text/grammar/grammar.h"

#include <gtest/gtest.h>

#include <random>

#include "base/clock.h"
#include "text/grammar/grammar_cache.h"
#include "text/grammar/grammars.h"
#include "text/grammar/testing.h"

namespace fathom::text {
namespace {

using nlohmann::ordered_json;

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

TEST(Grammar, BoundsOfManyDigitsAreKept) {
  const Automaton many =
      schema(R"({"type": "number", "exclusiveMinimum": 17.090000000000003, "maximum": 1e300})");
  EXPECT_TRUE(matches(many, "17.1"));
  EXPECT_TRUE(matches(many, "123456789012345678"));
  EXPECT_FALSE(matches(many, "17.09"));
  EXPECT_FALSE(matches(many, "17.090000000000001"));
  const Automaton large =
      schema(R"({"type": "integer", "minimum": -9223372036854775808, "maximum": 18446744073709551615})");
  EXPECT_TRUE(matches(large, "18446744073709551615"));
  EXPECT_FALSE(matches(large, "18446744073709551616"));
  EXPECT_FALSE(matches(large, "-9223372036854775809"));
  // Two bounds on one side: both hold.
  EXPECT_FALSE(matches(schema(R"({"type": "integer", "minimum": 3, "exclusiveMinimum": 5})"), "5"));
  // 16 digits: what follows the bound must differ from it as a double too.
  EXPECT_FALSE(
      matches(schema(R"({"type": "number", "exclusiveMaximum": 1234567890123456})"), "1234567890123455.99"));
  EXPECT_NE(refusal(R"({"type": "number", "minimum": 1e300})").find("digits"), std::string::npos);
  EXPECT_NE(refusal(R"({"type": "number", "exclusiveMinimum": true})").find("expected a number"),
            std::string::npos);
}

TEST(Grammar, EnumsAreReadWhole) {
  const Automaton words = schema(R"({"enum": ["a", "ab", "abc", 1, 12, {"a": [1]}, null, true, "a"]})");
  for (const char* good : {R"("a")", R"("ab")", "1", "12", R"({"a": [1]})", "null", "true"})
    EXPECT_TRUE(matches(words, good)) << good;
  for (const char* bad : {R"("abcd")", "2", "123", "nul", "tru", ""})
    EXPECT_FALSE(matches(words, bad)) << bad;
  EXPECT_NE(refusal(R"({"oneOf": [{"enum": [1, 2]}, {"const": 2.0}]})").find("/oneOf"), std::string::npos);
  EXPECT_EQ(refusal(R"({"oneOf": [{"enum": [1, 2]}, {"const": 3}]})"), "");
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
  EXPECT_NE(refusal(R"({"type": "object", "propertyNames": {"maxLength": 3}})").find("/propertyNames"),
            std::string::npos);
  EXPECT_NE(refusal(R"({"$ref": "#"})").find("no text"), std::string::npos);
  EXPECT_NE(refusal(R"({"type": "integer", "minimum": 3, "maximum": 2})").find("no text"), std::string::npos);
  EXPECT_NE(refusal(R"x({"type": "string", "pattern": "(?=a)"})x").find("look-around"), std::string::npos);
  EXPECT_NE(refusal(R"({"type": "string", "pattern": "((a{9999}){9999}){9999}"})").find("states"),
            std::string::npos);
}

// What pydantic, zod and OpenAPI write beside the keywords that constrain.
TEST(Grammar, AnnotationsAndUnknownFormatsChangeNothing) {
  const Automaton pets = schema(R"({"type": "array", "items": {
      "discriminator": {"mapping": {"cat": "#/$defs/Cat", "dog": "#/$defs/Dog"}, "propertyName": "kind"},
      "oneOf": [{"$ref": "#/$defs/Cat"}, {"$ref": "#/$defs/Dog"}]},
      "$defs": {"Cat": {"type": "object", "properties": {"kind": {"const": "cat", "type": "string"},
                                                         "lives": {"type": "integer"}},
                        "required": ["kind", "lives"], "propertyOrdering": ["kind", "lives"]},
                "Dog": {"type": "object", "properties": {"kind": {"const": "dog", "type": "string"}},
                        "required": ["kind"], "xml": {"name": "dog"}}}})");
  EXPECT_TRUE(matches(pets, R"([{"kind": "cat", "lives": 9}, {"kind": "dog"}])"));
  EXPECT_FALSE(matches(pets, R"([{"kind": "dog", "lives": 9}])"));
  const Automaton record = schema(R"({"type": "object", "propertyNames": {"type": "string"},
                                      "additionalProperties": {"type": "integer"}})");
  EXPECT_TRUE(matches(record, R"({"a": 1, "b": 2})"));
  EXPECT_FALSE(matches(record, R"({"a": "1"})"));
  EXPECT_EQ(refusal(R"({"type": "object", "propertyNames": true})"), "");
  EXPECT_EQ(refusal(R"({"type": "object", "propertyNames": {}})"), "");
  const Automaton secret = schema(R"({"type": "string", "format": "password", "minLength": 2})");
  EXPECT_TRUE(matches(secret, R"("ab")"));
  EXPECT_FALSE(matches(secret, R"("a")"));
  EXPECT_EQ(refusal(R"({"enum": ["a"], "format": "path", "enumNames": ["A"]})"), "");
  EXPECT_EQ(refusal(R"({"allOf": [{"format": "binary"}, {"format": "byte", "type": "string"}]})"), "");
}

TEST(Grammar, WithBestEffortTheRestIsKept) {
  const auto reads = [](const char* text, const char* output) {
    const ordered_json json = ordered_json::parse(text);
    const auto strict = json_schema_grammar(json);
    EXPECT_TRUE(!strict.ok() && strict.error().code != ErrorCode::kInternal) << text;
    const auto grammar = json_schema_grammar(json, true);
    EXPECT_TRUE(grammar.ok()) << text << "\n" << (grammar.ok() ? "" : grammar.error().message);
    return grammar.ok() && matches(*grammar, output);
  };
  struct Case {
    const char *schema, *good, *bad;  // bad: null where all is let through
  };
  const Case cases[] = {
      {R"({"type": "array", "items": {"type": "integer"}, "uniqueItems": true})", "[1, 1]", R"(["1"])"},
      {R"({"type": "integer", "multipleOf": 5, "minimum": 3})", "4", "2"},
      {R"({"properties": {"a": {"not": {"type": "null"}}}, "required": ["a"]})", R"({"a": 1})", "{}"},
      {R"({"type": "string", "pattern": "^a", "maxLength": 3})", R"("abcd")", R"("b")"},
      {R"x({"type": "string", "pattern": "(?=a)", "maxLength": 3})x", R"("abc")", R"("abcd")"},
      {R"({"type": "string", "format": "date", "minLength": 1})", R"("2026-11-26")", R"("x")"},
      {R"({"type": "string", "format": "iri", "maxLength": 3})", R"("abc")", R"("abcd")"},
      {R"({"enum": ["a", "b"], "minLength": 2})", R"("a")", R"("c")"},
      {R"({"$ref": "#/$defs/a", "minimum": 3, "$defs": {"a": {"type": "integer"}}})", "1", R"("1")"},
      {R"({"properties": {"a": {"$ref": "https://example.com/a"}}, "required": ["a"]})", R"({"a": [1]})",
       "{}"},
      {R"({"anyOf": [{"type": "string"}, {"type": "null"}], "minLength": 3})", "null", "1"},
      {R"({"properties": {"a": {"const": 1}, "b": {"const": 2}}, "anyOf": [{"required": ["a"]}, {"required": ["b"]}]})",
       R"({"a": 1, "b": 2})", R"({"a": 2})"},
      {R"({"oneOf": [{"type": "integer"}, {"type": "number"}]})", "1.5", "null"},
      {R"({"allOf": [{"properties": {"a": {"const": 1}}}, {"properties": {"a": {"const": 2}, "b": {"const": 3}}}]})",
       R"({"a": 1, "b": 3})", R"({"a": 2})"},
      {R"({"allOf": [{"properties": {"a": {"const": 1}}, "additionalProperties": false}, {"properties": {"b": true}}]})",
       R"({"a": 1, "b": 3})", R"({"c": 1})"},
      {R"({"type": "object", "patternProperties": {"^x": {"type": "integer"}}, "additionalProperties": false})",
       R"({"xa": 1})", "[]"},
      {R"({"properties": {"a": {"const": 1}}, "minProperties": 1})", "{}", R"({"a": 2})"},
      {R"({"type": "integer", "minimum": 1e30, "maximum": 1e31})", "1", "1.5"},
      {R"({"if": {"type": "string"}, "then": {"minLength": 3}})", R"("a")", nullptr},
  };
  for (const Case& one : cases) {
    EXPECT_TRUE(reads(one.schema, one.good)) << one.schema;
    if (one.bad != nullptr) {
      EXPECT_FALSE(reads(one.schema, one.bad)) << one.schema;
    }
  }
  // What is wrong stays wrong.
  for (const char* wrong : {R"({"type": "strin"})", R"({"enum": []})", R"({"$ref": "#/$defs/a"})",
                            R"({"type": "string", "minLength": -1})", R"({"properties": []})"}) {
    EXPECT_FALSE(json_schema_grammar(ordered_json::parse(wrong), true).ok()) << wrong;
  }
}

// What a request can do to the server at worst: be refused, or fail alone, within a bounded time.
TEST(Grammar, HostileGrammarsAreRefusedSoon) {
  const auto in_time = [](const char* what, const auto& compile) {
    const int64_t start = steady_clock().now_ns();
    const Result<Automaton> automaton = compile();
    EXPECT_LT(seconds_since(start), 5.0) << what;  // some tenths, but for sanitizers
    return automaton.ok();
  };
  EXPECT_FALSE(in_time("stars", [&] { return regex_grammar("a" + std::string(100'000, '*')); }));
  EXPECT_FALSE(in_time("groups", [&] { return regex_grammar(std::string(100'000, '(')); }));
  EXPECT_FALSE(in_time("optional parts", [&] { return regex_grammar("((a?){100}){100}"); }));
  EXPECT_FALSE(in_time("empty parts", [&] { return regex_grammar("(a((){100}){100}){60}"); }) &&
               in_time("empty parts", [&] { return regex_grammar("((){10000}a){10000}"); }));
  EXPECT_FALSE(in_time("classes", [&] {
    std::string set = "[";
    for (int c = 0x100; c < 0x2000; c += 2) set += fmt::format("\\u{:04x}", c);
    return regex_grammar("(" + set + "]{10000}){100}");
  }));
  EXPECT_FALSE(in_time("parentheses", [&] { return ebnf_grammar("root ::= " + std::string(100'000, '(')); }));
  std::string chain = "root ::= r0\n";
  for (int i = 0; i < 9000; ++i) chain += fmt::format("r{} ::= r{} \"\" | r{}\n", i, i + 1, i + 1);
  in_time("a chain of rules", [&] { return ebnf_grammar(chain + "r9000 ::= \"x\"\n"); });
  EXPECT_FALSE(in_time("an endless chain", [&] { return ebnf_grammar(chain + "r9000 ::= r0 \"x\"\n"); }));
  std::string deep = "true";
  for (int i = 0; i < 100; ++i) deep = R"({"items": )" + deep + "}";
  EXPECT_NE(refusal(deep.c_str()).find("nested deeper"), std::string::npos);
  EXPECT_FALSE(json_schema_grammar({{"properties", {{std::string(100'000, 'x'), true}}}}).ok());
  ordered_json words = ordered_json::array();
  for (int i = 0; i < 10'000; ++i) words.push_back(fmt::format("word {}", i));
  EXPECT_TRUE(in_time("a large enum", [&] { return json_schema_grammar({{"enum", words}}); }));
  ordered_json branches = ordered_json::array();
  for (int i = 0; i < 250; ++i) {
    ordered_json values = ordered_json::array();
    for (int k = 0; k < 150; ++k) values.push_back(fmt::format("{} {}", i, k));
    branches.push_back({{"enum", values}});
  }
  EXPECT_TRUE(in_time("oneOf of enums", [&] { return json_schema_grammar({{"oneOf", branches}}); }));
  const char* counts[] = {
      R"({"type": "array", "minItems": 10000, "items": {"type": "array", "minItems": 10000}})",
      R"({"type": "array", "maxItems": 10000, "items": {"type": "string", "maxLength": 10000}})",
      R"({"type": "string", "minLength": 10000})", R"({"type": "string", "pattern": "(a{0,99}){0,99}"})",
      R"({"minItems": 1e9, "items": true})"};
  for (const char* text : counts)
    in_time(text, [&] { return json_schema_grammar(ordered_json::parse(text)); });
  ordered_json members = ordered_json::object();
  for (int i = 0; i < 1000; ++i) members[fmt::format("m{}", i)] = {{"type", "string"}};
  EXPECT_TRUE(in_time("many members", [&] { return json_schema_grammar({{"properties", members}}); }));
  // References that double at each level name one rule each.
  ordered_json doubling = {{"$ref", "#/$defs/r0"}, {"$defs", ordered_json::object()}};
  for (int i = 0; i < 200; ++i) {
    const ordered_json next = {{"$ref", fmt::format("#/$defs/r{}", i + 1)}};
    doubling["$defs"][fmt::format("r{}", i)] = {{"prefixItems", {next, next}}, {"minItems", 2}};
  }
  doubling["$defs"]["r200"] = true;
  in_time("doubling references", [&] { return json_schema_grammar(doubling); });
  // What allOf merges is merged again wherever a reference leads to it.
  const ordered_json self = {{"$ref", "#"}};
  const ordered_json merged_self = {{"allOf", {self}}};
  ordered_json alike = {{"allOf", ordered_json::array()}, {"required", ordered_json::array()}};
  for (int i = 0; i < 250; ++i) alike["allOf"].push_back(self);
  for (int i = 0; i < 10'000; ++i) alike["required"].push_back(fmt::format("m{}", i));
  ordered_json members_often = {{"allOf", {self, {{"properties", members}}}}, {"properties", members}};
  for (const bool best_effort : {false, true}) {
    EXPECT_FALSE(in_time("allOf of itself", [&] { return json_schema_grammar(alike, best_effort); }));
    EXPECT_FALSE(
        in_time("members of itself", [&] { return json_schema_grammar(members_often, best_effort); }));
    EXPECT_FALSE(in_time("doubling allOf", [&] {
      return json_schema_grammar({{"anyOf", {merged_self, merged_self}}}, best_effort);
    }));
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

// What was full once is not full for ever.
TEST(GrammarTokens, KeepsTheMasksUsedLast) {
  GrammarTokens tokens(demo(), {kEos});
  const auto shape = [](size_t i) {
    return "a shape that is too long for a short string " + std::to_string(i);
  };
  for (size_t i = 0; i < 3 * GrammarTokens::kMaxKept; ++i) {
    tokens.keep(shape(i), std::make_shared<const BaseMask>());
    EXPECT_NE(tokens.find(shape(i)), nullptr);
    EXPECT_NE(tokens.find(shape(0)), nullptr) << "used all the time";
  }
  size_t kept = 0;
  for (size_t i = 0; i < 3 * GrammarTokens::kMaxKept; ++i) kept += tokens.find(shape(i)) != nullptr ? 1 : 0;
  EXPECT_EQ(kept, GrammarTokens::kMaxKept);
}

}  // namespace
}  // namespace fathom::text
