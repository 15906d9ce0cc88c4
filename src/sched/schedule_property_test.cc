// Thousands of random schedules against a fake executor: whatever arrives, is cancelled, evicted or
// preempted, each request gets the tokens it gets alone, nothing leaks, and everything ends.
#include <gtest/gtest.h>

#include <cstdlib>
#include <random>

#include "base/log.h"
#include "sched/fake_executor.h"
#include "sched/manual_clock.h"
#include "sched/schedule_judge.h"
#include "sched/scheduler_core.h"

namespace fathom::sched {
namespace {

class RandomSchedule {
 public:
  explicit RandomSchedule(uint64_t seed) : random_(seed) {
    make_options();
    make_requests();
    executor_ = std::make_unique<FakeExecutor>(limits_);
    core_ = std::make_unique<SchedulerCore>(options_, limits_, clock_);
    pool_tokens_ = limits_.num_pages * limits_.page_size;
    if (options_.max_total_tokens > 0) {
      pool_tokens_ = std::max(options_.max_total_tokens / limits_.page_size, 1) * limits_.page_size;
    }
  }

  void run() {
    int64_t actions = 0;
    int64_t most_actions = 1000 + 4 * total_tokens_;  // each step is two; seen: 1.6 a token
    for (; !done(); ++actions) {
      ASSERT_LT(actions, most_actions) << "it does not end; " << describe();
      act();
      clock_.ns += 1'000'000;
      auto integrity = core_->check_integrity();
      ASSERT_TRUE(integrity.ok()) << integrity.error().message;
      ASSERT_EQ(core_->stats().leaked_pages, 0);
      if (testing::Test::HasFatalFailure()) return;
    }
    collect();
    if (!testing::Test::HasFatalFailure()) check_end();
  }

  uint64_t retractions() const { return static_cast<uint64_t>(core_->stats().retractions); }
  uint64_t cached() const { return static_cast<uint64_t>(core_->stats().prompt_cached_tokens); }
  uint64_t guessed() const { return static_cast<uint64_t>(core_->stats().speculation.accepted_tokens); }
  uint64_t mixed() const { return executor_->saw_mixed_step() ? 1 : 0; }
  std::string describe() const {
    return fmt::format(
        "page_size {} pages {} slots {} step_tokens {} context {} vocab {} chunk {} policy {} mixed {} "
        "overlap "
        "{} radix {} drafts {} {} stages {} requests {}",
        limits_.page_size, limits_.num_pages, limits_.max_slots, limits_.max_step_tokens, limits_.max_context,
        limits_.vocab_size, options_.chunked_prefill_size, to_string(options_.schedule_policy),
        options_.enable_mixed_chunk, !options_.disable_overlap_schedule, !options_.disable_radix_cache,
        limits_.max_drafts, limits_.draft_layer ? "with a draft layer" : "", options_.stages, runs_.size());
  }

 private:
  struct Run {
    GenerateRequest request;
    int64_t arrival = 0;     // action
    int64_t cancel_at = -1;  // action, -1: never
    bool submitted = false;
    std::shared_ptr<TokenStream> stream;
    std::vector<int32_t> tokens;
    std::vector<TokenOutput> prompt_logprobs;
    std::optional<FinishReason> finish;
    int32_t cached_tokens = 0;
    int32_t retractions = 0;
  };

  int32_t draw(int32_t below) { return static_cast<int32_t>(random_() % static_cast<uint64_t>(below)); }
  template <class T>
  T pick(std::initializer_list<T> values) {
    return values.begin()[draw(static_cast<int32_t>(values.size()))];
  }

