#include "api/service.h"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <string_view>

#include "api/access.h"
#include "api/answer_writer.h"
#include "api/context.h"
#include "api/endpoints.h"
#include "api/health.h"
#include "api/routes.h"
#include "base/clock.h"
#include "http/message.h"

namespace fathom::api {
namespace {

constexpr Route kRoutes[] = {
    {"/v1/chat/completions", "POST", handle_chat, true},
    {"/v1/completions", "POST", handle_completions, true},
    // DeepSeek's hosted API, whose base URLs end without /v1, or with /beta.
    {"/chat/completions", "POST", handle_chat, true},
    {"/completions", "POST", handle_completions, true},
    {"/beta/chat/completions", "POST", handle_chat, true},
    {"/beta/completions", "POST", handle_completions, true},
    {"/v1/responses", "POST", handle_responses, true},
    {"/v1/messages", "POST", handle_messages, true},
    {"/v1/messages/count_tokens", "POST", handle_count_tokens, false},
    {"/anthropic/v1/messages", "POST", handle_messages, true},
    {"/anthropic/v1/messages/count_tokens", "POST", handle_count_tokens, false},
    {"/generate", "POST PUT", handle_generate, true},
    {"/tokenize", "POST", handle_tokenize, false},
    {"/v1/tokenize", "POST", handle_tokenize, false},
    {"/detokenize", "POST", handle_detokenize, false},
    {"/v1/detokenize", "POST", handle_detokenize, false},
    {"/separate_reasoning", "POST", handle_separate_reasoning, false},
    {"/parse_function_call", "POST", handle_parse_function_call, false},
    {"/apply-template", "POST", handle_apply_template, false},
    {"/abort_request", "POST", handle_abort, false},
    {"/flush_cache", "GET POST", handle_flush_cache, false, Permission::kControl},
    {"/start_profile", "GET POST", handle_start_profile, false, Permission::kControl},
    {"/stop_profile", "GET POST", handle_stop_profile, false, Permission::kControl},
    {"/metrics", "GET", handle_metrics, false, Permission::kMetrics},
    {"/openapi.json", "GET", handle_openapi, false},
    {"/v1/models", "GET", handle_models, false},
    {"/models", "GET", handle_models, false},
    {"/model_info", "GET", handle_model_info, false},
    {"/get_model_info", "GET", handle_model_info, false},
    {"/server_info", "GET", handle_server_info, false, Permission::kObserve},
    {"/get_server_info", "GET", handle_server_info, false, Permission::kObserve},
    {"/v1/loads", "GET", handle_loads, false, Permission::kObserve},
    {"/get_load", "GET", handle_loads, false, Permission::kObserve},
};
constexpr std::string_view kModelPrefix = "/v1/models/";

bool allows(std::string_view methods, std::string_view method) {
  if (method == "HEAD") method = "GET";
  while (!methods.empty()) {
    const size_t end = std::min(methods.find(' '), methods.size());
    if (methods.substr(0, end) == method) return true;
    methods.remove_prefix(std::min(end + 1, methods.size()));
  }
  return false;
}

// Does the request count among its key's requests? Only what costs something does.
bool is_work(const Route& route, const http::Request& request) {
  return route.permission == Permission::kCall && route.endpoint != handle_abort &&
         (request.method == "POST" || request.method == "PUT");
}

bool is_probe(std::string_view path) {
  return path == "/health" || path == "/ready" || path == "/ping";
}

// Null: unknown.
const Route* find_route(std::string_view path) {
  const Route* route = std::find_if(std::begin(kRoutes), std::end(kRoutes),
                                    [&](const Route& candidate) { return candidate.path == path; });
  return route == std::end(kRoutes) ? nullptr : route;
}

Permission permission_of(const Route* route) {
  return route == nullptr ? Permission::kCall : route->permission;
}

ApiError wrong_method(const http::Request& request, std::string_view methods) {
  return {405,
          fmt::format("{} does not answer {}; use {}", request.path, request.method, methods),
          {},
          "method_not_allowed"};
}

}  // namespace

std::span<const Route> service_routes() {
  return kRoutes;
}

Refusal check_model(const ServiceContext& context, const std::string& name) {
  const ModelCard& card = context.card;
  if (name.empty() || name == "default" || name == card.served_model_name) return std::nullopt;
  for (const std::string& other : card.other_names) {
    if (other == "*" || other == name) return std::nullopt;
  }
  return ApiError{404, fmt::format("The model '{}' does not exist", name), "model", "model_not_found"};
}

struct Service::State {
  State(ServiceOptions service_options, ModelCard model_card, RequestSink& sink,
        const text::Tokenizer* tokenizer, const text::ChatTemplate* chat_template)
      : options(std::move(service_options)),
        access(options),
        card(std::move(model_card)),
        guard(tokenizer == nullptr ? nullptr : std::make_unique<SpecialTokenGuard>(*tokenizer)),
        grammars(tokenizer == nullptr ? nullptr
                                      : std::make_unique<text::GrammarCache>(*tokenizer, card.eos_token_ids)),
        turns(tokenizer == nullptr ? nullptr : std::make_unique<TurnMemory>(*tokenizer)),
        answer_tokens(tokenizer == nullptr ? AnswerTokens() : find_answer_tokens(*tokenizer)),
        context{options, card,          sink,           tokenizer,   chat_template, guard.get(),
                active,  answer_tokens, grammars.get(), turns.get(), &metrics,      nullptr} {}

