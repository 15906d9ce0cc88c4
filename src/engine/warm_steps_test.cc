// A warm step takes no memory but for what it hands out: its result. Counted are the allocations of all
// threads but the test's own.
#include <gtest/gtest.h>

#include <atomic>
#include <cstdlib>
#include <new>

#include "base/log.h"
#include "engine/settings.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define FATHOM_SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define FATHOM_SANITIZED 1
#endif
#endif

namespace {

std::atomic<int64_t> allocations{0};
thread_local bool counted = true;

}  // namespace

#ifndef FATHOM_SANITIZED  // whose own operators find what is wrong elsewhere
[[gnu::noinline]] void* operator new(size_t bytes) {
  if (counted) allocations.fetch_add(1, std::memory_order_relaxed);
  if (void* memory = std::malloc(bytes > 0 ? bytes : 1)) return memory;
  throw std::bad_alloc();
}
[[gnu::noinline]] void operator delete(void* memory) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t /*bytes*/) noexcept {
  std::free(memory);
}
#endif

namespace fathom::engine {
namespace {

constexpr int32_t kRows = 4, kPrompt = 48;

struct Kind {
  const char* name;
  const char* algorithm;
  int32_t steps = 0, branches = 0, verified = 0;
};

class WarmSteps : public testing::TestWithParam<Kind> {
 protected:
  static void SetUpTestSuite() { set_log_level(LogLevel::kWarning); }

  WarmSteps() {
    counted = false;
    const Kind& kind = GetParam();
    Settings settings;
    settings.model_path = std::string(FATHOM_SOURCE_DIR) + "/models/demo";
    settings.threads = 2;
    settings.max_total_tokens = int64_t{kRows} * 512;
    settings.max_running_requests = kRows;
    settings.speculation.algorithm = kind.algorithm;
    settings.speculation.num_steps = kind.steps;
    settings.speculation.eagle_topk = kind.branches;
    settings.speculation.num_draft_tokens = kind.verified;
    ModelFacts facts;
    engine_ = start_engine(settings, &facts).value();
  }
  ~WarmSteps() override {
    engine_.reset();
    counted = true;
  }

  // Numbers that repeat, so that look-up finds something.
  static std::vector<int32_t> prompt(int32_t row) {
    std::vector<int32_t> tokens;
    for (int32_t i = 0; i < kPrompt; ++i) tokens.push_back(100 + row + i % 12);
    return tokens;
  }

  void prefill() {
    BatchPlan plan;
    for (int32_t r = 0; r < kRows; ++r) {
      SlotInit init;
      init.sampling.temperature = 0.0F;
      init.sampling.max_new_tokens = 400;
      init.prompt = prompt(r);
      std::vector<int32_t> pages;
      for (int32_t p = 0; p < 512 / 16; ++p) pages.push_back(r * (512 / 16) + p);
      plan.open.push_back({r, std::move(init), std::move(pages)});
      BatchRow row;
      row.slot = r;
      row.mode = RowMode::kExtend;
      row.tokens = prompt(r);
      row.sample = true;
      plan.rows.push_back(std::move(row));
      position_[static_cast<size_t>(r)] = kPrompt;
    }
    run(std::move(plan));
  }

  // Allocations of a step in which every row decodes.
  int64_t decode() {
    BatchPlan plan;
    for (int32_t r = 0; r < kRows; ++r) {
      BatchRow row;
      row.slot = r;
      row.start = position_[static_cast<size_t>(r)];
      row.sample = true;
      row.drafts = engine_->limits().max_drafts;
      plan.rows.push_back(std::move(row));
    }
    const int64_t before = allocations.load();
    const StepResult result = run(std::move(plan));
    const int64_t taken = allocations.load() - before;
    for (const RowResult& row : result.rows) {
      outputs_ += static_cast<int64_t>(row.outputs.size());
      position_[static_cast<size_t>(row.slot)] += static_cast<int32_t>(row.outputs.size());
    }
    return taken;
  }

  StepResult run(BatchPlan plan) { return engine_->step(std::move(plan)).get().value(); }

  std::unique_ptr<Engine> engine_;
  std::array<int32_t, kRows> position_{};
  int64_t outputs_ = 0;
};

TEST_P(WarmSteps, TakeNoMemoryButForTheirResults) {
#ifdef FATHOM_SANITIZED
  GTEST_SKIP() << "a sanitizer has operators new of its own";
#endif
  prefill();
  for (int i = 0; i < 24; ++i) decode();
  outputs_ = 0;
  int64_t taken = 0;
  for (int i = 0; i < 24; ++i) taken += decode();
  EXPECT_GE(outputs_, 24 * kRows);
  // The rows, and the outputs of each; and where more guesses come or hold at once than ever before, an array
  // grows.
  EXPECT_LE(taken, 24 * (1 + kRows) + 6);
  EXPECT_GE(taken, 24) << "nothing is counted";
}

INSTANTIATE_TEST_SUITE_P(Kinds, WarmSteps,
                         testing::Values(Kind{"plain", ""}, Kind{"chains", "EAGLE", 3, 1, 4},
                                         Kind{"trees", "EAGLE", 3, 4, 16}, Kind{"lookup", "NGRAM", 0, 0, 5}),
                         [](const auto& info) { return std::string(info.param.name); });

}  // namespace
}  // namespace fathom::engine
