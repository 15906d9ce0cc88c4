// Requests that must be refused, each with a message that names the field.
#include <limits>

#include "api/fixture.h"
#include "api/json_body.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

// Posts {messages, `fields`} and expects a 400 about `param` that holds `message`.
void expect_refused(Desk& desk, const std::string& fields, const std::string& param,
                    const std::string& message) {
  const ordered_json answer = desk.json(kChat, std::string("{") + kHello + ", " + fields + "}", 400);
  EXPECT_EQ(answer["error"]["param"], param) << fields;
  EXPECT_NE(answer["error"]["message"].get<std::string>().find(message), std::string::npos)
      << fields << "\n"
      << answer["error"]["message"];
}

TEST(BadInput, ValuesOutOfRangeOrOfTheWrongType) {
  Desk desk(says("x"));
  const struct {
    const char *fields, *param, *message;
  } kCases[] = {
      {R"("temperature": "hot")", "temperature", "got the string \"hot\", expected a number from 0"},
      {R"("temperature": -1)", "temperature", "got -1"},
      {R"("temperature": 1e300)", "temperature", "got 1e+300"},
      {R"("top_p": 0)", "top_p", "above 0 and up to 1"},
      {R"("top_p": 1.5)", "top_p", "got 1.5"},
      {R"("top_k": 0)", "top_k", "at least 1"},
      {R"("top_k": 2.5)", "top_k", "an integer"},
      {R"("min_p": true)", "min_p", "got true"},
      {R"("presence_penalty": 3)", "presence_penalty", "from -2 to 2"},
      {R"("repetition_penalty": 0)", "repetition_penalty", "above 0"},
      {R"("max_tokens": 0)", "max_tokens", "an integer from 1"},
      {R"("max_tokens": 99999999999999999999)", "max_tokens", "an integer"},
      {R"("min_tokens": 9, "max_tokens": 3)", "min_tokens", "above the largest"},
      {R"("n": 0)", "n", "from 1 to 128"},
      {R"("n": 1000000)", "n", "from 1 to 128"},
      {R"("seed": "x")", "seed", "an integer"},
      {R"("stop": [""])", "stop[0]", "got 0 bytes"},
      {R"("stop": 5)", "stop", "a string or a list"},
      {R"("stop": [1])", "stop[0]", "expected a string"},
      {R"("stop_token_ids": [9999])", "stop_token_ids[0]", "from 0 to 3071"},
      {R"("logit_bias": {"x": 1})", "logit_bias", "expected a token id"},
      {R"("logit_bias": {"5": 101})", "logit_bias.5", "from -100 to 100"},
      {R"("logit_bias": {"5": 1, "05": 2})", "logit_bias", "twice"},
      {R"("logprobs": 5)", "logprobs", "true or false"},
      {R"("logprobs": true, "top_logprobs": 21)", "top_logprobs", "from 0 to 20"},
      {R"("top_logprobs": 2)", "top_logprobs", "needs logprobs"},
      {R"("stream": 1)", "stream", "true or false"},
      {R"("stream_options": {"include_usage": true})", "stream_options", "only allowed when stream"},
      {R"("stream": true, "stream_options": {"usage": true})", "stream_options.usage", "not a field"},
      {R"("temprature": 1)", "temprature", "did you mean 'temperature'"},
      {R"("reasoning_effort": "huge")", "reasoning_effort", "one of none"},
      {R"("chat_template_kwargs": {"messages": 1})", "chat_template_kwargs.messages", "set by the server"},
      {R"("rid": 5)", "rid", "expected a string"},
      {R"("priority": 1.5)", "priority", "an integer"},
  };
  for (const auto& one : kCases) expect_refused(desk, one.fields, one.param, one.message);
  EXPECT_TRUE(desk.sink.requests().empty());
}

TEST(BadInput, WhatIsNotAvailableIsRefusedByName) {
  Desk desk(says("x"));
  for (const char* field :
       {R"("stop_regex": "x")", R"("functions": [{"name": "f"}])", R"("audio": {"voice": "x"})",
        R"("modalities": ["text", "audio"])", R"("lora_path": "x")", R"("return_hidden_states": true)",
        R"("session_params": {"id": 1})", R"("bootstrap_host": "x")"}) {
    const ordered_json answer = desk.json(kChat, std::string("{") + kHello + ", " + field + "}", 400);
    EXPECT_EQ(answer["error"]["code"], "unsupported_field") << field;
    const std::string name = answer["error"]["param"];
    EXPECT_NE(std::string(field).find("\"" + name + "\""), std::string::npos) << field;
  }
  desk.json(kCompletions, R"({"prompt": [5], "suffix": "b"})", 400);
  desk.json(kCompletions, R"({"prompt": "a", "best_of": 3})", 400);
  EXPECT_TRUE(desk.sink.requests().empty());
}

