// /abort_request, /flush_cache and the two of a profile: what acts on the engine.
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

namespace {

// The reference's fields say where and what to record: here all steps, into the answer.
Refusal read_profile(const ServiceContext& context, const http::Request& request) {
  if (!context.options.start_profile) return ApiError{404, "The engine records nothing", {}, "not_found"};
  if (request.body.empty()) return std::nullopt;
  nlohmann::ordered_json body;
  if (Refusal refusal = read_body(context, request, &body)) return refusal;
  Fields fields(body, "", "request", context.field_log);
  for (const char* name : {"output_dir", "start_step", "num_steps", "activities", "with_stack",
                           "record_shapes", "profile_by_stage"}) {
    if (body.contains(name) && !body[name].is_null())
      fields.fail(name,
                  "is not served: /stop_profile answers with all steps since /start_profile; leave it out");
    fields.accept({name});
  }
  return fields.finish();
}

}  // namespace

void handle_start_profile(const ServiceContext& context, const http::Request& request,
                          http::ResponseWriter& writer) {
  if (Refusal refusal = read_profile(context, request)) return writer.send(error_response(*refusal));
  context.options.start_profile();
  writer.send(text_response("Start profiling.\n"));
}

void handle_stop_profile(const ServiceContext& context, const http::Request& request,
                         http::ResponseWriter& writer) {
  if (Refusal refusal = read_profile(context, request)) return writer.send(error_response(*refusal));
  const auto trace = context.options.stop_profile();
  if (!trace)
    return writer.send(error_response({400, "No profile was started: /start_profile comes first", {}, {}}));
  http::Response response = text_response(*trace);
  response.content_type = "application/json";
  writer.send(std::move(response));
}

}  // namespace fathom::api
