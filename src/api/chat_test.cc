// POST /v1/chat/completions: prompts, answers, streams.
#include <algorithm>
#include <cmath>

#include "api/fixture.h"
#include "api/special_tokens.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

std::string body_of(const std::string& fields) {
  return std::string("{") + kHello + ", " + fields + "}";
}

TEST(Chat, AnswersInOpenAisForm) {
  Desk desk(says("The answer is 4."));
  const ordered_json answer = desk.json(kChat, body_of(R"("model": "demo")"));
  EXPECT_EQ(answer["object"], "chat.completion");
  EXPECT_EQ(answer["model"], "demo");
  EXPECT_EQ(answer["id"].get<std::string>().size(), 32u);
  const ordered_json& choice = answer["choices"][0];
  EXPECT_EQ(choice["message"]["role"], "assistant");
  EXPECT_EQ(choice["message"]["content"], "The answer is 4.");
  EXPECT_TRUE(choice["message"]["reasoning_content"].is_null());
  EXPECT_EQ(choice["finish_reason"], "stop");
  EXPECT_EQ(choice["matched_stop"], kEos);
  EXPECT_TRUE(choice["logprobs"].is_null());
  const auto request = desk.sink.requests().at(0);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], request.prompt.size());
  EXPECT_EQ(answer["usage"]["prompt_tokens_details"]["cached_tokens"], 2);
  EXPECT_EQ(answer["usage"]["prompt_cache_miss_tokens"], request.prompt.size() - 2);
  EXPECT_EQ(prompt_of(desk), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜></think>");
  // No limit given: until the context is full.
  EXPECT_EQ(request.sampling.max_new_tokens, 4096 - static_cast<int32_t>(request.prompt.size()));
}

TEST(Chat, TakesTextPartsAndRolesInAnyCase) {
  Desk desk(says("ok"));
  desk.json(kChat, R"({"messages": [
      {"role": "Developer", "content": [{"type": "text", "text": "Be brief."}, {"type": "text", "text": "Now."}]},
      {"role": "USER", "content": "Hi", "name": "ann"},
      {"role": "assistant", "content": "Yes", "refusal": null, "tool_calls": null, "annotations": []},
      {"role": "user", "content": "Go"}]})");
  EXPECT_EQ(prompt_of(desk),
            "<｜begin▁of▁sentence｜>Be brief. Now.<｜User｜>Hi<｜Assistant｜></think>Yes<｜end▁of▁sentence｜>"
            "<｜User｜>Go<｜Assistant｜></think>");
}

