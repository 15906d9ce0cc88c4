#include "api/event_stream.h"

#include <algorithm>

#include "http/sse.h"

namespace fathom::api {

bool EventStream::begin() {
  if (begun_) return true;
  begun_ = true;
  http::Headers headers = headers_;
  headers.emplace_back("Cache-Control", "no-cache");
  headers.emplace_back("X-Accel-Buffering", "no");  // nginx would hold events back
  return writer_.begin_stream(200, "text/event-stream; charset=utf-8", std::move(headers));
}

bool EventStream::send(const nlohmann::ordered_json& event) {
  return begin() && writer_.write(http::sse_event(dump(event)));
}

bool EventStream::send_named(const nlohmann::ordered_json& event) {
  return begin() && writer_.write(http::sse_event(event["type"].get_ref<const std::string&>(), dump(event)));
}

bool EventStream::keep_alive() {
  return begin() && writer_.write(http::sse_comment("keep-alive"));
}

void EventStream::fail(const ApiError& error) {
  if (!begun_) return writer_.send(error_response(error));
  if (send(error_json(error))) finish();
}

void EventStream::finish() {
  if (begin() && writer_.write(http::sse_event("[DONE]"))) writer_.end();
}

void EventStream::end() {
  if (begin()) writer_.end();
}

http::Headers request_id_header(const std::string& rid) {
  const bool printable = std::all_of(rid.begin(), rid.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (!printable) return {};
  return {{"x-request-id", rid}};
}

}  // namespace fathom::api
