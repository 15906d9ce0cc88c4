// POST /abort_request and /flush_cache: what acts on the engine.
#include <algorithm>
#include <charconv>
#include <chrono>
#include <thread>

#include "api/endpoints.h"
#include "api/request_options.h"
#include "api/sampling_fields.h"
#include "base/clock.h"

namespace fathom::api {
namespace {

constexpr double kMaxFlushWaitSeconds = 300.0;

// The query's `timeout` in seconds: how long to wait for the engine to be idle.
Refusal read_timeout(const http::Request& request, double* out) {
  const std::optional<std::string> text = request.query_param("timeout");
  if (!text) return std::nullopt;
  const auto [end, status] = std::from_chars(text->data(), text->data() + text->size(), *out);
  if (status == std::errc() && end == text->data() + text->size() && *out >= 0 &&
      *out <= kMaxFlushWaitSeconds) {
    return std::nullopt;
  }
  return ApiError{
      400, fmt::format("timeout: expected seconds from 0 to {}", kMaxFlushWaitSeconds), "timeout", {}};
}

}  // namespace

void handle_abort(const ServiceContext& context, const http::Request& request, http::ResponseWriter& writer) {
  nlohmann::ordered_json body;
  if (Refusal refusal = read_body(context, request, &body)) return writer.send(error_response(*refusal));
  Fields fields(body, "", "request", context.field_log);
  std::vector<std::string> rids;
  bool all = false;
  fields.strings("rid", 4096, kMaxIdBytes, &rids);
  fields.boolean("abort_all", &all);
  fields.accept({"abort_message"});
  if (!fields.failed() && rids.empty() && !all)
    fields.fail("rid", "is missing, expected an id, or abort_all true");
  if (Refusal refusal = fields.finish()) return writer.send(error_response(*refusal));
  if (all) {
    if (!context.caller->may_control) {
      return writer.send(
          error_response({403,
                          "abort_all needs the administrator's key (--admin-api-key, or the option "
                          "admin in the key file); a rid does not",
                          "abort_all", "admin_key_required"}));
    }
    context.sink.cancel_all();
  } else {
    for (const std::string& rid : rids) context.active.cancel(context.caller->scope + rid);
  }
  writer.send(text_response(""));
}

void handle_flush_cache(const ServiceContext& context, const http::Request& request,
                        http::ResponseWriter& writer) {
  double timeout = 0.0;
  if (Refusal refusal = read_timeout(request, &timeout)) return writer.send(error_response(*refusal));
  const int64_t start = steady_clock().now_ns();
  while (true) {
    const Result<void> flushed = context.sink.flush_cache();
    if (flushed.ok()) return writer.send(text_response("Cache flushed.\n"));
    if (seconds_since(start) >= timeout || writer.client_gone()) {
      ApiError error = to_api_error(flushed.error());
      error.status = 400;  // as the reference system answers
      return writer.send(error_response(error));
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
  }
}

}  // namespace fathom::api