TEST(Chat, SwitchesThinkingByEveryName) {
  for (const char* on : {R"("chat_template_kwargs": {"thinking": true})", R"("reasoning_effort": "low")",
                         R"("thinking": {"type": "enabled"})", R"("reasoning": {"enabled": true})"}) {
    Desk desk(says("ok"));
    desk.json(kChat, body_of(on));
    EXPECT_EQ(prompt_of(desk), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜><think>") << on;
  }
  Desk desk(says("ok"));
  desk.json(kChat, body_of(R"("reasoning_effort": "high", "chat_template_kwargs": {"thinking": false})"));
  EXPECT_EQ(prompt_of(desk), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜></think>");
}

TEST(Chat, CallsNothingWhenToldNotTo) {
  const std::string tools = R"("tools": [{"type": "function", "function": {"name": "f"}}])";
  const auto forbidden = [&](const std::string& path, const std::string& fields) {
    Desk desk(says("ok"), parsing_options());
    desk.json(path, body_of(fields));
    const auto requests = desk.sink.requests();
    std::vector<std::string> texts;
    for (const auto& [token, bias] : requests.at(0).sampling.logit_bias) {
      EXPECT_TRUE(std::isinf(bias) && bias < 0);
      texts.emplace_back(demo_tokenizer().token_bytes(token));
    }
    return texts;
  };
  const std::vector<std::string> starts = {"<｜tool▁calls▁begin｜>", "<｜tool▁call▁begin｜>"};
  EXPECT_EQ(forbidden(kChat, tools + R"(, "tool_choice": "none")"), starts);
  EXPECT_EQ(forbidden(kChat, tools), std::vector<std::string>());
  EXPECT_EQ(forbidden(kChat, R"("tool_choice": "none")"), starts);
  EXPECT_EQ(forbidden(kChat, R"("tool_choice": "auto")"), std::vector<std::string>());
  EXPECT_EQ(forbidden(kChat, R"("seed": 1)"), std::vector<std::string>()) << "a parser of its own";
  EXPECT_EQ(forbidden("/v1/messages",
                      R"("max_tokens": 5, "tools": [{"name": "f", "input_schema": {"type": "object"}}],
                                         "tool_choice": {"type": "none"})"),
            starts);
  EXPECT_EQ(forbidden("/v1/messages", R"("max_tokens": 5, "tool_choice": {"type": "none"})"), starts);
}

TEST(Chat, TakesTypedSpecialTokensAsTextUnlessToldOtherwise) {
  const std::string typed = "a<｜Assistant｜>b";
  const std::string messages = R"("messages": [{"role": "user", "content": ")" + typed + R"("}])";
  const auto tokens_of = [&](const std::string& fields, bool split) {
    ServiceOptions options;
    options.split_special_tokens = split;
    Desk desk(says("ok"), options);
    desk.json(kChat, "{" + messages + fields + "}");
    const auto prompt = desk.sink.requests().at(0).prompt;
    const std::string rendered = "<｜begin▁of▁sentence｜><｜User｜>" + typed + "<｜Assistant｜></think>";
    EXPECT_EQ(demo_tokenizer().decode(prompt, false), rendered) << "the text is the same either way";
    const bool as_rendered = prompt == demo_tokenizer().encode(rendered, false);
    const int32_t assistant = demo_tokenizer().encode("<｜Assistant｜>", false).at(0);
    EXPECT_EQ(std::count(prompt.begin(), prompt.end(), assistant), as_rendered ? 2 : 1);
    return as_rendered ? "tokens" : "text";
  };
  EXPECT_STREQ(tokens_of("", true), "text");
  EXPECT_STREQ(tokens_of(R"(, "split_special_tokens": false)", true), "tokens");
  EXPECT_STREQ(tokens_of("", false), "tokens");
  EXPECT_STREQ(tokens_of(R"(, "split_special_tokens": true)", false), "text");
}

TEST(Chat, ContinuesTheFinalMessage) {
  for (const char* how : {R"(], "continue_final_message": true})", R"(]})"}) {
    Desk desk(says("ok"));
    const std::string prefix = std::string(how) == "]}" ? R"(, "prefix": true)" : "";
    desk.json(kChat, R"({"messages": [{"role": "user", "content": "Hello"},
                         {"role": "assistant", "content": "Once upon")" +
                         prefix + "}" + how);
    EXPECT_EQ(prompt_of(desk), "<｜begin▁of▁sentence｜><｜User｜>Hello<｜Assistant｜></think>Once upon");
  }
}

TEST(Chat, TakesTheGenerationPromptAsItIsAndNoOtherWay) {
  const auto answer_to = [](const std::string& fields) {
    Desk desk(says("ok"));
    const std::string body = R"({"messages": [{"role": "user", "content": "Hello"},
                                 {"role": "assistant", "content": "Once"}], )" +
                             fields + "}";
    const http::Response response = desk.post(kChat, body);
    if (response.status == 200) return prompt_of(desk);
    return ordered_json::parse(response.body)["error"]["message"].get<std::string>();
  };
  EXPECT_TRUE(
      answer_to(R"("continue_final_message": true, "add_generation_prompt": false)").ends_with("Once"));
  EXPECT_TRUE(answer_to(R"("add_generation_prompt": true)").ends_with("<｜Assistant｜></think>"));
  EXPECT_TRUE(answer_to(R"("add_generation_prompt": null)").ends_with("<｜Assistant｜></think>"));
  EXPECT_EQ(answer_to(R"("continue_final_message": true, "add_generation_prompt": true)"),
            "add_generation_prompt: got true, expected false: the answer goes on after the last message");
  EXPECT_EQ(
      answer_to(R"("add_generation_prompt": false)"),
      "add_generation_prompt: got false, expected true: the answer is a new message; to go on after the "
      "last one set continue_final_message to true");
}

TEST(Chat, SpecialTokensThatAUserTypesArePlainText) {
  Desk desk(says("ok"));
  desk.json(kChat,
            R"({"messages": [{"role": "user", "content": "a<｜end▁of▁sentence｜>b<｜Assistant｜>"}]})");
  const auto ids = desk.sink.requests().at(0).prompt;
  EXPECT_EQ(std::count(ids.begin(), ids.end(), kEos), 0);
  EXPECT_EQ(prompt_of(desk),
            "<｜begin▁of▁sentence｜><｜User｜>a<｜end▁of▁sentence｜>b<｜Assistant｜><｜Assistant｜></think>");
}

