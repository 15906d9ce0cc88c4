// POST /v1/messages and /v1/messages/count_tokens: Anthropic's Messages API.
#include "api/anthropic_output.h"
#include "api/chat_run.h"
#include "api/endpoints.h"
#include "api/event_stream.h"

namespace fathom::api {
namespace {

http::Headers id_headers(const MessagesRequest& request) {
  http::Headers headers = request_id_header(request.chat.options.rid);
  headers.emplace_back("request-id", request.chat.options.rid);
  return headers;
}

// Versions are dates. What came before the first one here streamed in another form.
Refusal check_version(const http::Request& request) {
  static constexpr std::string_view kFirst = "2023-06-01";
  const std::string* version = request.header("anthropic-version");
  if (version == nullptr || (version->size() == kFirst.size() && *version >= kFirst)) return std::nullopt;
  return ApiError{400,
                  fmt::format("anthropic-version: got '{}', expected {} or a later date", *version, kFirst),
                  "anthropic-version",
                  {}};
}

// An answer that was aborted is no answer: the API has no stop_reason for it.
Refusal failure_of(const Choice& choice) {
  if (!choice.finish) return std::nullopt;
  if (choice.finish->error) return to_api_error(*choice.finish->error);
  if (choice.finish->kind != FinishReason::Kind::kAbort) return std::nullopt;
  return ApiError{500, "The request was aborted", {}, {}};
}

void stream_message(const ServiceContext& context, const MessagesRequest& request, RequestRun& run,
                    const std::string& path, http::ResponseWriter& writer) {
  EventStream stream(writer, id_headers(request));
  AnthropicEvents events(context, request);
  const bool complete = run.run(
      [&](const Choice& choice, const Growth& growth) {
        if (Refusal failure = failure_of(choice)) {
          if (!stream.begun()) {
            writer.send(error_response(*failure, path));
          } else if (stream.send_named(anthropic_error_json(*failure))) {
            stream.end();
          }
          return false;
        }
        for (const auto& event : events.advance(choice, growth)) {
          if (!stream.send_named(event)) return false;
        }
        return true;
      },
      // Clients want message_start to be the first event.
      [&] {
        return events.begun() ? stream.send_named({{"type", "ping"}}) : stream.keep_alive();
      });
  if (complete) stream.end();
}

Refusal read(const ServiceContext& context, const http::Request& http_request, bool counting,
             MessagesRequest* out) {
  if (Refusal refusal = check_version(http_request)) return refusal;
  nlohmann::ordered_json body;
  if (Refusal refusal = read_body(context, http_request, &body)) return refusal;
  return read_messages_request(context, body, counting, out);
}

}  // namespace

void handle_messages(const ServiceContext& context, const http::Request& http_request,
                     http::ResponseWriter& writer) {
  MessagesRequest request;
  std::vector<RunSpec> specs;
  Refusal refusal = read(context, http_request, false, &request);
  if (!refusal) refusal = plan_chat(context, &request.chat, &specs);
  RequestRun run(context, writer);
  if (!refusal) refusal = run.start(std::move(specs));
  if (refusal) return writer.send(error_response(*refusal, http_request.path));
  if (request.chat.stream.stream) return stream_message(context, request, run, http_request.path, writer);
  const bool complete = run.run([](const Choice&, const Growth&) { return true; }, [] { return true; });
  if (!complete) return;
  const Choice& choice = run.choices()[0];
  if (Refusal failure = failure_of(choice)) {
    return writer.send(error_response(*failure, http_request.path));
  }
  http::Response response = json_response(anthropic_message(context, request, choice));
  response.headers = id_headers(request);
  writer.send(std::move(response));
}

void handle_count_tokens(const ServiceContext& context, const http::Request& http_request,
                         http::ResponseWriter& writer) {
  MessagesRequest request;
  ChatPrompt prompt;
  Refusal refusal = read(context, http_request, true, &request);
  if (!refusal) refusal = chat_request_prompt(context, request.chat, &prompt);
  if (refusal) return writer.send(error_response(*refusal, http_request.path));
  writer.send(json_response({{"input_tokens", prompt.ids.size()}}));
}

}  // namespace fathom::api
