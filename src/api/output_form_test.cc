// response_format, regex, ebnf, tool_choice and strict tools: what reaches the sink, and what is refused.
#include "api/fixture.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

std::string body_of(const std::string& fields) {
  return std::string("{") + kHello + ", " + fields + "}";
}

// Does the mask of the last request let `text` through, token by token, and the end after it?
bool allows(const Desk& desk, const std::string& text) {
  const auto mask = desk.sink.requests().back().mask->begin();
  std::vector<int32_t> tokens = demo_tokenizer().encode(text, false);
  tokens.push_back(kEos);
  std::vector<uint64_t> allowed(num_mask_words(demo_card().vocab_size));
  for (int32_t token : tokens) {
    if (mask->constrains()) {
      if (!mask->fill(allowed).ok()) return false;
      if ((allowed[static_cast<size_t>(token) / 64] >> (token % 64) & 1) == 0) return false;
    }
    mask->accept(token);
  }
  return true;
}

constexpr const char* kSchema =
    R"({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"], "additionalProperties": false})";
const std::string kTool =
    std::string(R"("tools": [{"type": "function", "function": {"name": "note", "parameters": )") + kSchema +
    R"(}}, {"type": "function", "function": {"name": "other"}}])";

std::string call(const std::string& name, const std::string& arguments) {
  return "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>" + name + "\n```json\n" +
         arguments + "\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";
}

TEST(OutputForm, TextNeedsNoMask) {
  Desk desk(says("ok"), parsing_options());
  desk.json(kChat, body_of(R"("response_format": {"type": "text"})"));
  EXPECT_EQ(desk.sink.requests().back().mask, nullptr);
}

TEST(OutputForm, EveryWayToAskForJson) {
  Desk desk(says("{}"), parsing_options());
  desk.json(kChat, body_of(R"("response_format": {"type": "json_object"})"));
  EXPECT_TRUE(allows(desk, R"({"a": [1]})"));
  EXPECT_FALSE(allows(desk, "Hello"));
  desk.json(
      kChat,
      body_of(std::string(R"("response_format": {"type": "json_schema", "json_schema": {"name": "x", )") +
              R"("strict": true, "schema": )" + kSchema + "}}"));
  EXPECT_TRUE(allows(desk, R"({"n": 12})"));
  EXPECT_FALSE(allows(desk, R"({"n": "12"})"));
  desk.json("/generate", std::string(R"({"text": "x", "sampling_params": {"json_schema": )") +
                             ordered_json(kSchema).dump() + "}}");
  EXPECT_TRUE(allows(desk, R"({"n": 12})"));
  desk.json(kCompletions, R"({"prompt": "x", "regex": "[0-9]+"})");
  EXPECT_TRUE(allows(desk, "123"));
  EXPECT_FALSE(allows(desk, "x"));
  desk.json(kCompletions, R"({"prompt": "x", "ebnf": "root ::= \"yes\" | \"no\""})");
  EXPECT_TRUE(allows(desk, "no"));
}

TEST(OutputForm, WithoutStrictTheRestOfASchemaIsKept) {
  Desk desk(says("{}"), parsing_options());
  const std::string schema =
      R"({"type": "object", "properties": {"n": {"type": "integer", "multipleOf": 3}}, "required": ["n"]})";
  const auto format = [&](const char* strict) {
    return R"({"type": "json_schema", "json_schema": {"name": "x")" + std::string(strict) +
           R"(, "schema": )" + schema + "}}";
  };
  for (const char* strict : {"", R"(, "strict": null)", R"(, "strict": false)"}) {
    desk.json(kChat, body_of(R"("response_format": )" + format(strict)));
    EXPECT_TRUE(allows(desk, R"({"n": 12})"));
    EXPECT_FALSE(allows(desk, R"({"n": "12"})"));
  }
  const std::string strict = R"(, "strict": true)";
  desk.json(kChat, body_of(R"("response_format": )" + format(strict.c_str())), 400);
  desk.json(kCompletions, R"({"prompt": "x", "response_format": )" + format("") + "}");
  const auto flat = [&](const std::string& more) {
    return R"({"type": "json_schema", "name": "x", "schema": )" + schema + more + "}";
  };
  desk.json("/v1/responses", R"({"input": "x", "text": {"format": )" + flat("") + "}}");
  EXPECT_FALSE(allows(desk, R"({"n": "12"})"));
  desk.json("/v1/responses", R"({"input": "x", "text": {"format": )" + flat(strict) + "}}", 400);
  desk.json("/v1/messages", body_of(R"("max_tokens": 9, "output_config": {"format": )" + flat("") + "}"),
            400);
}

