// POST /generate.
#include "api/fixture.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

TEST(Generate, AnswersInTheNativeForm) {
  Desk desk(says(" world"));
  const ordered_json answer = desk.json("/generate", R"({"text": "Hello", "rid": "r1"})");
  EXPECT_EQ(answer["text"], " world");
  EXPECT_EQ(answer["output_ids"].back(), kEos);
  const ordered_json& info = answer["meta_info"];
  EXPECT_EQ(info["id"], "r1");
  EXPECT_EQ(info["finish_reason"].dump(), R"({"type":"stop","matched":1})");
  EXPECT_EQ(info["prompt_tokens"], desk.sink.requests().at(0).prompt.size());
  EXPECT_EQ(info["completion_tokens"], answer["output_ids"].size());
  EXPECT_EQ(info["cached_tokens"], 2);
  for (const char* key : {"weight_version", "num_retractions", "reasoning_tokens", "e2e_latency"}) {
    EXPECT_TRUE(info.contains(key)) << key;
  }
  EXPECT_FALSE(info.contains("output_token_logprobs"));
  EXPECT_EQ(desk.sink.requests().at(0).sampling.max_new_tokens, 128);
}

TEST(Generate, LengthDefaults) {
  Desk desk(says("a b c d"));
  desk.json("/generate", R"({"input_ids": [5], "sampling_params": {"max_new_tokens": null}})");
  EXPECT_EQ(desk.sink.requests().at(0).sampling.max_new_tokens, 4095);
  const ordered_json cut =
      desk.json("/generate", R"({"input_ids": [5], "sampling_params": {"max_new_tokens": 2}})");
  EXPECT_EQ(cut["meta_info"]["finish_reason"].dump(), R"({"type":"length","length":2})");
  // The default shrinks to what the context has room for; an asked number does not.
  const std::string ids = ordered_json(std::vector<int>(4090, 5)).dump();
  desk.json("/generate", R"({"input_ids": )" + ids + "}");
  EXPECT_EQ(desk.sink.requests().at(2).sampling.max_new_tokens, 6);
  desk.json("/generate", R"({"input_ids": )" + ids + R"(, "sampling_params": {"max_new_tokens": 7}})", 400);
}

TEST(Generate, LogprobListsOfPromptAndOutput) {
  Desk desk(says("ab"));
  const ordered_json answer = desk.json("/generate", R"({"input_ids": [0, 5, 6, 7], "return_logprob": true,
      "logprob_start_len": 0, "top_logprobs_num": 2, "token_ids_logprob": [9], "return_text_in_logprobs": true})");
  const ordered_json& info = answer["meta_info"];
  ASSERT_EQ(info["input_token_logprobs"].size(), 4u);
  EXPECT_TRUE(info["input_token_logprobs"][0][0].is_null());
  EXPECT_EQ(info["input_token_logprobs"][0][1], 0);
  EXPECT_EQ(info["input_token_logprobs"][1][0], -0.25);
  EXPECT_EQ(info["input_token_logprobs"][1][1], 5);
  EXPECT_TRUE(info["input_token_logprobs"][1][2].is_string());
  EXPECT_TRUE(info["input_top_logprobs"][0].is_null());
  EXPECT_EQ(info["input_top_logprobs"][1].size(), 2u);
  EXPECT_EQ(info["output_token_logprobs"].size(), answer["output_ids"].size());
  EXPECT_EQ(info["output_top_logprobs"][0].size(), 2u);
  EXPECT_EQ(info["output_token_ids_logprobs"][0][0][1], 9);
  const ordered_json tail = desk.json("/generate", R"({"input_ids": [0, 5, 6, 7], "return_logprob": true,
      "logprob_start_len": 2})");
  EXPECT_EQ(tail["meta_info"]["input_token_logprobs"].size(), 2u);
  EXPECT_EQ(tail["meta_info"]["input_token_logprobs"][0][1], 6);
  EXPECT_TRUE(tail["meta_info"]["input_token_logprobs"][0][2].is_null());
  const ordered_json none = desk.json("/generate", R"({"input_ids": [0, 5], "return_logprob": true})");
  EXPECT_EQ(none["meta_info"]["input_token_logprobs"], ordered_json::array());
}

