#include "sched/scheduler_options.h"

#include <string>

namespace fathom::sched {

const char* to_string(SchedulePolicy policy) {
  return policy == SchedulePolicy::kLpm ? "lpm" : "fcfs";
}

Result<SchedulePolicy> parse_schedule_policy(std::string_view text) {
  if (text == "fcfs") return SchedulePolicy::kFcfs;
  if (text == "lpm") return SchedulePolicy::kLpm;
  return error(ErrorCode::kInvalidArgument, "schedule policy '{}': expected fcfs or lpm", std::string(text));
}

}  // namespace fathom::sched
