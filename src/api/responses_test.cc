// POST /v1/responses.
#include "api/fixture.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

constexpr const char* kResponses = "/v1/responses";
constexpr const char* kTools = R"("tools": [{"type": "function", "name": "get_time", "description": "d",
                                             "parameters": {"type": "object"}, "strict": false}])";

std::string body_of(const std::string& fields) {
  return R"({"model": "demo", "input": "Hello")" + (fields.empty() ? "" : ", " + fields) + "}";
}

std::vector<ordered_json> events_of(const http::Response& response) {
  const auto events = named_events_of(response);
  for (size_t i = 0; i < events.size(); ++i) EXPECT_EQ(events[i]["sequence_number"], i);
  return events;
}

TEST(Responses, AnswersInItsForm) {
  Desk desk(says("The answer is 4."), parsing_options());
  const ordered_json answer =
      desk.json(kResponses, body_of(R"("instructions": "Be brief.", "metadata": {"a": "b"})"));
  EXPECT_EQ(answer["object"], "response");
  EXPECT_EQ(answer["status"], "completed");
  EXPECT_TRUE(answer["id"].get<std::string>().starts_with("resp_"));
  ASSERT_EQ(answer["output"].size(), 1u);
  EXPECT_EQ(answer["output"][0]["type"], "message");
  EXPECT_EQ(answer["output"][0]["status"], "completed");
  EXPECT_EQ(answer["output"][0]["content"][0]["text"], "The answer is 4.");
  EXPECT_EQ(answer["instructions"], "Be brief.");
  EXPECT_EQ(answer["metadata"]["a"], "b");
  EXPECT_EQ(answer["store"], false);
  const auto prompt = desk.sink.requests().at(0).prompt;
  EXPECT_EQ(answer["usage"]["input_tokens"], prompt.size());
  EXPECT_EQ(answer["usage"]["input_tokens_details"]["cached_tokens"], 2);
  EXPECT_EQ(prompt_of(desk), "<｜begin▁of▁sentence｜>Be brief.<｜User｜>Hello<｜Assistant｜></think>");
}

TEST(Responses, TurnsItemsIntoTheTemplatesMessages) {
  Desk desk(says("ok"), parsing_options());
  desk.json(kResponses, R"({"instructions": "A", "input": [
      {"role": "developer", "content": "B"},
      {"role": "user", "content": [{"type": "input_text", "text": "one"}, {"type": "input_text", "text": "two"}]},
      {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "plain:Hm"},
      {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
       "content": [{"type": "output_text", "text": "I look.", "annotations": [], "logprobs": []}]},
      {"type": "function_call", "call_id": "c1", "name": "f", "arguments": "{\"a\":1}"},
      {"type": "function_call", "call_id": "c2", "name": "g", "arguments": "{}"},
      {"type": "function_call_output", "call_id": "c1", "output": "x"},
      {"type": "function_call_output", "call_id": "c2", "output": [{"type": "input_text", "text": "y"}]},
      {"role": "user", "content": "Go on."}]})");
  EXPECT_EQ(
      prompt_of(desk),
      "<｜begin▁of▁sentence｜>A\n\nB<｜User｜>one\ntwo<｜Assistant｜></think>I look."
      "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"a\":1}\n```"
      "<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>g\n```json\n{}\n```<｜tool▁call▁end｜>"
      "<｜tool▁calls▁end｜><｜end▁of▁sentence｜><｜tool▁outputs▁begin｜><｜tool▁output▁begin｜>x"
      "<｜tool▁output▁end｜>\n<｜tool▁output▁begin｜>y<｜tool▁output▁end｜><｜tool▁outputs▁end｜>"
      "<｜User｜>Go on.<｜Assistant｜></think>");
}