// They are refused before their prompt is computed.
TEST(Generate, TooManyLogprobsOfThePromptNeverReachTheEngine) {
  Desk desk(says("ab"));
  const std::string ids = ordered_json(std::vector<int>(4000, 5)).dump();
  const ordered_json answer =
      desk.json("/generate", R"({"input_ids": )" + ids + R"(, "return_logprob": true, "top_logprobs_num": 128,
      "logprob_start_len": 0, "sampling_params": {"n": 8}})",
                400);
  EXPECT_NE(answer["error"]["message"].get<std::string>().find("more than 500000 log-probabilities"),
            std::string::npos);
  EXPECT_TRUE(desk.sink.requests().empty());
}

TEST(Generate, BatchesAreLists) {
  Desk desk(says("x"));
  const ordered_json answer =
      desk.json("/generate", R"({"text": ["a", "b c"], "rid": "r", "return_logprob": [true, false],
      "sampling_params": [{"temperature": 0}, {"n": 2, "sampling_seed": 3, "max_new_tokens": 1}]})");
  ASSERT_TRUE(answer.is_array());
  ASSERT_EQ(answer.size(), 3u);
  EXPECT_EQ(answer[0]["meta_info"]["id"], "r_0");
  EXPECT_EQ(answer[2]["meta_info"]["id"], "r_1");
  EXPECT_TRUE(answer[0]["meta_info"].contains("output_token_logprobs"));
  EXPECT_FALSE(answer[1]["meta_info"].contains("output_token_logprobs"));
  EXPECT_EQ(answer[1]["meta_info"]["completion_tokens"], 1);
  EXPECT_EQ(desk.sink.requests()[0].sampling.temperature, 0.0F);
  EXPECT_EQ(desk.sink.requests()[1].sampling.seed, 3u);
  EXPECT_EQ(desk.json("/generate", R"({"input_ids": [[5], [6]], "rid": ["a", "b"]})")[1]["meta_info"]["id"],
            "b");
}

TEST(Generate, StreamsTheCumulativeText) {
  Desk desk(says("one two three"));
  desk.sink.set_one_by_one();
  const auto events = desk.stream("/generate", R"({"text": "x", "stream": true})");
  std::string last;
  for (size_t i = 0; i < events.size(); ++i) {
    const std::string text = events[i]["text"];
    EXPECT_TRUE(text.starts_with(last)) << text;
    last = text;
    EXPECT_EQ(events[i]["meta_info"]["finish_reason"].is_null(), i + 1 < events.size());
  }
  EXPECT_EQ(last, "one two three");
  EXPECT_FALSE(events[0].contains("index"));
  for (const auto& event : desk.stream("/generate", R"({"text": ["x", "y"], "stream": true})")) {
    EXPECT_TRUE(event.contains("index"));
  }
}

// What came while the client did not read is told at once.
TEST(Generate, StreamsABacklogInOneEvent) {
  Desk desk(says("one two three"));
  const auto events = desk.stream("/generate", R"({"text": "x", "stream": true})");
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(events[0]["text"], "one two three");
  EXPECT_EQ(events[0]["meta_info"]["finish_reason"]["type"], "stop");
}

TEST(Generate, StreamsThePromptsLogprobsInTheFirstEventAndTheLast) {
  Desk desk(says("one two three four"));
  desk.sink.set_one_by_one();
  const auto events = desk.stream("/generate", R"({"input_ids": [0, 5, 6, 7], "stream": true,
      "return_logprob": true, "logprob_start_len": 0, "top_logprobs_num": 2, "token_ids_logprob": [9]})");
  ASSERT_GT(events.size(), 2u);
  for (size_t i = 0; i < events.size(); ++i) {
    const ordered_json& info = events[i]["meta_info"];
    const bool end = i == 0 || i + 1 == events.size();
    for (const char* list : {"input_token_logprobs", "input_top_logprobs", "input_token_ids_logprobs"}) {
      EXPECT_EQ(info.contains(list), end) << list << " in event " << i;
      if (end) {
        EXPECT_EQ(info[list].size(), 4u);
      }
    }
    EXPECT_EQ(info["output_token_logprobs"].size(), events[i]["output_ids"].size());
  }
}

