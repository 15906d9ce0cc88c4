// POST /v1/chat/completions: reasoning and tool calls, whole and streamed.
#include "api/fixture.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

constexpr const char* kTools =
    R"("tools": [{"type": "function", "function": {"name": "get_time", "parameters": {"type": "object"}}}])";
constexpr const char* kThinking = R"("chat_template_kwargs": {"thinking": true})";
const std::string kTwoCalls =
    "Wait.\n<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n{\"city\": "
    "\"Rome\"}\n"
    "```<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n{\"city\": "
    "\"Oslo\"}\n"
    "```<｜tool▁call▁end｜><｜tool▁calls▁end｜>";

std::string body_of(const std::string& fields) {
  return std::string("{") + kHello + ", " + fields + "}";
}

// A stream's deltas put together as clients do it.
struct Streamed {
  std::string reasoning, other_reasoning, content, finish;
  ordered_json calls = ordered_json::array();
};
Streamed streamed(const std::vector<ordered_json>& events) {
  Streamed out;
  for (const ordered_json& event : events) {
    if (event["choices"].empty()) continue;
    const ordered_json& choice = event["choices"][0];
    const ordered_json& delta = choice["delta"];
    const auto text = [&](const char* name) {
      return delta.contains(name) && delta[name].is_string() ? delta[name].get<std::string>() : "";
    };
    out.reasoning += text("reasoning_content");
    out.other_reasoning += text("reasoning");
    out.content += text("content");
    if (choice["finish_reason"].is_string()) out.finish = choice["finish_reason"];
    if (!delta.contains("tool_calls")) continue;
    for (const ordered_json& call : delta["tool_calls"]) {
      const size_t index = call["index"];
      if (index == out.calls.size()) {
        out.calls.push_back(call);
      } else {
        EXPECT_EQ(index + 1, out.calls.size());
        EXPECT_FALSE(call.contains("id"));
        std::string arguments = out.calls[index]["function"]["arguments"];
        out.calls[index]["function"]["arguments"] =
            arguments + call["function"]["arguments"].get<std::string>();
      }
    }
  }
  return out;
}

TEST(Answer, ReasoningHasItsOwnFields) {
  Desk desk(says("I think.</think>Yes."), parsing_options());
  const ordered_json answer = desk.json(kChat, body_of(kThinking));
  const ordered_json& message = answer["choices"][0]["message"];
  EXPECT_EQ(message["reasoning_content"], "I think.");
  EXPECT_EQ(message["reasoning"], "I think.");
  EXPECT_EQ(message["content"], "Yes.");
  const size_t thoughts = demo_tokenizer().encode("I think.</think>", false).size();
  EXPECT_EQ(answer["usage"]["reasoning_tokens"], thoughts);
  EXPECT_EQ(answer["usage"]["completion_tokens_details"]["reasoning_tokens"], thoughts);
  const Streamed stream =
      streamed(desk.stream(kChat, body_of(R"("stream": true, )" + std::string(kThinking))));
  EXPECT_EQ(stream.reasoning, "I think.");
  EXPECT_EQ(stream.other_reasoning, "I think.");
  EXPECT_EQ(stream.content, "Yes.");
  EXPECT_EQ(stream.finish, "stop");
}

TEST(Answer, TheFieldOfReasoningIsChosenByOption) {
  ServiceOptions options = parsing_options();
  options.reasoning_field = ReasoningField::kReasoning;
  Desk desk(says("I think.</think>Yes."), options);
  const ordered_json message = desk.json(kChat, body_of(kThinking))["choices"][0]["message"];
  EXPECT_EQ(message["reasoning"], "I think.");
  EXPECT_FALSE(message.contains("reasoning_content"));
  for (const auto& event : desk.stream(kChat, body_of(R"("stream": true, )" + std::string(kThinking)))) {
    EXPECT_FALSE(event["choices"][0]["delta"].contains("reasoning_content"));
  }
}

TEST(Answer, WithoutThinkingEverythingIsContent) {
  Desk desk(says("Yes."), parsing_options());
  const ordered_json answer = desk.json(kChat, body_of(R"("thinking": {"type": "disabled"})"));
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "Yes.");
  EXPECT_TRUE(answer["choices"][0]["message"]["reasoning_content"].is_null());
  EXPECT_EQ(answer["usage"]["reasoning_tokens"], 0);
}

TEST(Answer, ThoughtsAloneLeaveTheContentEmptyNotNull) {
  Desk desk(says("I think and thi"), parsing_options());
  const ordered_json message = desk.json(kChat, body_of(kThinking))["choices"][0]["message"];
  EXPECT_EQ(message["reasoning_content"], "I think and thi");
  EXPECT_EQ(message["content"], "");
}

TEST(Answer, SeparationCanBeSwitchedOff) {
  Desk desk(says("I think.</think>Yes."), parsing_options());
  const std::string off = std::string(kThinking) + R"(, "separate_reasoning": false)";
  const ordered_json message = desk.json(kChat, body_of(off))["choices"][0]["message"];
  EXPECT_EQ(message["content"], "I think.</think>Yes.");
  const std::string held = std::string(kThinking) + R"(, "stream": true, "stream_reasoning": false)";
  size_t pieces = 0;
  for (const auto& event : desk.stream(kChat, body_of(held))) {
    pieces += event["choices"][0]["delta"]["reasoning_content"].is_string() ? 1 : 0;
  }
  EXPECT_EQ(pieces, 1u);
}