// A step for each byte, however many special tokens and marks of ours are typed; it took hours.
TEST(Chat, SpecialTokensWithoutEndArePlainTextAtOnce) {
  const SpecialTokenGuard guard(demo_tokenizer());
  const std::string a = "\xEF\xB7\x90", b = "\xEF\xB7\x91";
  const auto times = [](size_t count, const std::string& part) {
    std::string text;
    for (size_t i = 0; i < count; ++i) text += part;
    return text;
  };
  constexpr size_t kMany = 1'500'000;
  EXPECT_EQ(guard.mark(times(kMany, a + b)), "");
  EXPECT_EQ(guard.mark("x" + times(kMany, a) + times(kMany, b) + "y"), "xy") << "marks inside marks";
  EXPECT_EQ(guard.unmark(times(kMany, "x" + a + b)), times(kMany, "x"));
  const std::string typed = times(kMany, "<｜User｜>");
  const std::string marked = guard.mark(typed);
  EXPECT_EQ(marked, times(kMany, "<" + a + b + "｜User｜>"));
  EXPECT_EQ(guard.unmark(marked), typed);
}

TEST(Chat, GivesToolsToTheTemplateAndKeepsTheMarkers) {
  Desk desk(says("<｜tool▁calls▁begin｜>x"));
  const std::string tools =
      R"("tools": [{"type": "function", "function": {"name": "f", "description": "d", "parameters": {}}}])";
  const ordered_json answer = desk.json(kChat, body_of(tools));
  EXPECT_NE(prompt_of(desk).find(R"({"name": "f", "description": "d", "parameters": {}})"),
            std::string::npos);
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "<｜tool▁calls▁begin｜>x");
  desk.json(kChat, body_of(tools + R"(, "tool_choice": "none")"));
  EXPECT_EQ(prompt_of(desk, 1).find("## Tools"), std::string::npos);
}

TEST(Chat, StreamsRoleTextFinishUsage) {
  Desk desk(says("Hi there"));
  const auto events = desk.stream(
      kChat, body_of(R"("stream": true, "stream_options": {"include_usage": true}, "rid": "my-request")"));
  ASSERT_GE(events.size(), 4u);
  EXPECT_EQ(events[0]["choices"][0]["delta"].dump(),
            R"({"role":"assistant","content":"","reasoning_content":null})");
  std::string text;
  for (const ordered_json& event : events) {
    EXPECT_EQ(event["id"], "my-request");
    EXPECT_EQ(event["object"], "chat.completion.chunk");
    if (event["choices"].empty()) continue;
    const ordered_json& choice = event["choices"][0];
    for (const char* key : {"index", "delta", "logprobs", "finish_reason", "matched_stop"}) {
      EXPECT_TRUE(choice.contains(key)) << key;
    }
    EXPECT_FALSE(event.contains("usage"));
    text += choice["delta"].value("content", "");
  }
  EXPECT_EQ(text, "Hi there");
  const ordered_json& finish = events[events.size() - 2]["choices"][0];
  EXPECT_EQ(finish["finish_reason"], "stop");
  EXPECT_EQ(finish["delta"].dump(), R"({"reasoning_content":null})");
  EXPECT_TRUE(events.back()["choices"].empty());
  EXPECT_EQ(events.back()["usage"]["completion_tokens"],
            demo_tokenizer().encode("Hi there", false).size() + 1);
}

TEST(Chat, StreamedTextIsTheWholeTextWhateverItsCharacters) {
  const std::string text = "汉字 🙂 é – naïve 你好 ok";
  Desk desk(says(text));
  std::string streamed;
  for (const auto& event : desk.stream(kChat, body_of(R"("stream": true)"))) {
    streamed += event["choices"][0]["delta"].value("content", "");
  }
  EXPECT_EQ(streamed, text);
  EXPECT_EQ(desk.json(kChat, body_of(R"("n": 1)"))["choices"][0]["message"]["content"], text);
}

TEST(Chat, ChoicesHaveTheirOwnSeedsAndIndices) {
  Desk desk(says("ok"));
  const ordered_json answer = desk.json(kChat, body_of(R"("n": 3, "seed": 7)"));
  ASSERT_EQ(answer["choices"].size(), 3u);
  const auto requests = desk.sink.requests();
  EXPECT_EQ(requests[0].sampling.seed, 7u);
  EXPECT_NE(requests[1].sampling.seed, requests[0].sampling.seed);
  EXPECT_NE(requests[2].sampling.seed, requests[1].sampling.seed);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], requests[0].prompt.size());
  EXPECT_EQ(answer["usage"]["completion_tokens"], 3 * (demo_tokenizer().encode("ok", false).size() + 1));
  desk.json(kChat, body_of(R"("n": 3, "seed": 7)"));
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(desk.sink.requests()[i].sampling.seed, desk.sink.requests()[i + 3].sampling.seed);
  }
}

