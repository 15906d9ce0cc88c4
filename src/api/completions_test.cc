// POST /v1/completions and /tokenize, /detokenize.
#include "api/fixture.h"
#include "api/request_run.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

TEST(Completions, AnswersEachKindOfPrompt) {
  const std::vector<int32_t> hello = demo_tokenizer().encode("Hello", true);
  ASSERT_EQ(hello[0], 0);  // the tokenizer adds the beginning of the sentence
  const std::string ids = ordered_json(hello).dump();
  for (const std::string& prompt : {std::string(R"("Hello")"), std::string(R"(["Hello"])"), ids,
                                    "[" + ids + "]", std::string(R"("<｜begin▁of▁sentence｜>Hello")")}) {
    Desk desk(says(" world"));
    const ordered_json answer = desk.json(kCompletions, R"({"model": "demo", "prompt": )" + prompt + "}");
    EXPECT_EQ(answer["object"], "text_completion");
    EXPECT_EQ(answer["choices"][0]["text"], " world");
    EXPECT_EQ(answer["choices"][0]["finish_reason"], "stop");
    EXPECT_EQ(desk.sink.requests().at(0).prompt, hello) << prompt;
    EXPECT_EQ(desk.sink.requests().at(0).sampling.max_new_tokens, 16);
  }
}

TEST(Completions, NumbersTheChoicesPromptByPrompt) {
  Desk desk(says("x"));
  const ordered_json answer = desk.json(kCompletions, R"({"prompt": ["a b c", "d"], "n": 2, "best_of": 2})");
  ASSERT_EQ(answer["choices"].size(), 4u);
  for (size_t i = 0; i < 4; ++i) EXPECT_EQ(answer["choices"][i]["index"], i);
  const auto requests = desk.sink.requests();
  EXPECT_EQ(requests[0].prompt, requests[1].prompt);
  EXPECT_NE(requests[1].prompt, requests[2].prompt);
  EXPECT_EQ(answer["usage"]["prompt_tokens"], requests[0].prompt.size() + requests[2].prompt.size());
}

TEST(Completions, EchoGivesThePromptAndItsLogprobs) {
  Desk desk(says(" world"));
  const ordered_json answer =
      desk.json(kCompletions, R"({"prompt": "Hé llo", "echo": true, "logprobs": 1, "max_tokens": 1})");
  const ordered_json& choice = answer["choices"][0];
  EXPECT_EQ(choice["text"].get<std::string>().substr(0, 7), "Hé llo");
  const ordered_json& lists = choice["logprobs"];
  const size_t prompt = desk.sink.requests().at(0).prompt.size();
  ASSERT_EQ(lists["tokens"].size(), prompt + 1);
  EXPECT_EQ(lists["token_logprobs"].size(), prompt + 1);
  EXPECT_TRUE(lists["token_logprobs"][0].is_null());
  EXPECT_TRUE(lists["top_logprobs"][0].is_null());
  EXPECT_EQ(lists["token_logprobs"][1], -0.25);
  EXPECT_EQ(lists["text_offset"][0], 0);
  EXPECT_EQ(lists["text_offset"][1], 0);       // the token before it is not in the text
  EXPECT_EQ(lists["text_offset"][prompt], 6);  // characters, not bytes
  const ordered_json only = desk.json(kCompletions, R"({"prompt": "Hello", "echo": true, "max_tokens": 0})");
  EXPECT_EQ(only["choices"][0]["text"], "Hello");
  EXPECT_EQ(only["usage"]["completion_tokens"], 0);
}

TEST(Completions, StreamsTextAndALastChunkWithTheFinish) {
  Desk desk(says(" a b c"));
  const auto events = desk.stream(
      kCompletions,
      R"({"prompt": "x", "stream": true, "echo": true, "stream_options": {"include_usage": true}})");
  std::string text;
  for (const ordered_json& event : events) {
    EXPECT_EQ(event["object"], "text_completion");
    if (!event["choices"].empty()) text += event["choices"][0]["text"];
  }
  EXPECT_EQ(text, "x a b c");
  EXPECT_EQ(events[events.size() - 2]["choices"][0]["finish_reason"], "stop");
  EXPECT_GT(events.back()["usage"]["completion_tokens"], 0);
}

// Usage in each chunk looks at the choice; a copy would be made of all its tokens for every one of them.
static_assert(!std::is_copy_constructible_v<Choice>);

TEST(Completions, UsageGrowsFromChunkToChunk) {
  Desk desk(says("one two three"));
  const auto chunks = desk.stream(kCompletions, R"({"prompt": "x", "stream": true,
      "stream_options": {"include_usage": true, "continuous_usage_stats": true}})");
  for (size_t i = 0; i + 1 < chunks.size(); ++i) {
    EXPECT_EQ(chunks[i]["usage"]["completion_tokens"], i + 1);
    EXPECT_EQ(chunks[i]["usage"]["prompt_tokens"], desk.sink.requests().at(0).prompt.size());
  }
}

TEST(Tokenize, TextMessagesAndBack) {
  Desk desk(says("x"));
  const ordered_json text = desk.json("/tokenize", R"({"prompt": "Hello"})");
  EXPECT_EQ(text["tokens"], ordered_json(demo_tokenizer().encode("Hello", true)));
  EXPECT_EQ(text["count"], text["tokens"].size());
  EXPECT_EQ(text["max_model_len"], 4096);
  const ordered_json bare =
      desk.json("/v1/tokenize", R"({"prompt": ["Hello"], "add_special_tokens": false})");
  EXPECT_EQ(bare["tokens"][0], ordered_json(demo_tokenizer().encode("Hello", false)));
  const ordered_json chat = desk.json("/tokenize", R"({"messages": [{"role": "user", "content": "Hi"}]})");
  desk.json(kChat, R"({"messages": [{"role": "user", "content": "Hi"}]})");
  EXPECT_EQ(chat["tokens"], ordered_json(desk.sink.requests().at(0).prompt));
  const ordered_json back = desk.json("/detokenize", R"({"tokens": )" + text["tokens"].dump() + "}");
  EXPECT_EQ(back["text"], "Hello");
  const ordered_json all =
      desk.json("/v1/detokenize", R"({"skip_special_tokens": false, "tokens": [[0, 1], [5]]})");
  EXPECT_EQ(all["text"][0], "<｜begin▁of▁sentence｜><｜end▁of▁sentence｜>");
  desk.json("/tokenize", R"({"prompt": "a", "messages": [{"role": "user", "content": "Hi"}]})", 400);
  desk.json("/tokenize", R"({})", 400);
  desk.json("/detokenize", R"({"tokens": [3072]})", 400);
}

}  // namespace
}  // namespace fathom::api
