// POST /v1/responses: OpenAI's Responses API, without a memory between requests.
#include "api/chat_run.h"
#include "api/endpoints.h"
#include "api/event_stream.h"
#include "api/responses_output.h"

namespace fathom::api {

void handle_responses(const ServiceContext& context, const http::Request& http_request,
                      http::ResponseWriter& writer) {
  ResponsesRequest request;
  std::vector<RunSpec> specs;
  Refusal refusal;
  {
    nlohmann::ordered_json body;  // not kept while the answer is made
    refusal = read_body(context, http_request, &body);
    if (!refusal) refusal = read_responses_request(context, body, &request);
  }
  if (!refusal) refusal = plan_chat(context, &request.chat, &specs);
  RequestRun run(context, writer);
  if (!refusal) refusal = run.start(std::move(specs));
  if (refusal) return writer.send(error_response(*refusal));

  const http::Headers headers = request_id_header(request.chat.options.rid);
  EventStream stream(writer, headers);
  const bool streamed = request.chat.stream.stream;
  const auto send = [&](const std::vector<nlohmann::ordered_json>& events) {
    for (const auto& event : events) {
      if (streamed && !stream.send_named(event)) return false;
    }
    return true;
  };
  ResponseBuilder builder(context, request);
  if (!send(builder.begin())) return;
  const bool complete = run.run(
      [&](const Choice& choice, const Growth& growth) { return send(builder.advance(choice, growth)); },
      [&] { return !streamed || stream.keep_alive(); });
  if (!complete) return;
  if (streamed) return stream.end();
  if (Refusal failure = run.failure()) return writer.send(error_response(*failure));
  http::Response response = json_response(builder.response());
  response.headers = headers;
  writer.send(std::move(response));
}

}  // namespace fathom::api
