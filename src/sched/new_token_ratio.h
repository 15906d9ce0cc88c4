// The guess of how much of its remaining allowance a running request will use; admission and preemption
// steer it. See SchedulerOptions for the constants.
#pragma once

#include <algorithm>

#include "sched/scheduler_options.h"

namespace fathom::sched {

class NewTokenRatio {
 public:
  explicit NewTokenRatio(const SchedulerOptions& options)
      : init_(std::min(options.init_new_token_ratio * options.schedule_conservativeness, 1.0)),
        min_(std::min(init_ * options.min_new_token_ratio_factor, 1.0)),
        decay_((init_ - min_) / std::max(1, options.new_token_ratio_decay_steps)),
        value_(init_) {}

  double value() const { return value_; }
  void decode_step() { value_ = std::max(value_ - decay_, min_); }
  void idle() { value_ = init_; }
  // After a preemption: what the remaining requests have used so far and will use in the next `steps` steps.
  void preempted(int64_t outputs, int64_t max_outputs, int64_t requests, int64_t steps) {
    value_ =
        std::min(1.0, static_cast<double>(outputs + steps * requests) / static_cast<double>(max_outputs + 1));
  }

 private:
  double init_;
  double min_;
  double decay_;
  double value_;
};

}  // namespace fathom::sched