TEST(Responses, StreamsEveryEventInItsOrder) {
  Desk desk(says("I wonder.</think>So it is." + std::string(kCallText)), parsing_options());
  const auto events = events_of(desk.post(
      kResponses, body_of(std::string(R"("stream": true, "reasoning": {"effort": "low"}, )") + kTools)));
  std::string order;
  std::string last;
  std::map<std::string, std::string> deltas;
  for (const ordered_json& event : events) {
    auto type = event["type"].get<std::string>().substr(std::string("response.").size());
    if (event.contains("delta")) deltas[type] += event["delta"].get<std::string>();
    if (type != last) order += (order.empty() ? "" : " ") + type;
    last = type;
  }
  EXPECT_EQ(order,
            "created in_progress "
            "output_item.added content_part.added reasoning_text.delta reasoning_text.done content_part.done "
            "output_item.done "
            "output_item.added content_part.added output_text.delta output_text.done content_part.done "
            "output_item.done "
            "output_item.added function_call_arguments.delta function_call_arguments.done output_item.done "
            "completed");
  EXPECT_EQ(deltas["reasoning_text.delta"], "I wonder.");
  EXPECT_EQ(deltas["output_text.delta"], "So it is.");
  EXPECT_EQ(deltas["function_call_arguments.delta"], "{\"city\": \"Rome\"}");
  const ordered_json& output = events.back()["response"]["output"];
  ASSERT_EQ(output.size(), 3u);
  EXPECT_EQ(output[0]["content"][0]["text"], "I wonder.");
  EXPECT_EQ(output[1]["content"][0]["text"], "So it is.");
  EXPECT_EQ(output[2]["arguments"], "{\"city\": \"Rome\"}");
  EXPECT_EQ(output[2]["name"], "get_time");
  // The items that were told are those of the response, at their places.
  size_t done = 0;
  for (const ordered_json& event : events) {
    if (event["type"] != "response.output_item.done") continue;
    EXPECT_EQ(event["output_index"], done);
    EXPECT_EQ(event["item"], output[done++]);
  }
  EXPECT_EQ(done, 3u);
}

TEST(Responses, EndsIncompleteAtTheLimit) {
  Desk desk(says("one two three four"), parsing_options());
  const auto events = events_of(desk.post(kResponses, body_of(R"("stream": true, "max_output_tokens": 2)")));
  EXPECT_EQ(events.back()["type"], "response.incomplete");
  const ordered_json& response = events.back()["response"];
  EXPECT_EQ(response["status"], "incomplete");
  EXPECT_EQ(response["incomplete_details"]["reason"], "max_output_tokens");
  EXPECT_EQ(response["output"][0]["status"], "incomplete");
  EXPECT_EQ(response["max_output_tokens"], 2);
}

TEST(Responses, FailsInAnEventOnceItHasBegun) {
  const auto broken = [](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
    auto events = tokens_of(request, demo_tokenizer().encode("one two", false), false);
    TokenEvent& end = events.emplace_back();
    end.finish =
        FinishReason{FinishReason::Kind::kAbort, {}, Error{ErrorCode::kInternal, "the device failed"}};
    return events;
  };
  Desk desk(broken, parsing_options());
  const auto events = events_of(desk.post(kResponses, body_of(R"("stream": true)")));
  EXPECT_EQ(events.back()["type"], "response.failed");
  EXPECT_EQ(events.back()["response"]["error"]["message"], "the device failed");
  EXPECT_EQ(desk.json(kResponses, body_of(""), 500)["error"]["message"], "the device failed");
}

TEST(Responses, GivesLogprobsOfTheTextAlone) {
  Desk desk(says("I wonder.</think>So it is."), parsing_options());
  const char* fields =
      R"("reasoning": {"effort": "low"}, "include": ["message.output_text.logprobs"], "top_logprobs": 2)";
  const ordered_json answer = desk.json(kResponses, body_of(fields));
  const ordered_json& logprobs = answer["output"][1]["content"][0]["logprobs"];
  std::string text;
  for (const ordered_json& entry : logprobs) {
    EXPECT_EQ(entry["top_logprobs"].size(), 2u);
    text += entry["token"].get<std::string>();
  }
  EXPECT_TRUE(text.starts_with("So it is.")) << text;
}

