#include "api/health.h"

#include <chrono>

#include "base/clock.h"

namespace fathom::api {
namespace {

int64_t progress_of(const SchedulerStats& stats) {
  return stats.steps + stats.finished_requests + stats.aborted_requests;
}

}  // namespace

Result<void> check_health(const ServiceOptions& options, const SchedulerStats& stats, int64_t now_ns) {
  if (options.engine_state) FATHOM_TRY(options.engine_state());
  if (stats.running_requests == 0 && stats.waiting_requests == 0) return {};
  const double stalled = static_cast<double>(now_ns - stats.progress_ns) * 1e-9;
  if (stalled < options.stall_seconds) return {};
  return error(ErrorCode::kUnavailable,
               "the engine has not ended a step for {:.0f} s while {} requests run and {} wait", stalled,
               stats.running_requests, stats.waiting_requests);
}

void handle_health(const ServiceContext& context, http::ResponseWriter& writer) {
  const Result<void> health = check_health(context.options, context.sink.stats(), steady_clock().now_ns());
  if (health.ok()) return writer.send(text_response(""));
  ApiError error = to_api_error(health.error());
  error.status = 503;
  writer.send(error_response(error));
}

void handle_health_generate(const ServiceContext& context, http::ResponseWriter& writer) {
  const int64_t start = steady_clock().now_ns();
  const SchedulerStats before = context.sink.stats();
  if (const Result<void> health = check_health(context.options, before, start); !health.ok()) {
    return handle_health(context, writer);
  }
  GenerateRequest request;
  request.id = "HEALTH_CHECK_" + random_id();
  request.prompt = {context.card.bos_token_id.value_or(0)};
  request.sampling.temperature = 0.0F;
  request.sampling.max_new_tokens = 1;
  request.sampling.ignore_eos = true;
  request.cache_namespace = "health";  // leaves nothing in the users' prefixes
  const std::string id = request.id;
  Result<std::shared_ptr<TokenStream>> stream = context.sink.submit(std::move(request));
  bool alive = false;
  bool more = stream.ok();
  Error failure =
      stream.ok() ? Error{ErrorCode::kUnavailable, "the engine gave no token in time"} : stream.error();
  while (!alive && seconds_since(start) < context.options.health_generate_timeout_seconds) {
    if (writer.client_gone()) break;
    std::optional<TokenEvent> event;
    if (more) event = (*stream)->next(std::chrono::milliseconds(50));
    if (event && event->finish && event->finish->error) {
      failure = *event->finish->error;
      break;
    }
    // A full queue is no illness: other requests that advance prove the engine as well.
    alive = event.has_value() || progress_of(context.sink.stats()) != progress_of(before);
    if (!more) break;
  }
  if (stream.ok()) context.sink.cancel(id);
  if (alive) return writer.send(text_response(""));
  ApiError error = to_api_error(failure);
  error.status = 503;
  writer.send(error_response(error));
}

}  // namespace fathom::api