TEST(BadInput, FieldsThatAskForNothingOrOnlyLabelAreTaken) {
  Desk desk(says("x"));
  desk.json(kChat, std::string("{") + kHello + R"(, "model": "default", "user": "ann", "store": false,
      "metadata": {"a": "b"}, "service_tier": "auto", "parallel_tool_calls": true, "response_format": {"type": "text"},
      "tools": [], "tool_choice": "auto", "functions": [], "regex": null, "lora_path": null, "max_tokens": null,
      "stop": null, "return_hidden_states": false, "logit_bias": {}, "modalities": ["text"], "max_completion_tokens": 5.0})");
  EXPECT_EQ(desk.sink.requests().at(0).sampling.max_new_tokens, 5);
}

TEST(BadInput, Messages) {
  Desk desk(says("x"));
  const struct {
    const char *messages, *param;
  } kCases[] = {
      {R"([])", "messages"},
      {R"("Hello")", "messages"},
      {R"(["Hello"])", "messages[0]"},
      {R"([{"content": "x"}])", "messages[0].role"},
      {R"([{"role": "robot", "content": "x"}])", "messages[0].role"},
      {R"([{"role": "user"}])", "messages[0].content"},
      {R"([{"role": "user", "content": 5}])", "messages[0].content"},
      {R"([{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}])",
       "messages[0].content[0].type"},
      {R"([{"role": "user", "content": [{"type": "text"}]}])", "messages[0].content[0].text"},
      {R"([{"role": "user", "content": "x", "tool_calls": []}])", "messages[0].tool_calls"},
      {R"([{"role": "assistant", "tool_calls": [{}]}])", "messages[0].tool_calls[0]"},
      {R"([{"role": "assistant", "content": "x", "prefix": true}])", "messages"},
      {R"([{"role": "user", "content": "x", "prefix": true}])", "messages[0].role"},
  };
  for (const auto& one : kCases) {
    const ordered_json answer = desk.json(kChat, R"({"messages": )" + std::string(one.messages) + "}", 400);
    EXPECT_EQ(answer["error"]["param"], one.param) << one.messages;
    EXPECT_EQ(answer["error"]["type"], "invalid_request_error");
  }
}

TEST(BadInput, TheContextHasAnEnd) {
  Desk desk(says("x"));
  const std::string ids = ordered_json(std::vector<int>(4096, 5)).dump();
  const ordered_json long_prompt = desk.json("/generate", R"({"input_ids": )" + ids + "}", 400);
  EXPECT_EQ(long_prompt["error"]["message"],
            "The input (4096 tokens) is longer than the model's context length (4096 tokens).");
  EXPECT_EQ(long_prompt["error"]["code"], "context_length_exceeded");
  const ordered_json total = desk.json(kChat, std::string("{") + kHello + R"(, "max_tokens": 4096})", 400);
  EXPECT_NE(total["error"]["message"].get<std::string>().find(
                "Requested token count exceeds the model's maximum context length of 4096 tokens."),
            std::string::npos);
}

TEST(BadInput, APoolSmallerThanTheContextIsNamed) {
  ModelCard card = demo_card();
  card.context_length = 64;
  card.model_context = 4096;
  Desk desk(says("x"), {}, &demo_tokenizer(), &demo_template(), card);
  const std::string pool =
      "the served context of 64 tokens (the KV pool, --max-total-tokens; the model has 4096).";
  const std::string ids = ordered_json(std::vector<int>(64, 5)).dump();
  EXPECT_EQ(desk.json("/generate", R"({"input_ids": )" + ids + "}", 400)["error"]["message"],
            "The input (64 tokens) is longer than " + pool);
  const ordered_json total = desk.json(kChat, std::string("{") + kHello + R"(, "max_tokens": 64})", 400);
  EXPECT_TRUE(
      total["error"]["message"].get<std::string>().starts_with("Requested token count exceeds " + pool))
      << total;
}