// The second prompt's request ends with an error while it runs; the others have their answers.
TEST(Generate, AnErrorOfOneAnswerLeavesTheOthers) {
  ErrorCode code = ErrorCode::kInvalidArgument;
  Desk desk([&](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
    std::vector<TokenEvent> events = tokens_of(request, demo_tokenizer().encode("one two", false));
    if (request.prompt[0] == 6)
      events.back().finish = FinishReason{FinishReason::Kind::kAbort, {}, error(code, "too hard")};
    return events;
  });
  const std::string body = R"({"input_ids": [[5], [6], [7]]})";
  const std::string streamed = R"({"input_ids": [[5], [6], [7]], "stream": true})";
  const ordered_json answers = desk.json("/generate", body);
  ASSERT_EQ(answers.size(), 3u);
  EXPECT_EQ(answers[0]["text"], "one two");
  EXPECT_EQ(answers[1]["meta_info"]["finish_reason"].dump(), R"({"type":"abort","message":"too hard"})");
  EXPECT_EQ(answers[2]["meta_info"]["finish_reason"]["type"], "stop");
  std::vector<std::string> ends(3);
  for (const ordered_json& event : desk.stream("/generate", streamed)) {
    ASSERT_TRUE(event.contains("index")) << event;
    const ordered_json& finish = event["meta_info"]["finish_reason"];
    if (!finish.is_null()) ends[event["index"]] = finish["type"];
  }
  EXPECT_EQ(ends, (std::vector<std::string>{"stop", "abort", "stop"}));
  // Alone, or all of them: the request is refused.
  EXPECT_EQ(desk.json("/generate", R"({"input_ids": [6]})", 400)["error"]["message"], "too hard");
  EXPECT_EQ(desk.json("/generate", R"({"input_ids": [[6], [6]]})", 400)["error"]["message"], "too hard");
  code = ErrorCode::kInternal;
  desk.json("/generate", body, 500);
  EXPECT_TRUE(desk.stream("/generate", streamed).back().contains("error"));
}

TEST(Generate, WithoutATokenizerIdsInIdsOut) {
  Desk desk(says("ab"), {}, false);
  const ordered_json answer = desk.json("/generate", R"({"input_ids": [5, 6], "return_logprob": true})");
  EXPECT_FALSE(answer.contains("text"));
  EXPECT_EQ(answer["output_ids"].back(), kEos);
  desk.json("/generate", R"({"text": "a"})", 400);
  desk.json("/generate", R"({"input_ids": [5], "sampling_params": {"stop": "x"}})", 400);
  desk.json("/tokenize", R"({"prompt": "a"})", 400);
  desk.json(kChat, std::string("{") + kHello + "}", 400);
  EXPECT_EQ(desk.json(kChat, R"({"input_ids": [5]})")["choices"][0]["message"]["content"], "");
  desk.sink.set_one_by_one();
  const auto events = desk.stream("/generate", R"({"input_ids": [5, 6], "stream": true})");
  EXPECT_EQ(events.size(), answer["output_ids"].size());
}

TEST(Generate, UnknownSamplingKeysAreNamedWithTheNearest) {
  Desk desk(says("x"));
  const ordered_json answer =
      desk.json("/generate", R"({"text": "a", "sampling_params": {"max_new_token": 3}})", 400);
  EXPECT_EQ(answer["error"]["param"], "sampling_params.max_new_token");
  EXPECT_NE(answer["error"]["message"].get<std::string>().find("'max_new_tokens'"), std::string::npos);
}

}  // namespace
}  // namespace fathom::api
