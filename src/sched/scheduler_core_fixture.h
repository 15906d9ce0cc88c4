// Drives a SchedulerCore with a FakeExecutor step by step, for tests.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "sched/fake_executor.h"
#include "sched/schedule_judge.h"
#include "sched/scheduler_core.h"

namespace fathom::sched {

struct Seen {
  std::vector<int32_t> tokens;
  std::vector<TokenOutput> prompt_logprobs;
  std::optional<FinishReason> finish;
  int32_t cached_tokens = 0;
  int32_t retractions = 0;
  std::vector<CacheMiss> cache_misses;
};

class SchedulerCoreTest : public testing::Test {
 protected:
  void start() {
    executor_ = std::make_unique<FakeExecutor>(limits_);
    core_ = std::make_unique<SchedulerCore>(options_, limits_, steady_clock());
  }

  static GenerateRequest request(const std::string& id, int32_t first, int32_t length, int32_t outputs) {
    GenerateRequest request;
    request.id = id;
    for (int32_t i = 0; i < length; ++i) request.prompt.push_back((first + i) % 1000);
    request.sampling.max_new_tokens = outputs;
    return request;
  }

  void add(GenerateRequest request) {
    requests_[request.id] = request;
    streams_[request.id] = std::make_shared<TokenStream>();
    core_->add(request, streams_[request.id]);
  }

  // Plans as far ahead as allowed, then completes the oldest step. The rows of the last plan made are in
  // `rows_`, those of all plans made in `all_rows_`. False when there is nothing to do.
  bool step() {
    rows_.clear();
    all_rows_.clear();
    while (core_->can_plan_ahead()) {
      auto plan = core_->plan();
      if (!plan) break;
      rows_ = plan->rows;
      all_rows_.insert(all_rows_.end(), rows_.begin(), rows_.end());
      rows_planned_ += static_cast<int64_t>(plan->rows.size());
      executor_->submit(std::move(*plan));
    }
    if (executor_->pending() == 0) return false;
    core_->account(executor_->complete());
    auto integrity = core_->check_integrity();
    EXPECT_TRUE(integrity.ok()) << integrity.error().message;
    return true;
  }
  int run_all() {
    int steps = 0;
    while (step()) {
      if (++steps > 10000) {
        ADD_FAILURE() << "it does not end";
        break;
      }
    }
    return steps;
  }

  Seen& see(const std::string& id) {
    Seen& seen = seen_[id];
    while (auto event = streams_.at(id)->next(std::chrono::milliseconds(0))) {
      for (const auto& output : event->outputs) seen.tokens.push_back(output.token);
      for (const auto& output : event->prompt_logprobs) seen.prompt_logprobs.push_back(output);
      if (event->finish) seen.finish = event->finish;
      seen.cached_tokens = event->cached_tokens;
      seen.retractions = event->retractions;
      if (event->cache_miss) seen.cache_misses.push_back(*event->cache_miss);
    }
    return seen;
  }
  void expect_as_alone(const std::string& id) {
    auto alone = answer_alone(requests_.at(id), limits_, limits_.num_pages * limits_.page_size);
    EXPECT_EQ(see(id).tokens, alone.tokens) << id;
    ASSERT_TRUE(see(id).finish) << id;
    EXPECT_EQ(see(id).finish->kind, alone.finish) << id;
  }

  ExecutorLimits limits_{.max_slots = 8,
                         .num_pages = 500,
                         .page_size = 4,
                         .max_context = 1000,
                         .vocab_size = 1000,
                         .max_step_tokens = 512};
  SchedulerOptions options_;
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<SchedulerCore> core_;
  std::map<std::string, GenerateRequest> requests_;
  std::map<std::string, std::shared_ptr<TokenStream>> streams_;
  std::map<std::string, Seen> seen_;
  std::vector<BatchRow> rows_, all_rows_;
  int64_t rows_planned_ = 0;
};

}  // namespace fathom::sched