TEST(BadInput, ATextFarTooLongIsNotTokenised) {
  Desk desk(says("x"));
  const std::string text(size_t{20} << 20, 'a');
  for (const std::string& body : {R"({"text": ")" + text + "\"}", R"({"text": ["b", ")" + text + "\"]}"}) {
    const ordered_json answer = desk.json("/generate", body, 400);
    EXPECT_EQ(answer["error"]["code"], "context_length_exceeded");
  }
  const std::string hello = std::string("{") + kHello;
  const std::string call = R"({"type": "function", "function": {"name": "f", "arguments": ")" + text + "\"}}";
  for (const std::string& body : {
           R"({"messages": [{"role": "user", "content": ")" + text + "\"}]}",
           R"({"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": null, )"
           R"("tool_calls": [)" +
               call + "]}]}",
           hello + R"(, "tools": [{"type": "function", "function": {"name": "f", "description": ")" + text +
               "\"}}]}",
           hello + R"(, "tools": [{"type": "function", "function": {"name": "f", "parameters": {")" + text +
               "\": 1}}}]}",
           hello + R"(, "chat_template_kwargs": {"a": [")" + text + "\"]}}",
       }) {
    EXPECT_EQ(desk.json(kChat, body, 400)["error"]["code"], "context_length_exceeded");
  }
}

TEST(BadInput, LogprobsAreBounded) {
  Desk desk([](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
    return tokens_of(request, std::vector<int32_t>(41, 5), false);
  });
  const std::string ids = ordered_json(std::vector<int>(1024, 7)).dump();
  const std::string body = R"({"input_ids": [5], "return_logprob": true, "token_ids_logprob": )" + ids +
                           R"(, "sampling_params": {"max_new_tokens": 40, "n": )";
  EXPECT_EQ(desk.json("/generate", body + "2}}").size(), 2u);
  const ordered_json answer = desk.json("/generate", body + "128}}", 400);
  EXPECT_NE(answer["error"]["message"].get<std::string>().find("more than 31250 log-probabilities"),
            std::string::npos);
  EXPECT_EQ(desk.sink.running(), 0u);
}

TEST(BadInput, HostileJson) {
  Desk desk(says("x"));
  std::string deep(100000, '[');
  std::string many_keys = "{";
  for (int i = 0; i < 5000; ++i) many_keys += "\"k" + std::to_string(i) + "\":1,";
  many_keys.back() = '}';
  for (const std::string& body :
       {std::string("{"), std::string("[]"), std::string("null"), std::string("\"x\""), deep,
        R"({"a":)" + deep, std::string(R"({"prompt": "a", "prompt": "b"})"), many_keys,
        std::string("{\"prompt\": \"\xff\xfe\"}"), std::string(R"({"prompt": "\ud800"})"),
        std::string(R"({"prompt": "\udc00\ud800"})"), std::string(R"({"temperature": 1e999})"),
        std::string(R"({"temperature": NaN})"), std::string(R"({"prompt": "a"} x)"),
        std::string("{\"prompt\": \"a\n\"}"), std::string("\xEF\xBB\xBF")}) {
    for (const char* path :
         {kChat, kCompletions, "/generate", "/tokenize", "/detokenize", "/abort_request"}) {
      const http::Response response = desk.post(path, body);
      EXPECT_EQ(response.status, 400) << path << " " << body.substr(0, 60);
      EXPECT_TRUE(ordered_json::parse(response.body)["error"]["message"].is_string());
    }
  }
  EXPECT_EQ(desk.call("POST", kChat).status, 400);  // an empty body
  EXPECT_TRUE(desk.sink.requests().empty());
}

