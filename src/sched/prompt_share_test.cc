// What prompts may do to those that read an answer, on a machine whose steps take as long as a rule says.
#include "sched/manual_clock.h"
#include "sched/scheduler_core_fixture.h"

namespace fathom::sched {
namespace {

class PromptShareTest : public SchedulerCoreTest {
 protected:
  // ms of a step: of each row of outputs, prompt token, and 1000 tokens before a row's in its prompt.
  static constexpr double kStep = 4.0, kOutput = 2.0, kPrompt = 0.3, kBefore = 20.0;

  void start() {
    limits_.max_slots = 40;
    limits_.num_pages = 4000;
    options_.chunked_prefill_size = 256;
    options_.disable_overlap_schedule = true;
    executor_ = std::make_unique<FakeExecutor>(limits_);
    core_ = std::make_unique<SchedulerCore>(options_, limits_, clock_);
  }

  // Runs the next step; its time by that of its decode rows alone, 0 where it had none.
  double timed_step() {
    auto plan = core_->plan();
    if (!plan) return -1.0;
    double alone = kStep, prompts = 0.0;
    bool decodes = false;
    for (const BatchRow& row : plan->rows) {
      if (row.mode == RowMode::kDecode) {
        alone += kOutput;
        decodes = true;
      } else {
        prompts += kPrompt * row.num_tokens() + kBefore * row.start / 1000.0;
        prompt_tokens_ += row.num_tokens();
      }
    }
    clock_.ns += static_cast<int64_t>((alone + prompts) * 1e6);
    executor_->submit(std::move(*plan));
    core_->account(executor_->complete());
    return decodes ? (alone + prompts) / alone : 0.0;
  }

  void fill_with_decoding() {
    for (int i = 0; i < 20; ++i) add(request("decoding" + std::to_string(i), i * 40, 20, 900));
    for (int i = 0; i < 60; ++i) {  // and what teaches it the prices
      if (i % 3 == 0) add(request("early" + std::to_string(i), i, 10 + i, 1));
      timed_step();
    }
  }

  ManualClock clock_;
  int64_t prompt_tokens_ = 0;
};

TEST_F(PromptShareTest, ShortPromptsNeverMakeAStepMuchLonger) {
  options_.prefill_step_ratio = 1.7;
  start();
  fill_with_decoding();
  for (int i = 0; i < 20; ++i) add(request("new" + std::to_string(i), 300 + 20 * i, 30, 1));
  double worst = 0.0;
  int steps = 0;
  for (; !see("new19").finish && steps < 100; ++steps) worst = std::max(worst, timed_step());
  EXPECT_LT(worst, 1.9);
  EXPECT_GT(worst, 1.4);
  EXPECT_LT(steps, 15) << "600 tokens at 100 a step";
}

TEST_F(PromptShareTest, PrefixesInTheCacheAreNotSeenAllAtOnce) {
  options_.prefill_step_ratio = 1.7;
  start();
  add(request("long", 0, 800, 1));
  while (timed_step() >= 0.0) {
  }
  fill_with_decoding();
  const auto ask = [&](int from, int to) {
    for (int i = from; i < to; ++i) {
      auto hit = request("hit" + std::to_string(i), 0, 800, 1);
      hit.prompt.push_back(500 + i);  // all of "long", and a token more
      add(std::move(hit));
    }
  };
  for (int i = 0; i < 30; ++i) {
    ask(i, i + 1);
    timed_step();
  }
  const auto step_time = [&] {
    double worst = 0.0;
    ask(30, 40);
    int steps = 0;
    while (!see("hit39").finish && ++steps < 40) worst = std::max(worst, timed_step());
    EXPECT_TRUE(see("hit39").finish);
    return worst;
  };
  // One look at 800 tokens takes 16 of 44 ms, ten of them take 160.
  EXPECT_LT(step_time(), 2.0);
}

TEST_F(PromptShareTest, ALongPromptWaitsForThoseThatDecode) {
  options_.prefill_step_ratio = 1.7;
  limits_.max_context = 2000;
  start();
  fill_with_decoding();
  add(request("long", 5000, 1600, 1));
  double worst = 0.0;
  int steps = 0;
  for (; !see("long").finish && steps < 100; ++steps) worst = std::max(worst, timed_step());
  EXPECT_TRUE(see("long").finish);
  EXPECT_GT(steps, 15);
  // Its last rows look at 1600 tokens for 32 ms, and have as many of their own as take as long.
  EXPECT_LT(worst, 2.6) << "a prompt alone gets no more for being long";
}

TEST_F(PromptShareTest, PromptsThatWaitLongGetMore) {
  options_.prefill_step_ratio = 1.2;  // 30 tokens a step
  start();
  fill_with_decoding();
  for (int i = 0; i < 300; ++i) add(request("new" + std::to_string(i), 300 + i, 200, 1));
  const auto tokens_of_ten_steps = [&] {
    const int64_t before = prompt_tokens_;
    for (int i = 0; i < 10; ++i) timed_step();
    return prompt_tokens_ - before;
  };
  const int64_t first = tokens_of_ten_steps();
  for (int i = 0; i < 100; ++i) timed_step();
  EXPECT_LT(first, 500);
  EXPECT_GT(tokens_of_ten_steps(), 3 * first);
}

}  // namespace
}  // namespace fathom::sched