TEST(Responses, ReasoningComesBackEncodedWhenAsked) {
  Desk desk(says("I wonder.</think>So."), parsing_options());
  const char* fields =
      R"("reasoning": {"effort": "low", "summary": "auto"}, "include": ["reasoning.encrypted_content"])";
  EXPECT_EQ(desk.json(kResponses, body_of(fields))["output"][0]["encrypted_content"], "plain:I wonder.");
}

TEST(Responses, ForcesAndNarrowsTools) {
  for (const char* choice : {R"("required")", R"({"type": "function", "name": "get_time"})",
                             R"({"type": "allowed_tools", "mode": "required",
                                 "tools": [{"type": "function", "name": "get_time"}]})"}) {
    Desk desk(says(kCallText), parsing_options());
    desk.json(kResponses, body_of(std::string(kTools) + R"(, "tool_choice": )" + choice));
    EXPECT_NE(desk.sink.requests().at(0).mask, nullptr) << choice;
  }
  Desk narrow(says("ok"), parsing_options());
  narrow.json(kResponses,
              body_of(R"("tools": [{"type": "function", "name": "a"}, {"type": "function", "name": "b"}],
      "tool_choice": {"type": "allowed_tools", "mode": "auto", "tools": [{"type": "function", "name": "b"}]})"));
  EXPECT_EQ(prompt_of(narrow).find(R"("name": "a")"), std::string::npos);
  EXPECT_NE(prompt_of(narrow).find(R"("name": "b")"), std::string::npos);
  Desk formed(says("{}"), parsing_options());
  formed.json(kResponses, body_of(R"("text": {"format": {"type": "json_schema", "name": "n", "strict": true,
                                                         "schema": {"type": "object"}}})"));
  EXPECT_NE(formed.sink.requests().at(0).mask, nullptr);
}

TEST(Responses, RefusesByName) {
  Desk desk(says("ok"), parsing_options());
  const auto refused = [&](const std::string& fields, const std::string& param) {
    const ordered_json answer = desk.json(kResponses, body_of(fields), 400);
    EXPECT_EQ(answer["error"]["param"], param) << fields << answer;
  };
  refused(R"("store": true)", "store");
  refused(R"("previous_response_id": "resp_1")", "previous_response_id");
  refused(R"("background": true)", "background");
  refused(R"("conversation": "c")", "conversation");
  refused(R"("truncation": "auto")", "truncation");
  refused(R"("tools": [{"type": "web_search"}])", "tools[0].type");
  refused(R"("tools": [{"type": "function"}])", "tools[0].name");
  refused(R"("tool_choice": "required")", "tool_choice");
  refused(R"("tool_choice": {"type": "function", "name": "f"})", "tool_choice.name");
  refused(R"("include": ["x"])", "include[0]");
  refused(R"("reasoning": {"summary": "detailed"})", "reasoning.summary");
  refused(R"("reasoning": {"effort": "huge"})", "reasoning.effort");
  refused(R"("text": {"format": {"type": "json_schema", "name": "n"}})", "text.format.schema");
  refused(R"("max_output_tokens": 0)", "max_output_tokens");
  refused(R"("max_tokens": 5)", "max_tokens");
  desk.json(kResponses, body_of(R"("store": false, "previous_response_id": null, "background": false)"));
  const auto input = [&](const std::string& value, const std::string& param) {
    const ordered_json answer = desk.json(kResponses, R"({"input": )" + value + "}", 400);
    EXPECT_EQ(answer["error"]["param"], param) << value << answer;
  };
  input("5", "input");
  input("[]", "input");
  input(R"([{"type": "reasoning", "summary": []}])", "input");
  input(R"([{"type": "item_reference", "id": "x"}])", "input[0].type");
  input(R"([{"role": "user", "content": [{"type": "input_image"}]}])", "input[0].content[0].type");
  input(R"([{"role": "user", "content": [{"type": "input_text"}]}])", "input[0].content[0].text");
  input(R"([{"role": "user"}])", "input[0].content");
  input(R"([{"type": "function_call", "call_id": "c", "name": "f"}])", "input[0].arguments");
  input(R"([{"type": "reasoning", "summary": [], "encrypted_content": "gAAA"}])",
        "input[0].encrypted_content");
}

}  // namespace
}  // namespace fathom::api