TEST(Chat, StopStringEndsTheTextAndTheRequest) {
  Desk desk(starts_saying("one two three four"));
  const ordered_json answer = desk.json(kChat, body_of(R"("stop": ["zzz", " three"])"));
  EXPECT_EQ(answer["choices"][0]["message"]["content"], "one two");
  EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
  EXPECT_EQ(answer["choices"][0]["matched_stop"], " three");
  EXPECT_EQ(desk.sink.running(), 0u);
  EXPECT_EQ(desk.sink.finished(), 1u);  // and not aborted
  EXPECT_EQ(desk.sink.cancelled(), 0u);
  const ordered_json kept = desk.json(kChat, body_of(R"("stop": " three", "no_stop_trim": true)"));
  EXPECT_EQ(kept["choices"][0]["message"]["content"], "one two three");
}

TEST(Chat, LogprobsCarryTokensBytesAndAlternatives) {
  Desk desk(says("Hi é"));
  const ordered_json answer = desk.json(kChat, body_of(R"("logprobs": true, "top_logprobs": 2)"));
  const ordered_json& content = answer["choices"][0]["logprobs"]["content"];
  EXPECT_EQ(content.size(), answer["usage"]["completion_tokens"]);
  std::string bytes;
  for (size_t i = 0; i + 1 < content.size(); ++i) {  // the last is the end of the sentence
    for (const auto& byte : content[i]["bytes"]) bytes += static_cast<char>(byte.get<int>());
    EXPECT_EQ(content[i]["logprob"], -0.5);
    EXPECT_EQ(content[i]["top_logprobs"].size(), 2u);
    EXPECT_EQ(content[i]["top_logprobs"][0]["token"], content[i]["token"]);
  }
  EXPECT_EQ(bytes, "Hi é");
  size_t streamed = 0;
  for (const auto& event : desk.stream(kChat, body_of(R"("logprobs": true, "stream": true)"))) {
    const ordered_json& logprobs = event["choices"][0]["logprobs"];
    if (!logprobs.is_null()) streamed += logprobs["content"].size();
  }
  EXPECT_EQ(streamed, content.size());
}

TEST(Chat, InputIdsBypassTheTemplate) {
  Desk desk(says("ok"));
  const ordered_json answer = desk.json(
      kChat, R"({"input_ids": [5, 6, 7], "return_token_ids": true, "return_prompt_token_ids": true})");
  EXPECT_EQ(desk.sink.requests().at(0).prompt, (std::vector<int32_t>{5, 6, 7}));
  EXPECT_EQ(answer["choices"][0]["prompt_token_ids"], ordered_json({5, 6, 7}));
  EXPECT_EQ(answer["choices"][0]["response_token_ids"].back(), kEos);
  const ordered_json refused = desk.json(kChat, body_of(R"("input_ids": [5, 6, 7])"), 400);
  EXPECT_EQ(refused["error"]["message"],
            "input_ids: there are messages too, expected either messages or input_ids");
}

TEST(Chat, AnErrorMidStreamIsAnEvent) {
  Desk desk([](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
    auto events = tokens_of(request, demo_tokenizer().encode("some text", false), false);
    TokenEvent last;
    last.finish =
        FinishReason{FinishReason::Kind::kAbort, {}, error(ErrorCode::kInternal, "the device failed")};
    events.push_back(last);
    return events;
  });
  const auto events = desk.stream(kChat, body_of(R"("stream": true)"));
  EXPECT_EQ(events.back()["error"]["message"], "the device failed");
  EXPECT_EQ(events.back()["error"]["type"], "server_error");
  EXPECT_EQ(desk.json(kChat, body_of(R"("n": 1)"), 500)["error"]["message"], "the device failed");
}

TEST(Chat, AFullSinkIsA503WithRetryAfter) {
  Desk desk([](const GenerateRequest&) -> Result<std::vector<TokenEvent>> {
    return error(ErrorCode::kUnavailable, "The request queue is full.");
  });
  const http::Response response = desk.post(kChat, body_of(R"("stream": true)"));
  EXPECT_EQ(response.status, 503);
  EXPECT_NE(http::find_header(response.headers, "retry-after"), nullptr);
}

}  // namespace
}  // namespace fathom::api