  bool taking_work() const { return ready.load() && !draining.load(); }

  void send_readiness(http::ResponseWriter& writer) const {
    if (!taking_work()) return writer.send(error_response(not_ready()));
    const Result<void> engine = options.engine_state ? options.engine_state() : Result<void>();
    if (engine.ok()) return writer.send(text_response(""));
    ApiError error = to_api_error(engine.error());
    error.status = 503;
    writer.send(error_response(error));
  }
  ApiError not_ready() const {
    return {503,
            draining.load() ? "The server is shutting down" : "The server is starting",
            {},
            draining.load() ? "draining" : "starting"};
  }

  // True when `request` was one of the probes, which need no key.
  bool probe(const http::Request& request, http::ResponseWriter& writer);
  void route(Caller* caller, const http::Request& request, http::ResponseWriter& writer);

  const ServiceOptions options;
  Access access;
  const ModelCard card;
  const std::unique_ptr<SpecialTokenGuard> guard;
  ActiveRequests active;
  const std::unique_ptr<text::GrammarCache> grammars;
  const std::unique_ptr<TurnMemory> turns;
  const AnswerTokens answer_tokens;
  ServiceMetrics metrics;
  const ServiceContext context;
  std::atomic<bool> ready = false;
  std::atomic<bool> draining = false;
};

bool Service::State::probe(const http::Request& request, http::ResponseWriter& writer) {
  const std::string& path = request.path;
  if (!is_probe(path)) return false;
  if (!allows("GET", request.method)) {
    writer.send(error_response(wrong_method(request, "GET")));
  } else if (path == "/ready") {
    send_readiness(writer);
  } else {
    handle_health(context, writer);
  }
  return true;
}

void Service::State::route(Caller* caller, const http::Request& request, http::ResponseWriter& writer) {
  if (probe(request, writer)) return;
  const Route* route = find_route(request.path);
  if (Refusal refusal = access.admit(request, permission_of(route), caller)) {
    return writer.send(error_response(*refusal, request.path));
  }
  ServiceContext called = context;
  called.caller = caller;
  if (request.path == "/health_generate" && allows("GET", request.method)) {
    if (!taking_work()) return writer.send(error_response(not_ready()));
    return handle_health_generate(called, writer);
  }
  if (route != nullptr) {
    if (!allows(route->methods, request.method)) {
      return writer.send(error_response(wrong_method(request, route->methods), request.path));
    }
    if (route->generates && !taking_work()) return writer.send(error_response(not_ready(), request.path));
    if (caller->tenant != nullptr && is_work(*route, request)) {
      if (Refusal refusal = caller->tenant->take_request(caller->arrived_ns)) {
        return writer.send(error_response(*refusal, request.path));
      }
    }
    return route->endpoint(called, request, writer);
  }
  if (request.path.starts_with(kModelPrefix)) {
    if (!allows("GET", request.method)) return writer.send(error_response(wrong_method(request, "GET")));
    return handle_models(called, request, writer);
  }
  const ApiError unknown{
      404, fmt::format("There is no {} {}", request.method, request.path), {}, "not_found"};
  writer.send(error_response(unknown, request.path));
}

Service::Service(ServiceOptions options, ModelCard card, RequestSink& sink, const text::Tokenizer* tokenizer,
                 const text::ChatTemplate* chat_template)
    : state_(std::make_unique<State>(std::move(options), std::move(card), sink, tokenizer, chat_template)) {}

Service::~Service() = default;

void Service::handle(http::Request& request, http::ResponseWriter& writer) {
  Caller caller;
  caller.request_id = request_id_of(request);
  caller.arrived_ns = steady_clock().now_ns();
  caller.request = &request;
  const std::string* given = request.header("x-request-id");
  AnswerWriter answer(writer, caller.request_id, given != nullptr && *given == caller.request_id);
  state_->route(&caller, request, answer);
  state_->metrics.count_answer(answer.status());
  if (RequestLog* log = state_->options.request_log.get()) log->finished(request, caller, answer.status());
}

http::RequestNeeds Service::needs(const http::Request& head) const {
  if (is_probe(head.path)) return {.body = false, .reserve = true};
  const Route* route = find_route(head.path);
  Caller unused;
  if (state_->access.admit(head, permission_of(route), &unused)) return {.body = false, .reserve = true};
  return {.reserve = route != nullptr && !route->generates && !is_work(*route, head)};
}

void Service::set_ready() {
  state_->ready.store(true);
}
void Service::set_draining() {
  state_->draining.store(true);
}
void Service::set_keys(const std::vector<ApiKey>& keys) {
  state_->access.set_keys(keys);
}

}  // namespace fathom::api