TEST(BadInput, JsonLimitsAreExact) {
  JsonLimits limits;
  limits.depth = 3;
  limits.keys = 2;
  limits.values = 6;
  EXPECT_TRUE(parse_json_object(R"({"a": [[1]]})", limits).ok());
  EXPECT_FALSE(parse_json_object(R"({"a": [[[1]]]})", limits).ok());
  EXPECT_TRUE(parse_json_object(R"({"a": 1, "b": 2})", limits).ok());
  EXPECT_FALSE(parse_json_object(R"({"a": 1, "b": 2, "c": 3})", limits).ok());
  EXPECT_TRUE(parse_json_object(R"({"a": [1, 2, 3, 4]})", limits).ok());
  EXPECT_FALSE(parse_json_object(R"({"a": [1, 2, 3, 4, 5]})", limits).ok());
  const auto parsed =
      parse_json_object(R"({"z": {"y": null, "x": [true, -1, 1.5, "s"]}, "a": 18446744073709551615})");
  ASSERT_TRUE(parsed.ok());
  EXPECT_EQ(parsed->dump(), R"({"z":{"y":null,"x":[true,-1,1.5,"s"]},"a":18446744073709551615})");
}

TEST(BadInput, ContentTypeMustBeJson) {
  Desk desk(says("x"));
  http::Request request;
  request.method = "POST";
  request.path = kChat;
  const std::pair<const char*, int> kTypes[] = {{"text/plain", 400},
                                                {"application/x-www-form-urlencoded", 400},
                                                {"Application/JSON; charset=utf-8", 200},
                                                {"application/json", 200}};
  for (const auto& [type, status] : kTypes) {
    request.body = std::string("{") + kHello + "}";
    request.headers = {{"Content-Type", type}};
    FakeWriter writer;
    desk.service.handle(request, writer);
    EXPECT_EQ(writer.answer.status, status) << type;
  }
}

// What clients of the reference system write out though they want nothing of it.
TEST(BadInput, TheReferencesOptionalFieldsMayBeEmpty) {
  Desk desk(says("x"));
  const std::string empty =
      R"("bootstrap_pair_key": null, "conversation_id": null, "custom_labels": null,
         "external_trace_header": null, "no_logs": false, "background": false, "use_audio_in_video": false)";
  desk.json("/generate", R"({"text": "a", "modalities": null, )" + empty + "}");
  desk.json(kChat, std::string("{") + kHello + ", " + empty + "}");
  for (const char* asked :
       {R"("modalities": ["image"])", R"("bootstrap_pair_key": "k")", R"("conversation_id": "c")",
        R"("custom_labels": {"a": "b"})", R"("external_trace_header": {"a": "b"})", R"("no_logs": true)",
        R"("background": true)", R"("use_audio_in_video": true)"}) {
    const ordered_json answer = desk.json("/generate", R"({"text": "a", )" + std::string(asked) + "}", 400);
    EXPECT_EQ(answer["error"]["code"], "unsupported_field") << asked;
  }
}

TEST(BadInput, NativeRequests) {
  Desk desk(says("x"));
  for (const char* body : {R"({})",
                           R"({"text": "a", "input_ids": [1]})",
                           R"({"text": 5})",
                           R"({"text": []})",
                           R"({"text": [5]})",
                           R"({"input_ids": []})",
                           R"({"input_ids": [-1]})",
                           R"({"input_ids": [3072]})",
                           R"({"input_ids": ["5"]})",
                           R"({"input_ids": [1.5]})",
                           R"({"input_ids": [[5], 6]})",
                           R"({"input_ids": [[5], []]})",
                           R"({"input_ids": [5], "sampling_params": 5})",
                           R"({"input_ids": [5], "sampling_params": [{}, {}]})",
                           R"({"input_ids": [5], "sampling_params": {"max_new_tokens": -1}})",
                           R"({"input_ids": [5], "top_logprobs_num": 2})",
                           R"({"input_ids": [5], "return_logprob": 1})",
                           R"({"input_ids": [5], "return_logprob": true, "logprob_start_len": 1})",
                           R"({"input_ids": [5], "return_logprob": true, "top_logprobs_num": 129})",
                           R"({"input_ids": [5], "return_logprob": true, "token_ids_logprob": [5000]})",
                           R"({"input_ids": [5], "rid": ""})",
                           R"({"input_ids": [[5], [6]], "rid": ["a"]})",
                           R"({"input_ids": [[5], [6], [7]], "rid": ["a", "b", "a"]})",
                           R"({"input_embeds": [[0.5]]})",
                           R"({"input_ids": [5], "image_data": "x"})",
                           R"({"input_ids": [5], "sampling_params": {"regex": "(a"}})"}) {
    const ordered_json answer = desk.json("/generate", body, 400);
    EXPECT_TRUE(answer["error"]["message"].is_string()) << body;
  }
}

}  // namespace
}  // namespace fathom::api
