// What this room's tests share: a service over the demo model's tokenizer and template and a scripted sink.
#pragma once

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "api/fakes.h"
#include "api/service.h"
#include "http/sse.h"
#include "text/template/chat_template.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom::api {

inline constexpr int32_t kEos = 1;

inline const text::Tokenizer& demo_tokenizer() {
  static const auto* tokenizer =
      new std::unique_ptr<text::Tokenizer>(text::Tokenizer::load(FATHOM_SOURCE_DIR "/models/demo").value());
  return **tokenizer;
}

inline const text::ChatTemplate& demo_template() {
  static const auto* parsed =
      new text::ChatTemplate(text::ChatTemplate::parse(demo_tokenizer().chat_template()).value());
  return *parsed;
}

inline ModelCard demo_card() {
  ModelCard card;
  card.served_model_name = "demo";
  card.model_path = "models/demo";
  card.model_type = "deepseek_v3";
  card.architectures = {"DeepseekV3ForCausalLM"};
  card.context_length = 4096;
  card.vocab_size = 3072;
  card.eos_token_ids = {kEos};
  card.bos_token_id = 0;
  card.created = 1700000000;
  return card;
}

// One event a token, log-probabilities included when the request asks for them; then a stop at EOS, or the
// length stop where the request allows fewer tokens.
inline std::vector<TokenEvent> tokens_of(const GenerateRequest& request, const std::vector<int32_t>& ids,
                                         bool stop = true) {
  std::vector<int32_t> all = ids;
  if (stop) all.push_back(kEos);
  std::vector<TokenEvent> events;
  const auto limit = static_cast<size_t>(request.sampling.max_new_tokens);
  for (size_t i = 0; i < all.size() && i < limit; ++i) {
    TokenEvent& event = events.emplace_back();
    TokenOutput output;
    output.token = all[i];
    output.logprob = -0.5F;
    for (int32_t k = 0; k < request.logprobs.top; ++k)
      output.top.push_back({k == 0 ? all[i] : 10 + k, -0.5F * (k + 1)});
    for (int32_t id : request.logprobs.token_ids) output.requested.push_back({id, -3.0F});
    event.outputs.push_back(std::move(output));
    event.cached_tokens = 2;
    if (i == 0 && request.logprobs.prompt_start >= 0) {
      for (size_t q = std::max<size_t>(1, static_cast<size_t>(request.logprobs.prompt_start));
           q < request.prompt.size(); ++q) {
        TokenOutput prompt;
        prompt.token = request.prompt[q];
        prompt.logprob = -0.25F;
        for (int32_t k = 0; k < request.logprobs.top; ++k) prompt.top.push_back({20 + k, -1.0F});
        event.prompt_logprobs.push_back(std::move(prompt));
      }
    }
  }
  if (events.empty()) events.emplace_back();
  if (all.size() > limit) {
    events.back().finish = FinishReason{FinishReason::Kind::kLength, {}, {}};
  } else if (stop) {
    events.back().finish = FinishReason{FinishReason::Kind::kStop, kEos, {}};
  }
  return events;
}

inline FakeSink::Script says(const std::string& text) {
  return [text](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
    return tokens_of(request, demo_tokenizer().encode(text, false));
  };
}

// Never finishes by itself; gives `text` first.
inline FakeSink::Script starts_saying(const std::string& text) {
  return [text](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
    return tokens_of(request, demo_tokenizer().encode(text, false), false);
  };
}

// The parsers that the demo model's template asks for.
inline ServiceOptions parsing_options() {
  ServiceOptions options;
  options.parsers = text::choose_parsers("auto", "auto", &demo_template(), "DeepseekV3ForCausalLM").value();
  return options;
}

class Desk {
 public:
  explicit Desk(FakeSink::Script script, ServiceOptions options = {}, bool with_tokenizer = true)
      : Desk(std::move(script), std::move(options), with_tokenizer ? &demo_tokenizer() : nullptr,
             with_tokenizer ? &demo_template() : nullptr) {}
  Desk(FakeSink::Script script, ServiceOptions options, const text::Tokenizer* tokenizer,
       const text::ChatTemplate* chat_template, ModelCard card = demo_card())
      : sink(std::move(script)),
        service(std::move(options), std::move(card), sink, tokenizer, chat_template) {
    service.set_ready();
  }

  http::Response call(const std::string& method, const std::string& path, const std::string& body = {},
                      http::Headers headers = {}) {
    http::Request request;
    request.method = method;
    const size_t question = path.find('?');
    request.path = path.substr(0, question);
    if (question != std::string::npos) request.query = path.substr(question + 1);
    request.headers = std::move(headers);
    if (!body.empty()) request.headers.emplace_back("Content-Type", "application/json");
    request.body = body;
    FakeWriter writer;
    writer.on_write = [this] { sink.give_next(); };
    service.handle(request, writer);
    EXPECT_EQ(writer.answers, 1) << method << " " << path;
    return writer.answer;
  }
  http::Response post(const std::string& path, const std::string& body) { return call("POST", path, body); }

  // The answer's JSON; the status must be the expected one.
  nlohmann::ordered_json json(const std::string& path, const std::string& body, int status = 200) {
    const http::Response response = post(path, body);
    EXPECT_EQ(response.status, status) << body << "\n" << response.body;
    return nlohmann::ordered_json::parse(response.body, nullptr, false);
  }

  // The events of a stream, which must end with "[DONE]".
  std::vector<nlohmann::ordered_json> stream(const std::string& path, const std::string& body) {
    return events_of(post(path, body).body);
  }
  static std::vector<nlohmann::ordered_json> events_of(const std::string& text) {
    std::vector<nlohmann::ordered_json> events;
    bool done = false;
    http::SseParser parser;
    parser.feed(text, [&](http::SseEvent event) {
      EXPECT_FALSE(done) << "an event after [DONE]";
      done = event.data == "[DONE]";
      if (!done) events.push_back(nlohmann::ordered_json::parse(event.data));
    });
    EXPECT_TRUE(done) << text;
    return events;
  }

  FakeSink sink;
  Service service;
};

// The prompt of a request that came to the sink; empty when there is none.
inline std::string prompt_of(const Desk& desk, size_t index = 0) {
  const auto requests = desk.sink.requests();
  return index < requests.size() ? demo_tokenizer().decode(requests[index].prompt, false) : "";
}

// Of a stream whose events have their name in them too, as Anthropic's and those of Responses.
inline std::vector<nlohmann::ordered_json> named_events_of(const http::Response& response) {
  std::vector<nlohmann::ordered_json> events;
  http::SseParser parser;
  parser.feed(response.body, [&](http::SseEvent event) {
    events.push_back(nlohmann::ordered_json::parse(event.data));
    EXPECT_EQ(events.back()["type"], event.name);
  });
  return events;
}

inline constexpr const char* kChat = "/v1/chat/completions";
inline constexpr const char* kCompletions = "/v1/completions";
inline constexpr const char* kHello = R"("messages": [{"role": "user", "content": "Hello"}])";

// How the demo model calls a tool.
inline constexpr const char* kCallText =
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>get_time\n```json\n{\"city\": "
    "\"Rome\"}\n```"
    "<｜tool▁call▁end｜><｜tool▁calls▁end｜>";

}  // namespace fathom::api
