// Any request body, at every endpoint: exactly one well-formed answer, nothing left running.
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "api/fakes.h"
#include "api/service.h"
#include "text/template/chat_template.h"
#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/tokenizer.h"

namespace fathom::api {
namespace {

constexpr std::string_view kTemplate =
    "{{ bos_token }}{% for m in messages %}<user>{{ m['content'] }}{% for c in m['tool_calls'] or [] %}"
    "{{ c['function']['name'] }}{% endfor %}{% endfor %}{% if tools %}{{ tools | tojson }}{% endif %}"
    "{% if thinking %}<think>{% endif %}";

// The 256 bytes and three special tokens.
std::unique_ptr<text::Tokenizer> small_tokenizer() {
  nlohmann::json vocab = nlohmann::json::object();
  for (int byte = 0; byte < 256; ++byte) {
    const char c = static_cast<char>(byte);
    vocab[text::byte_level_encode({&c, 1})] = byte;
  }
  nlohmann::json added = nlohmann::json::array();
  for (const char* name : {"<bos>", "<eos>", "<user>"}) {
    added.push_back(
        {{"id", 256 + added.size()}, {"content", name}, {"special", true}, {"normalized", false}});
  }
  const nlohmann::json json = {
      {"added_tokens", added},
      {"normalizer", nullptr},
      {"pre_tokenizer", {{"type", "ByteLevel"}, {"add_prefix_space", false}, {"use_regex", false}}},
      {"post_processor", nullptr},
      {"decoder", {{"type", "ByteLevel"}}},
      {"model", {{"type", "BPE"}, {"vocab", vocab}, {"merges", nlohmann::json::array()}}}};
  return text::Tokenizer::from_json(json.dump(), R"({"bos_token": "<bos>", "add_bos_token": true})").value();
}

// A few bytes that depend on the prompt, half characters among them, then the end.
Result<std::vector<TokenEvent>> play(const GenerateRequest& request) {
  std::vector<TokenEvent> events;
  const int32_t count = std::min<int32_t>(request.sampling.max_new_tokens, 12);
  for (int32_t i = 0; i < count; ++i) {
    TokenOutput output;
    output.token = (request.prompt[static_cast<size_t>(i) % request.prompt.size()] * 7 + i) % 259;
    for (int32_t k = 0; k < request.logprobs.top; ++k) output.top.push_back({k % 259, -1.0F});
    for (int32_t id : request.logprobs.token_ids) output.requested.push_back({id, -2.0F});
    events.emplace_back().outputs.push_back(std::move(output));
  }
  if (events.empty()) events.emplace_back();
  events.back().finish = FinishReason{FinishReason::Kind::kLength, {}, {}};
  return events;
}

class Fuzzed {
 public:
  Fuzzed()
      : tokenizer_(small_tokenizer()),
        template_(text::ChatTemplate::parse(std::string(kTemplate)).value()),
        sink_(play),
        service_({}, card(), sink_, tokenizer_.get(), &template_) {
    service_.set_ready();
  }

  void call(const char* path, std::string_view body) {
    http::Request request;
    request.method = "POST";
    request.path = path;
    request.body = body;
    FakeWriter writer;
    service_.handle(request, writer);
    FATHOM_CHECK(writer.answers == 1, "{} answers", writer.answers);
    FATHOM_CHECK(sink_.running() == 0, "{} requests left", sink_.running());
    sink_.forget_requests();
    const bool stream = writer.answer.content_type.starts_with("text/event-stream");
    FATHOM_CHECK(writer.answer.status < 500, "{}: {}", path, writer.answer.body);
    if (stream) {
      const std::string& text = writer.answer.body;
      const bool whole = text.ends_with("data: [DONE]\n\n") ||
                         text.ends_with("data: {\"type\":\"message_stop\"}\n\n") ||
                         text.find("event: response.incomplete\n") != std::string::npos;
      FATHOM_CHECK(whole, "{}", text);
    } else if (writer.answer.content_type == "application/json") {
      FATHOM_CHECK(nlohmann::ordered_json::accept(writer.answer.body), "{}", writer.answer.body);
    }
  }

 private:
  static ModelCard card() {
    ModelCard card;
    card.served_model_name = "m";
    card.context_length = 4096;
    card.vocab_size = 259;
    card.eos_token_ids = {257};
    card.bos_token_id = 256;
    return card;
  }

  std::unique_ptr<text::Tokenizer> tokenizer_;
  text::ChatTemplate template_;
  FakeSink sink_;
  Service service_;
};

}  // namespace
}  // namespace fathom::api

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static constexpr const char* kPaths[] = {
      "/v1/chat/completions", "/v1/completions", "/generate",    "/tokenize",
      "/detokenize",          "/abort_request",  "/v1/messages", "/v1/messages/count_tokens",
      "/v1/responses"};
  if (size == 0) return 0;
  static fathom::api::Fuzzed fuzzed;
  const auto path = static_cast<uint8_t>(data[0] - '0') % std::size(kPaths);  // a digit in the seeds
  fuzzed.call(kPaths[path], {reinterpret_cast<const char*>(data) + 1, size - 1});
  return 0;
}