  void make_options() {
    limits_.page_size = pick({1, 1, 2, 3, 4, 8, 16, 64});
    limits_.max_context = 20 + draw(120);
    int32_t pool_tokens =
        pick({limits_.max_context, limits_.max_context, limits_.max_context * 2, 30 + draw(300), 2000});
    limits_.num_pages = std::max(1, pool_tokens / limits_.page_size);
    limits_.max_slots = 1 + draw(12);
    limits_.max_step_tokens = pick({limits_.max_slots, limits_.max_slots + draw(8), 16 + draw(100), 1000});
    limits_.vocab_size = pick({2, 5, 50, 1000, 1000});
    options_.schedule_policy = pick({SchedulePolicy::kFcfs, SchedulePolicy::kLpm});
    options_.enable_priority_scheduling = draw(6) == 0;
    options_.max_running_requests = pick({-1, -1, 1, 3});
    options_.max_total_tokens = draw(5) == 0 ? 16 + draw(pool_tokens) : -1;
    options_.max_total_tokens = std::min(options_.max_total_tokens, limits_.num_pages * limits_.page_size);
    options_.chunked_prefill_size = pick({-1, 1, 2 + draw(10), 16, 64});
    options_.max_prefill_tokens = pick({8, 64, 16384});
    options_.enable_mixed_chunk = draw(3) != 0;
    options_.disable_overlap_schedule = draw(3) == 0;
    options_.disable_radix_cache = draw(4) == 0;
    options_.schedule_conservativeness = pick({0.0, 0.0, 0.1, 0.3, 1.0, 2.0});
    options_.clip_max_new_tokens_estimation = pick({1, 1, 4, 4096});
    options_.retract_decode_steps = pick({0, 1, 20});
    options_.in_batch_prefix_tokens = pick({1, 4, 32});
    options_.lpm_patience_steps = pick({5, 1024});
    limits_.max_drafts = pick({0, 0, 1, 3, 7});
    limits_.absorbed_tail = pick({0, 1, 20, 60});
    limits_.draft_layer = limits_.max_drafts > 0 && draw(2) == 0;
    options_.speculative_adaptive = draw(2) == 0;
    options_.stages = limits_.max_drafts == 0 ? pick({1, 1, 2, 3}) : 1;
  }

  void make_requests() {
    std::vector<std::vector<int32_t>> stems(static_cast<size_t>(1 + draw(3)));
    for (auto& stem : stems) stem = random_tokens(draw(limits_.max_context));
    int32_t pool_tokens = limits_.num_pages * limits_.page_size;
    if (options_.max_total_tokens > 0) {
      pool_tokens = std::max(options_.max_total_tokens / limits_.page_size, 1) * limits_.page_size;
    }
    int count = 1 + draw(24);
    int64_t span = pick({1, 20, 300});
    for (int i = 0; i < count; ++i) {
      Run run;
      run.request.id = std::to_string(i);
      std::vector<int32_t> prompt = stems[static_cast<size_t>(draw(static_cast<int32_t>(stems.size())))];
      if (i > 0 && draw(3) == 0) {
        // The next turn of a conversation: an earlier prompt with its answer.
        const Run& earlier = runs_[static_cast<size_t>(draw(i))];
        prompt = earlier.request.prompt;
        auto answer = answer_alone(earlier.request, limits_, pool_tokens);
        prompt.insert(prompt.end(), answer.tokens.begin(), answer.tokens.end());
      }
      if (!prompt.empty()) prompt.resize(static_cast<size_t>(1 + draw(static_cast<int32_t>(prompt.size()))));
      auto tail = random_tokens(draw(10));
      prompt.insert(prompt.end(), tail.begin(), tail.end());
      if (prompt.empty()) prompt.push_back(0);
      auto longest = static_cast<size_t>(std::min(limits_.max_context - 1, pool_tokens));
      if (prompt.size() > longest) prompt.resize(longest);
      run.request.prompt = std::move(prompt);
      run.request.sampling.max_new_tokens = pick({0, 1, 2, draw(20), 10 + draw(50), 1000});
      run.request.sampling.seed = static_cast<uint64_t>(draw(3));
      for (int stop = draw(2) * draw(4); stop > 0; --stop) {
        run.request.sampling.stop_token_ids.push_back(draw(limits_.vocab_size));
      }
      run.request.logprobs.output = draw(3) == 0;
      if (draw(4) == 0) {
        run.request.logprobs.prompt_start = draw(static_cast<int32_t>(run.request.prompt.size()) + 2);
      }
      run.request.priority = draw(3);
      run.request.cache_namespace = draw(4) == 0 ? "other" : "";
      run.arrival = static_cast<int64_t>(random_() % static_cast<uint64_t>(span));
      if (draw(5) == 0) run.cancel_at = run.arrival + draw(60);
      total_tokens_ += static_cast<int64_t>(run.request.prompt.size()) +
                       std::min(run.request.sampling.max_new_tokens, limits_.max_context);
      runs_.push_back(std::move(run));
    }
    cancel_all_at_ = draw(20) == 0 ? draw(200) : -1;
  }

