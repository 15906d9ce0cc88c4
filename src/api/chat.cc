// POST /v1/chat/completions.
#include "api/chat_output.h"
#include "api/endpoints.h"
#include "api/event_stream.h"
#include "base/clock.h"

namespace fathom::api {
namespace {

std::vector<RunSpec> make_specs(const ChatRequest& request, const std::vector<int32_t>& prompt,
                                int32_t max_new_tokens, const std::shared_ptr<const TokenMaskSource>& mask) {
  std::vector<RunSpec> specs;
  for (int i = 0; i < request.sampling.n; ++i) {
    RunSpec& spec = specs.emplace_back();
    spec.rid = request.options.rid;
    spec.prompt = prompt;
    spec.sampling = request.sampling.for_choice(i, max_new_tokens);
    spec.logprobs.output = request.logprobs;
    spec.logprobs.top = request.top_logprobs;
    spec.text = request.sampling.text_options();
    spec.answer = request.answer;
    spec.mask = mask;
    spec.priority = request.options.priority;
    spec.cache_namespace = request.options.cache_namespace;
  }
  return specs;
}

void stream_chat(const ServiceContext& context, const ChatRequest& request, RequestRun& run,
                 http::ResponseWriter& writer) {
  const AnswerHead head = answer_head(context, request.options.rid);
  EventStream events(writer, request_id_header(head.id));
  ChatChunks chunks(context, request, head);
  const bool complete = run.run(
      [&](const Choice& choice, const Growth& growth) {
        if (choice.finish && choice.finish->error) {
          events.fail(to_api_error(*choice.finish->error));
          return false;
        }
        for (const auto& chunk : chunks.advance(choice, growth)) {
          if (!events.send(chunk)) return false;
        }
        return true;
      },
      [&] { return events.keep_alive(); });
  if (!complete) return;
  if (request.stream.include_usage && !events.send(chunks.usage_chunk(run.choices()))) return;
  events.finish();
}

}  // namespace

void handle_chat(const ServiceContext& context, const http::Request& http_request,
                 http::ResponseWriter& writer) {
  const int64_t start = steady_clock().now_ns();
  nlohmann::ordered_json body;
  if (Refusal refusal = read_body(http_request, &body)) return writer.send(error_response(*refusal));
  ChatRequest request;
  if (Refusal refusal = read_chat_request(context, body, &request))
    return writer.send(error_response(*refusal));
  ChatPrompt prompt;
  prompt.ids = request.input_ids;
  if (prompt.ids.empty()) {
    if (Refusal refusal = make_chat_prompt(context, request.conversation, &prompt)) {
      return writer.send(error_response(*refusal));
    }
  }
  request.answer.format.start = chat_answer_start(context, request, prompt);
  Length length = resolve_length(context, request.sampling, prompt.ids.size(), std::nullopt);
  if (length.refusal) return writer.send(error_response(*length.refusal));

  std::shared_ptr<const TokenMaskSource> mask;
  if (Refusal refusal = make_mask(context, request.sampling.form, request.answer.format.start, &mask)) {
    return writer.send(error_response(*refusal));
  }

  RequestRun run(context, writer);
  if (Refusal refusal = run.start(make_specs(request, prompt.ids, length.max_new_tokens, mask))) {
    return writer.send(error_response(*refusal));
  }
  if (request.stream.stream) return stream_chat(context, request, run, writer);
  const bool complete = run.run([](const Choice&, const Growth&) { return true; }, [] { return true; });
  if (!complete) return;
  if (Refusal refusal = run.failure()) return writer.send(error_response(*refusal));
  const AnswerHead head = answer_head(context, request.options.rid);
  http::Response response = json_response(chat_completion(context, request, head, run, seconds_since(start)));
  response.headers = request_id_header(head.id);
  writer.send(std::move(response));
}

}  // namespace fathom::api