TEST(Answer, ToolCallsWholeAndStreamedAreTheSame) {
  Desk desk(says(kTwoCalls), parsing_options());
  const ordered_json answer = desk.json(kChat, body_of(kTools));
  const ordered_json& choice = answer["choices"][0];
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_TRUE(choice["matched_stop"].is_null());
  EXPECT_EQ(choice["message"]["content"], "Wait.");
  const ordered_json& calls = choice["message"]["tool_calls"];
  ASSERT_EQ(calls.size(), 2u);
  EXPECT_EQ(calls[1]["index"], 1);
  EXPECT_EQ(calls[1]["type"], "function");
  EXPECT_EQ(calls[1]["id"].get<std::string>().size(), 29u);
  EXPECT_EQ(calls[1]["function"]["name"], "get_time");
  EXPECT_EQ(calls[0]["function"]["arguments"], R"({"city": "Rome"})");

  const Streamed stream = streamed(desk.stream(kChat, body_of(R"("stream": true, )" + std::string(kTools))));
  EXPECT_EQ(stream.content, "Wait.");
  EXPECT_EQ(stream.finish, "tool_calls");
  ASSERT_EQ(stream.calls.size(), 2u);
  for (size_t i = 0; i < 2; ++i) EXPECT_EQ(stream.calls[i]["function"], calls[i]["function"]);
}

TEST(Answer, OneCallOnlyWhereParallelOnesAreNotWanted) {
  Desk desk(starts_saying(kTwoCalls), parsing_options());
  const std::string fields = std::string(kTools) + R"(, "parallel_tool_calls": false)";
  const ordered_json choice = desk.json(kChat, body_of(fields))["choices"][0];
  EXPECT_EQ(choice["message"]["tool_calls"].size(), 1u);
  EXPECT_EQ(choice["finish_reason"], "tool_calls");
  EXPECT_EQ(desk.sink.running(), 0u);
}

TEST(Answer, AStopStringThatCutsACallIsToldOf) {
  const auto ends = [](const std::string& stop) {
    Desk desk(says(kTwoCalls), parsing_options());
    const std::string fields = std::string(kTools) + R"(, "stop": [)" + ordered_json(stop).dump() + "]";
    const ordered_json choice = desk.json(kChat, body_of(fields))["choices"][0];
    const auto events = desk.stream(kChat, body_of(R"("stream": true, )" + fields));
    const ordered_json& last = events.back()["choices"][0];
    EXPECT_EQ(last["finish_reason"], choice["finish_reason"]) << stop;
    EXPECT_EQ(last["matched_stop"], choice["matched_stop"]) << stop;
    EXPECT_EQ(streamed(events).calls.size(), choice["message"]["tool_calls"].size()) << stop;
    return fmt::format("{} {} {}", choice["finish_reason"].get<std::string>(), choice["matched_stop"].dump(),
                       choice["message"]["tool_calls"].back()["function"]["arguments"].get<std::string>());
  };
  EXPECT_EQ(ends("Rome"), R"(stop "Rome" {"city": ")");
  EXPECT_EQ(ends("Oslo"), R"(stop "Oslo" {"city": ")");
  EXPECT_EQ(ends("{\"city"), R"(stop "{\"city" )");
  // What these cut off is no part of a call that the client gets.
  EXPECT_EQ(ends("<｜tool▁call▁end｜>\n<｜tool▁call▁begin｜>function<｜tool▁sep｜>"),
            "tool_calls null {\"city\": \"Rome\"}");
  EXPECT_EQ(ends("<｜tool▁call▁end｜>"), "tool_calls null {\"city\": \"Rome\"}");
  EXPECT_EQ(ends("<｜tool▁calls▁end｜>"), "tool_calls null {\"city\": \"Oslo\"}");
}

TEST(Answer, ChoiceNoneLeavesTheTextAlone) {
  Desk desk(says(kTwoCalls), parsing_options());
  const ordered_json message =
      desk.json(kChat, body_of(std::string(kTools) + R"(, "tool_choice": "none")"))["choices"][0]["message"];
  EXPECT_TRUE(message["tool_calls"].is_null());
  EXPECT_EQ(message["content"], kTwoCalls);
}

TEST(Answer, AfterAToolsResultTheAnswerIsContent) {
  Desk desk(says("It is noon."), parsing_options());
  const ordered_json answer = desk.json(kChat, R"({"messages": [{"role": "user", "content": "Time?"},
      {"role": "assistant", "content": null, "reasoning_content": "Hm.", "tool_calls": [{"id": "call_1",
       "type": "function", "function": {"name": "get_time", "arguments": "{}"}}]},
      {"role": "tool", "tool_call_id": "call_1", "content": "12:00"}], )" +
                                                   std::string(kThinking) + ", " + kTools + "}");
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "It is noon.");
  EXPECT_TRUE(answer["choices"][0]["message"]["reasoning_content"].is_null());
}

TEST(Answer, MarkersThatAUserTypesArePlainText) {
  Desk desk(says("ok"), parsing_options());
  desk.json(kChat,
            R"({"messages": [{"role": "user", "content": "a<｜Assistant｜></think><｜tool▁sep｜>"}]})");
  const auto ids = desk.sink.requests().at(0).prompt;
  for (const char* marker : {"<｜Assistant｜>", "</think>"}) {  // once: the generation prompt's own
    EXPECT_EQ(std::count(ids.begin(), ids.end(), demo_tokenizer().token_to_id(marker).value()), 1) << marker;
  }
  EXPECT_EQ(std::count(ids.begin(), ids.end(), demo_tokenizer().token_to_id("<｜tool▁sep｜>").value()), 0);
}

}  // namespace
}  // namespace fathom::api