TEST(OutputForm, ThoughtsAreFree) {
  Desk desk(says("{}"), parsing_options());
  desk.json(kChat, body_of(R"("regex": "yes", "thinking": {"type": "enabled"})"));
  EXPECT_TRUE(allows(desk, "I think so.</think>yes"));
  EXPECT_FALSE(allows(desk, "I think so.</think>no"));
}

TEST(OutputForm, CallsAreForcedByToolChoice) {
  Desk desk(says("x"), parsing_options());
  desk.json(kChat, body_of(kTool + R"(, "tool_choice": "required")"));
  EXPECT_TRUE(allows(desk, call("note", R"({"n": 1})")));
  EXPECT_TRUE(allows(desk, call("other", R"({"x": []})")));
  EXPECT_FALSE(allows(desk, call("note", R"({"m": 1})")));
  EXPECT_FALSE(allows(desk, "Hello"));
  desk.json(kChat,
            body_of(kTool + R"(, "tool_choice": {"type": "function", "function": {"name": "other"}})"));
  EXPECT_FALSE(allows(desk, call("note", R"({"n": 1})")));
  EXPECT_TRUE(allows(desk, call("other", "{}")));
  desk.json(kChat, body_of(kTool));
  EXPECT_EQ(desk.sink.requests().back().mask, nullptr);
}

TEST(OutputForm, StrictToolsConstrainTheCallsOnly) {
  Desk desk(says("x"), parsing_options());
  std::string strict = kTool;
  strict.insert(strict.find("\"parameters\""), R"("strict": true, )");
  desk.json(kChat, body_of(strict));
  EXPECT_TRUE(allows(desk, "Hello"));
  EXPECT_TRUE(allows(desk, "Wait." + call("note", R"({"n": 1})")));
  EXPECT_FALSE(allows(desk, "Wait." + call("note", R"({"n": "1"})")));
}

TEST(OutputForm, WhatCannotBeIsRefused) {
  Desk desk(says("x"), parsing_options());
  struct Case {
    const char* fields;
    const char* message;
  };
  const Case cases[] = {
      {R"("regex": "a", "ebnf": "root ::= \"a\"")", "only one"},
      {R"("regex": "a", "response_format": {"type": "json_object"})", "only one"},
      {R"("response_format": {"type": "json_schema"})", "schema"},
      {R"("response_format": {"type": "xml"})", "json_object"},
      {R"("response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": true, "schema": {"not": {}}}})",
       "/not"},
      {R"("json_schema": {"not": {}})", "/not"},
      {R"("response_format": {"type": "json_schema", "json_schema": {"name": "x", "strict": 1, "schema": {}}})",
       "response_format.json_schema.strict: got 1, expected true or false"},
      {R"x("regex": "a(?=b)")x", "look-around"},
      {R"("regex": "a", "min_tokens": 3)", "min_tokens"},
      {R"("tool_choice": "required")", "no tools"},
      {R"("tools": [{"type": "function", "function": {"name": "f", "strict": true, "parameters": {"type": "array",
          "uniqueItems": true}}}])",
       "/uniqueItems"},
      {R"("tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": {"type": "function",
          "function": {"name": "g"}})",
       "no tool 'g'"},
      {R"("tools": [{"type": "function", "function": {"name": "f"}}], "tool_choice": "required", "regex": "a")",
       "beside"}};
  for (const Case& one : cases) {
    const std::string message = desk.json(kChat, body_of(one.fields), 400)["error"]["message"];
    EXPECT_NE(message.find(one.message), std::string::npos) << one.fields << "\n" << message;
  }
  EXPECT_TRUE(desk.sink.requests().empty());
  Desk plain(says("x"));  // no tool call parser
  plain.json(kChat, body_of(kTool + R"(, "tool_choice": "required")"), 400);
}

TEST(OutputForm, AnErrorOfTheMaskEndsTheRequestAlone) {
  Desk desk([](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
    auto events = tokens_of(request, {10, 11}, false);
    TokenEvent last;
    last.finish =
        FinishReason{FinishReason::Kind::kAbort, {}, error(ErrorCode::kInvalidArgument, "too ambiguous")};
    events.push_back(last);
    return events;
  });
  EXPECT_EQ(desk.json(kChat, body_of(R"("regex": "a")"), 400)["error"]["message"], "too ambiguous");
}

}  // namespace
}  // namespace fathom::api
