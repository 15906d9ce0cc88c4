// Whether the engine is alive, told from what it does and not from how busy it is.
#pragma once

#include <cstdint>
#include <mutex>

#include "api/context.h"
#include "http/message.h"

namespace fathom::api {

// Remembers when the scheduler was last seen to advance, or to have nothing to do. Thread safe.
class HealthWatch {
 public:
  explicit HealthWatch(const ServiceOptions& options) : options_(options) {}

  // kUnavailable when the engine has failed, or when work has waited for `stall_seconds` and no step ended,
  // however many requests wait and however long a step takes below that.
  Result<void> check(const SchedulerStats& stats, int64_t now_ns);

 private:
  const ServiceOptions& options_;
  std::mutex mutex_;
  int64_t progress_ = -1;
  int64_t last_progress_ns_ = 0;
};

void handle_health(const ServiceContext& context, HealthWatch& watch, http::ResponseWriter& writer);

// Runs one greedy token through the engine; 200 as soon as it or any other work advances.
void handle_health_generate(const ServiceContext& context, HealthWatch& watch, http::ResponseWriter& writer);

}  // namespace fathom::api
