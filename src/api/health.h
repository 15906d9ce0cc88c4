// Whether the engine is alive, told from what it does and not from how busy it is.
#pragma once

#include <cstdint>

#include "api/context.h"
#include "http/message.h"

namespace fathom::api {

// kUnavailable when the engine has failed, or when work has waited for `stall_seconds` and no step ended,
// however many requests wait and however long a step takes below that.
Result<void> check_health(const ServiceOptions& options, const SchedulerStats& stats, int64_t now_ns);

void handle_health(const ServiceContext& context, http::ResponseWriter& writer);

// Runs one greedy token through the engine; 200 as soon as it or any other work advances.
void handle_health_generate(const ServiceContext& context, http::ResponseWriter& writer);

}  // namespace fathom::api