  std::vector<int32_t> random_tokens(int32_t count) {
    std::vector<int32_t> tokens(static_cast<size_t>(count));
    for (int32_t& token : tokens) token = draw(std::min(limits_.vocab_size, 50));
    return tokens;
  }

  void act() {
    int64_t now = now_++;
    for (Run& run : runs_) {
      if (!run.submitted && run.arrival <= now) {
        auto admissible = core_->admissible(run.request);
        ASSERT_TRUE(admissible.ok()) << admissible.error().message;
        run.submitted = true;
        run.stream = std::make_shared<TokenStream>();
        core_->add(run.request, run.stream);
      }
      if (run.submitted && run.cancel_at >= 0 && run.cancel_at <= now) {
        core_->cancel(run.request.id);
        run.cancel_at = -1;
      }
    }
    if (now == cancel_all_at_) core_->cancel_all();
    bool plan_first = draw(4) != 0 || executor_->pending() == 0;
    if (plan_first) {
      if (auto plan = core_->plan()) {
        executor_->submit(std::move(*plan));
        return;
      }
    }
    if (executor_->pending() > 0) {
      core_->account(executor_->complete());
    } else {
      ASSERT_TRUE(core_->idle()) << "nothing is planned, but something waits; " << describe();
      ASSERT_EQ(core_->stats().used_tokens, 0) << "idle, but pages are held";
    }
  }

  void collect() {
    for (Run& run : runs_) {
      while (auto event = run.stream->next(std::chrono::milliseconds(0))) {
        ASSERT_FALSE(run.finish) << "an event after the last";
        if (!event->prompt_logprobs.empty()) {
          ASSERT_TRUE(run.tokens.empty() && run.prompt_logprobs.empty());
          run.prompt_logprobs = event->prompt_logprobs;
        }
        for (const TokenOutput& output : event->outputs) run.tokens.push_back(output.token);
        run.cached_tokens = event->cached_tokens;
        run.retractions = event->retractions;
        run.finish = event->finish;
      }
      ASSERT_TRUE(run.finish) << "request " << run.request.id << " has no last event";
    }
  }

  bool done() const {
    return core_->idle() && executor_->pending() == 0 &&
           std::all_of(runs_.begin(), runs_.end(), [](const Run& run) { return run.submitted; });
  }

  // The longest prefix that any other request of the same namespace has computed at most.
  int32_t shareable_tokens(const Run& run) const {
    std::ptrdiff_t most = 0;
    const auto& prompt = run.request.prompt;
    for (const Run& other : runs_) {
      if (&other == &run || other.request.cache_namespace != run.request.cache_namespace) continue;
      auto tokens = other.request.prompt;
      auto outputs = answer_alone(other.request, limits_, pool_tokens_).tokens;
      tokens.insert(tokens.end(), outputs.begin(), outputs.end());
      auto differ = std::mismatch(prompt.begin(), prompt.end(), tokens.begin(), tokens.end()).first;
      most = std::max(most, differ - prompt.begin());
    }
    return static_cast<int32_t>(most);
  }

