// POST /v1/messages and /v1/messages/count_tokens.
#include "api/anthropic_conversation.h"
#include "api/fixture.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

constexpr const char* kMessages = "/v1/messages";
constexpr const char* kCount = "/v1/messages/count_tokens";
constexpr const char* kTools =
    R"("tools": [{"name": "get_time", "description": "d", "input_schema": {"type": "object"}}])";

std::string body_of(const std::string& fields) {
  return R"({"model": "demo", "max_tokens": 100, "messages": [{"role": "user", "content": "Hello"}])" +
         (fields.empty() ? "" : ", " + fields) + "}";
}

TEST(Anthropic, AnswersInItsForm) {
  Desk desk(says("The answer is 4."), parsing_options());
  const ordered_json answer = desk.json(kMessages, body_of(""));
  EXPECT_EQ(answer["type"], "message");
  EXPECT_EQ(answer["role"], "assistant");
  EXPECT_EQ(answer["model"], "demo");
  EXPECT_TRUE(answer["id"].get<std::string>().starts_with("msg_"));
  EXPECT_EQ(answer["content"], ordered_json::parse(R"([{"type": "text", "text": "The answer is 4."}])"));
  EXPECT_EQ(answer["stop_reason"], "end_turn");
  EXPECT_TRUE(answer["stop_sequence"].is_null());
  const auto request = desk.sink.requests().at(0);
  EXPECT_EQ(answer["usage"]["input_tokens"], request.prompt.size() - 2);
  EXPECT_EQ(answer["usage"]["cache_read_input_tokens"], 2);
  EXPECT_EQ(request.sampling.max_new_tokens, 100);
  EXPECT_EQ(prompt_of(desk), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜></think>");
}

TEST(Anthropic, TurnsBlocksIntoTheTemplatesMessages) {
  Desk desk(says("ok"), parsing_options());
  desk.json(kMessages,
            R"({"max_tokens": 9, "system": [{"type": "text", "text": "A"}, {"type": "text", "text": "B",
      "cache_control": {"type": "ephemeral"}}], "messages": [
      {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
      {"role": "user", "content": "three"},
      {"role": "assistant", "content": [{"type": "thinking", "thinking": "Hm", "signature": "s"},
          {"type": "text", "text": "I look."},
          {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": [1, 2.5], "b": {"c": "é"}}},
          {"type": "tool_use", "id": "t2", "name": "g", "input": {"INVALID_JSON": "{oh"}}]},
      {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t1", "content": "x"},
          {"type": "tool_result", "tool_use_id": "t2", "is_error": true,
           "content": [{"type": "text", "text": "no"}, {"type": "text", "text": "way"}]},
          {"type": "text", "text": "Go on."}]}]})");
  EXPECT_EQ(
      prompt_of(desk),
      "<｜begin▁of▁sentence｜>A\nB<｜User｜>one\ntwo\nthree<｜Assistant｜></think>I look."
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n"
      "{\"a\": [1, 2.5], \"b\": {\"c\": \"é\"}}\n```<｜tool▁call▁end｜>\n"
      "<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{oh\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
      "<｜end▁of▁sentence｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>x<｜tool▁output▁end｜>\n"
      "<｜tool▁output▁begin｜>Error: no\nway<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
      "<｜User｜>Go on.<｜Assistant｜></think>");
}

TEST(Anthropic, SpecialTokensThatAUserTypesArePlainText) {
  Desk desk(says("ok"), parsing_options());
  desk.json(kMessages, R"({"max_tokens": 9, "messages": [{"role": "user", "content": [
      {"type": "tool_result", "tool_use_id": "t", "content": "<｜end▁of▁sentence｜>"},
      {"type": "text", "text": "<｜end▁of▁sentence｜>"}]}]})");
  const auto ids = desk.sink.requests().at(0).prompt;
  EXPECT_EQ(std::count(ids.begin(), ids.end(), kEos), 0);
}

TEST(Anthropic, ContinuesTheAssistantsLastMessage) {
  Desk desk(says("ok"), parsing_options());
  desk.json(kMessages, R"({"max_tokens": 9, "messages": [{"role": "user", "content": "Hello"},
                           {"role": "assistant", "content": "Once upon"}]})");
  EXPECT_EQ(prompt_of(desk), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜></think>Once upon");
}

TEST(Anthropic, CallsAreToolUseBlocks) {
  Desk desk(says(std::string("Let me see.") + kCallText), parsing_options());
  const ordered_json answer = desk.json(kMessages, body_of(kTools));
  ASSERT_EQ(answer["content"].size(), 2u);
  EXPECT_EQ(answer["content"][0]["text"], "Let me see.");
  EXPECT_EQ(answer["content"][1]["type"], "tool_use");
  EXPECT_EQ(answer["content"][1]["name"], "get_time");
  EXPECT_EQ(answer["content"][1]["input"], ordered_json::parse(R"({"city": "Rome"})"));
  EXPECT_EQ(answer["stop_reason"], "tool_use");
  EXPECT_NE(
      prompt_of(desk).find(R"({"name": "get_time", "description": "d", "parameters": {"type": "object"}})"),
      std::string::npos);
}

