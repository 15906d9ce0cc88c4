// The API room's front door: routes an HTTP request, reads its JSON, runs it through the RequestSink and
// writes the answer in OpenAI's or the native form. docs/api.md lists the endpoints and every field.
//
// Thread safe: the HTTP server calls `handle` from many worker threads at once, and each call blocks until
// its answer is written, the client is gone or its requests have failed. Wrong input of every kind becomes an
// HTTP answer; an exception means that memory ran out, and the HTTP server makes it a 500 of this request.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include <nlohmann/json.hpp>

#include "api/limits.h"
#include "api/model_card.h"
#include "api/request_log.h"
#include "api/tenants.h"
#include "base/result.h"
#include "core/request.h"
#include "http/server.h"
#include "text/answer/answer_parsers.h"

namespace fathom::text {
class ChatTemplate;
class Tokenizer;
}  // namespace fathom::text

namespace fathom::api {

// The names under which clients get the reasoning.
enum class ReasoningField {
  kBoth,              // reasoning_content and reasoning
  kReasoningContent,  // DeepSeek's and the reference system's
  kReasoning,         // others'
};

// What explain_cache may tell. A cache namespace is one trust domain: who shares cached prefixes can find out
// about them by their speed as well.
enum class CacheExplanations {
  kOff,
  kReasons,  // no word of what is cached
  kText,     // and where and how the prompt differs from what its own namespace has
  kAll,      // and whether another namespace has it
};

// The names under which /metrics has its figures, beside our own.
enum class MetricNames { kSglang, kVllm, kBoth };

struct ServiceOptions {
  // Keys that callers need; neither: none is asked for. /health, /ready and /ping are always open.
  std::string api_key;
  std::optional<std::vector<ApiKey>> keys;  // of a key file, see Service::set_keys
  // For what shows or touches all callers' requests. Empty: any key will do, unless there are several
  // tenants.
  std::string admin_api_key;
  // Each key is a tenant: no shared prefixes, no aborting of others' requests, no figures of all of them.
  bool multi_tenant = false;
  // Template variables where a request's chat_template_kwargs do not say (--default-chat-template-kwargs).
  nlohmann::ordered_json default_chat_template_kwargs = nlohmann::ordered_json::object();
  // Special tokens in messages, tools and template variables are plain text where a request does not say.
  bool split_special_tokens = true;
  text::AnswerParsers parsers;           // none: answers are plain text
  bool custom_logit_processors = false;  // requests may name the known ones
  ReasoningField reasoning_field = ReasoningField::kBoth;
  CacheExplanations cache_explanations = CacheExplanations::kText;
  // The seed of a choice whose request gives none. Empty: one that nobody can guess. Called from any thread.
  std::function<uint64_t()> next_seed;
  // Extra keys of /server_info: the flags in force, memory, versions. Called per request, from any thread.
  std::function<nlohmann::ordered_json()> server_info;
  bool metrics = false;  // serve /metrics
  MetricNames metric_names = MetricNames::kSglang;
  // The HTTP server's counters, for /metrics. Called per request, from any thread.
  std::function<http::Stats()> http_stats;
  // An error when the engine is known to be dead (a device fault); /health then answers 503 with it.
  std::function<Result<void>()> engine_state;
  // /start_profile and /stop_profile: records the engine's steps from now on; those since, in Chrome's
  // format, or nothing where none were asked for. Empty: there is nothing to record. Called from any thread.
  std::function<void()> start_profile;
  std::function<std::optional<std::string>()> stop_profile;
  // /health answers 503 once work has waited this long and no step has ended.
  double stall_seconds = 300.0;
  double health_generate_timeout_seconds = 20.0;
  double keep_alive_seconds = 10.0;  // between SSE comments while a stream has nothing to say
  Limits limits;
  std::shared_ptr<RequestLog> request_log;  // null: none is kept
};

// ServiceOptions::default_chat_template_kwargs from a JSON object's text. Thinking has two names, of which
// one stands for both.
Result<nlohmann::ordered_json> parse_default_kwargs(std::string_view json);

class Service {
 public:
  // `sink`, `tokenizer` and `chat_template` must outlive the service. `tokenizer` is null with
  // --skip-tokenizer-init (then only ids in, ids out over /generate); `chat_template` is null when the
  // checkpoint has none (then /v1/chat/completions takes input_ids only).
  Service(ServiceOptions options, ModelCard card, RequestSink& sink, const text::Tokenizer* tokenizer,
          const text::ChatTemplate* chat_template);
  ~Service();
  Service(const Service&) = delete;
  Service& operator=(const Service&) = delete;

  void handle(http::Request& request, http::ResponseWriter& writer);
  // Of http::ServerOptions. No body is read where none is wanted, or where the key is wrong; probes, metrics
  // and what controls other requests are answered however many requests are in work.
  http::RequestNeeds needs(const http::Request& head) const;

  // /ready is 503, and generation is refused with 503, until set_ready() and again after set_draining().
  void set_ready();
  void set_draining();
  // Replaces the keys of ServiceOptions::keys. Running requests go on.
  void set_keys(const std::vector<ApiKey>& keys);

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace fathom::api
