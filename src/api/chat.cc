// POST /v1/chat/completions.
#include "api/chat_output.h"
#include "api/chat_run.h"
#include "api/endpoints.h"
#include "api/event_stream.h"
#include "base/clock.h"

namespace fathom::api {
namespace {

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
  ChatRequest request;
  {
    nlohmann::ordered_json body;  // not kept while the answer is made
    Refusal refusal = read_body(context, http_request, &body);
    if (!refusal) refusal = read_chat_request(context, body, &request);
    if (refusal) return writer.send(error_response(*refusal));
  }
  std::vector<RunSpec> specs;
  if (Refusal refusal = plan_chat(context, &request, &specs)) return writer.send(error_response(*refusal));

  RequestRun run(context, writer);
  if (Refusal refusal = run.start(std::move(specs))) return writer.send(error_response(*refusal));
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