TEST(Anthropic, ArgumentsThatAreNoJsonArriveAsTheyAre) {
  std::string text = kCallText;
  text.replace(text.find("\"Rome\"}"), 7, "Rome");
  Desk desk(says(text), parsing_options());
  const ordered_json answer = desk.json(kMessages, body_of(kTools));
  EXPECT_EQ(answer["content"][0]["input"], ordered_json::parse(R"({"INVALID_JSON": "{\"city\": Rome"})"));
}

TEST(Anthropic, StreamsEveryEventInItsOrder) {
  const std::string text = "I wonder.</think>So it is." + std::string(kCallText);
  Desk desk(says(text), parsing_options());
  const auto response = desk.post(
      kMessages, body_of(std::string(R"("stream": true, "thinking": {"type": "adaptive"}, )") + kTools));
  std::string order;
  std::string last;
  std::string thinking;
  std::string words;
  std::string arguments;
  for (const ordered_json& event : named_events_of(response)) {
    const auto type = event["type"].get<std::string>();
    if (type != last) order += (order.empty() ? "" : " ") + type;
    last = type;
    if (type == "content_block_start") {
      order +=
          ":" + std::to_string(event["index"].get<int>()) + event["content_block"]["type"].get<std::string>();
    }
    if (type != "content_block_delta") continue;
    const ordered_json& delta = event["delta"];
    thinking += delta.value("thinking", "");
    words += delta.value("text", "");
    arguments += delta.value("partial_json", "");
  }
  EXPECT_EQ(
      order,
      "message_start ping content_block_start:0thinking content_block_delta content_block_stop "
      "content_block_start:1text content_block_delta content_block_stop "
      "content_block_start:2tool_use content_block_delta content_block_stop message_delta message_stop");
  EXPECT_EQ(thinking, "I wonder.");
  EXPECT_EQ(words, "So it is.");
  EXPECT_EQ(arguments, "{\"city\": \"Rome\"}");
  const ordered_json end = named_events_of(response).end()[-2];
  EXPECT_EQ(end["delta"]["stop_reason"], "tool_use");
  EXPECT_GT(end["usage"]["output_tokens"], 0);
  EXPECT_EQ(end["usage"]["cache_read_input_tokens"], 2);
}

TEST(Anthropic, OmitsTheThinkingWhenAsked) {
  Desk desk(says("I wonder.</think>So."), parsing_options());
  const char* fields = R"("thinking": {"type": "adaptive", "display": "omitted"})";
  const ordered_json answer = desk.json(kMessages, body_of(fields));
  EXPECT_EQ(answer["content"][0]["thinking"], "");
  EXPECT_NE(answer["content"][0]["signature"], "");
  EXPECT_EQ(answer["content"][1]["text"], "So.");
  EXPECT_GT(answer["usage"]["output_tokens_details"]["thinking_tokens"], 0);
}

TEST(Anthropic, SaysWhyItStopped) {
  {
    Desk desk(says("one two three"), parsing_options());
    const ordered_json answer = desk.json(kMessages, body_of(R"("stop_sequences": ["two"])"));
    EXPECT_EQ(answer["stop_reason"], "stop_sequence");
    EXPECT_EQ(answer["stop_sequence"], "two");
    EXPECT_EQ(answer["content"][0]["text"], "one ");
  }
  const std::string messages = R"("messages": [{"role": "user", "content": "Hello"}]})";
  Desk few(says("one two three"), parsing_options());
  EXPECT_EQ(few.json(kMessages, R"({"max_tokens": 1, )" + messages)["stop_reason"], "max_tokens");
  // More than the context has room for is cut, not refused.
  const ordered_json answer = [&] {
    FakeSink::Script script = [](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
      return tokens_of(request, std::vector<int32_t>(5000, 70), false);
    };
    Desk desk(script, parsing_options());
    return desk.json(kMessages, R"({"max_tokens": 100000, )" + messages);
  }();
  EXPECT_EQ(answer["stop_reason"], "model_context_window_exceeded");
}

TEST(Anthropic, ForcesCallsByToolChoice) {
  for (const char* choice : {R"({"type": "any"})", R"({"type": "tool", "name": "get_time"})"}) {
    Desk desk(says(kCallText), parsing_options());
    desk.json(kMessages, body_of(std::string(kTools) + R"(, "tool_choice": )" + choice));
    EXPECT_NE(desk.sink.requests().at(0).mask, nullptr) << choice;
  }
  Desk none(says("ok"), parsing_options());
  none.json(kMessages, body_of(std::string(kTools) + R"(, "tool_choice": {"type": "none"})"));
  EXPECT_EQ(prompt_of(none).find("get_time"), std::string::npos);
  Desk one(says(std::string(kCallText) + kCallText), parsing_options());
  const std::string single = R"(, "tool_choice": {"type": "auto", "disable_parallel_tool_use": true})";
  EXPECT_EQ(one.json(kMessages, body_of(std::string(kTools) + single))["content"].size(), 1u);
}

TEST(Anthropic, CountsTokensAsItWouldPrompt) {
  Desk desk(says("ok"), parsing_options());
  desk.json(kMessages, body_of(kTools));
  const std::string body =
      R"({"model": "demo", "messages": [{"role": "user", "content": "Hello"}], )" + std::string(kTools) + "}";
  EXPECT_EQ(desk.json(kCount, body)["input_tokens"], desk.sink.requests().at(0).prompt.size());
  EXPECT_EQ(desk.json("/anthropic/v1/messages/count_tokens", body)["input_tokens"],
            desk.sink.requests().at(0).prompt.size());
}

TEST(Anthropic, RefusesByNameInItsOwnForm) {
  Desk desk(says("ok"), parsing_options());
  const auto refused = [&](const std::string& body, const std::string& word, int status = 400) {
    const ordered_json answer = desk.json(kMessages, body, status);
    EXPECT_EQ(answer["type"], "error") << body;
    EXPECT_EQ(answer["error"]["type"], status == 404 ? "not_found_error" : "invalid_request_error");
    EXPECT_NE(answer["error"]["message"].get<std::string>().find(word), std::string::npos)
        << word << ": " << answer["error"]["message"];
  };
  refused(R"({"messages": [{"role": "user", "content": "Hello"}]})", "max_tokens");
  refused(R"({"max_tokens": 5})", "messages");
  refused(R"({"model": "other", "max_tokens": 5, "messages": []})", "other", 404);
  refused(body_of(R"("temprature": 1)"), "temperature");
  refused(body_of(R"("top_k": 0)"), "top_k");
  refused(body_of(R"("container": "c")"), "container");
  refused(body_of(R"("mcp_servers": [{"url": "x"}])"), "mcp_servers");
  refused(body_of(R"("thinking": {"type": "perhaps"})"), "thinking.type");
  refused(body_of(R"("tools": [{"type": "web_search_20250305", "name": "web_search"}])"), "tools[0].type");
  refused(body_of(R"("tools": [{"name": "f"}])"), "tools[0].input_schema");
  refused(body_of(R"("tool_choice": {"type": "any"})"), "tool_choice");
  refused(body_of(std::string(kTools) + R"(, "tool_choice": {"type": "tool", "name": "x"})"),
          "tool_choice.name");
  refused(body_of(R"("output_config": {"format": {"type": "json_schema"}})"), "output_config.format.schema");
  const auto with_content = [](const std::string& role, const std::string& content) {
    return R"({"max_tokens": 5, "messages": [{"role": ")" + role + R"(", "content": )" + content + "}]}";
  };
  refused(with_content("user", R"([{"type": "image", "source": {}}])"), "messages[0].content[0].type");
  refused(with_content("user", R"([{"type": "text"}])"), "messages[0].content[0].text");
  refused(with_content("user", R"([{"type": "text", "text": "x", "colour": 1}])"), "colour");
  refused(with_content("user", R"([{"type": "tool_result"}])"), "tool_use_id");
  refused(with_content("user", "[]"), "messages[0].content");
  refused(with_content("robot", R"("x")"), "messages[0].role");
  refused(with_content("assistant", R"([{"type": "redacted_thinking", "data": "x"}])"), "redacted_thinking");
  refused(with_content("assistant", R"([{"type": "tool_use", "id": "a", "name": "f", "input": {}}])"),
          "tool_result");
  EXPECT_EQ(desk.call("GET", kMessages).status, 405);
  const auto old = desk.call("POST", kMessages, body_of(""), {{"anthropic-version", "2022-01-01"}});
  EXPECT_EQ(old.status, 400);
}

TEST(Anthropic, TakesTheKeyFromItsOwnHeader) {
  ServiceOptions options = parsing_options();
  options.api_key = "secret";
  Desk desk(says("ok"), options);
  EXPECT_EQ(desk.call("POST", kMessages, body_of(""), {{"x-api-key", "secret"}}).status, 200);
  EXPECT_EQ(desk.call("POST", kMessages, body_of(""), {{"Authorization", "Bearer secret"}}).status, 200);
  const auto refused = desk.call("POST", kMessages, body_of(""), {{"x-api-key", "wrong"}});
  EXPECT_EQ(refused.status, 401);
  EXPECT_EQ(ordered_json::parse(refused.body)["error"]["type"], "authentication_error");
}

TEST(Anthropic, ConstrainsTheOutputByItsConfig) {
  Desk desk(says("{}"), parsing_options());
  const char* format = R"({"format": {"type": "json_schema", "schema": {"type": "object"}}})";
  desk.json(kMessages, body_of(std::string(R"("output_config": )") + format));
  EXPECT_NE(desk.sink.requests().at(0).mask, nullptr);
}

TEST(Anthropic, WritesJsonAsTheModelsDo) {
  const ordered_json value = ordered_json::parse(R"({"a":[1,"x\n",null,[]],"b":{},"c":-2.5e3})");
  EXPECT_EQ(spaced_json(value), R"({"a": [1, "x\n", null, []], "b": {}, "c": -2500.0})");
}

}  // namespace
}  // namespace fathom::api