  void check_end() {
    for (const Run& run : runs_) {
      SCOPED_TRACE(fmt::format("request {}: {}", run.request.id, describe()));
      AloneAnswer alone = answer_alone(run.request, limits_, pool_tokens_);
      if (run.finish->kind == FinishReason::Kind::kAbort) {
        ASSERT_FALSE(run.finish->error);
        ASSERT_LE(run.tokens.size(), alone.tokens.size());
        ASSERT_TRUE(std::equal(run.tokens.begin(), run.tokens.end(), alone.tokens.begin()));
        continue;
      }
      ASSERT_EQ(run.tokens, alone.tokens);
      ASSERT_EQ(run.finish->kind, alone.finish);
      if (alone.finish == FinishReason::Kind::kStop) {
        ASSERT_EQ(run.finish->matched_token, alone.tokens.back());
      }
      ASSERT_EQ(run.prompt_logprobs.size(), alone.prompt_logprobs.size());
      for (size_t i = 0; i < run.prompt_logprobs.size(); ++i) {
        ASSERT_EQ(run.prompt_logprobs[i].token, alone.prompt_logprobs[i].token);
        ASSERT_EQ(run.prompt_logprobs[i].logprob, alone.prompt_logprobs[i].logprob);
      }
      ASSERT_LT(run.cached_tokens, static_cast<int32_t>(run.request.prompt.size()));
      ASSERT_LE(run.cached_tokens, shareable_tokens(run));
      if (options_.disable_radix_cache) {
        ASSERT_EQ(run.cached_tokens, 0);
      }
    }
    SchedulerStats stats = core_->stats();
    ASSERT_EQ(stats.used_tokens, 0);
    ASSERT_EQ(stats.finished_requests + stats.aborted_requests, static_cast<int64_t>(runs_.size()));
    ASSERT_TRUE(core_->flush_cache().ok());
    ASSERT_EQ(core_->stats().cached_tokens, 0);
    ASSERT_TRUE(core_->check_integrity().ok());
  }

  std::mt19937_64 random_;
  ExecutorLimits limits_;
  SchedulerOptions options_;
  ManualClock clock_;
  std::vector<Run> runs_;
  int64_t total_tokens_ = 0;
  int64_t cancel_all_at_ = -1;
  int64_t now_ = 0;
  int32_t pool_tokens_ = 0;
  std::unique_ptr<FakeExecutor> executor_;
  std::unique_ptr<SchedulerCore> core_;
};

// FATHOM_SCHEDULES=first:count runs others than the default ones.
std::pair<uint64_t, uint64_t> seeds_to_run() {
  uint64_t first = 0;
  uint64_t count = 3000;
  if (const char* text = std::getenv("FATHOM_SCHEDULES")) std::sscanf(text, "%lu:%lu", &first, &count);
  return {first, count};
}

TEST(SchedulePropertyTest, EveryRequestGetsTheTokensItGetsAlone) {
  set_log_level(LogLevel::kError);  // preemptions are no news here
  auto [first, count] = seeds_to_run();
  uint64_t retractions = 0;
  uint64_t cached = 0;
  uint64_t mixed = 0;
  uint64_t guessed = 0;
  for (uint64_t seed = first; seed < first + count; ++seed) {
    SCOPED_TRACE(fmt::format("seed {}", seed));
    RandomSchedule schedule(seed);
    schedule.run();
    if (HasFailure()) return;
    retractions += schedule.retractions();
    cached += schedule.cached();
    mixed += schedule.mixed();
    guessed += schedule.guessed();
  }
  fmt::print(
      "{} schedules: {} preemptions, {} prompt tokens from the cache, {} with mixed steps, {} tokens "
      "guessed\n",
      count, retractions, cached, mixed, guessed);
  if (count >= 1000) {
    // The schedules are worth nothing when they do not reach the hard parts.
    EXPECT_GT(retractions, count / 5);
    EXPECT_GT(cached, count * 10);
    EXPECT_GT(mixed, count / 10);
    EXPECT_GT(guessed, count * 10);
  }
}

}  // namespace
}  // namespace fathom::sched
