// What every engine must do with masks; run for the CPU and for the GPU.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <deque>
#include <numeric>

#include "engine/settings.h"

namespace fathom::engine {

// Allows the tokens that are, modulo `modulus`, what the tokens so far add up to: each mask depends on every
// token before it. Fails when `fails_at` tokens have come.
class SumMask final : public TokenMaskSource {
 public:
  explicit SumMask(int fails_at = -1, int modulus = 7) : fails_at_(fails_at), modulus_(modulus) {}
  static bool allows(int64_t sum, int32_t token, int modulus = 7) { return token % modulus == sum % modulus; }

  std::unique_ptr<TokenMask> begin() const override {
    struct Mask final : TokenMask {
      bool accept(int32_t token) override {
        if (!allows(sum, token, modulus)) return false;
        sum += token;
        tokens.push_back(token);
        return true;
      }
      void rollback(int count) override {
        for (; count > 0; --count) {
          sum -= tokens.back();
          tokens.pop_back();
        }
      }
      bool constrains() const override { return true; }
      Result<void> fill(std::span<uint64_t> allowed) override {
        if (static_cast<int>(tokens.size()) == fails_at)
          return error(ErrorCode::kInvalidArgument, "too costly");
        std::fill(allowed.begin(), allowed.end(), 0);
        for (size_t token = 0; token < allowed.size() * 64; ++token) {
          if (allows(sum, static_cast<int32_t>(token), modulus))
            allowed[token / 64] |= uint64_t{1} << (token % 64);
        }
        return {};
      }
      int64_t sum = 0;
      std::vector<int32_t> tokens;
      int fails_at = -1, modulus = 7;
    };
    auto mask = std::make_unique<Mask>();
    mask->fails_at = fails_at_;
    mask->modulus = modulus_;
    return mask;
  }

 private:
  const int fails_at_;
  const int modulus_;
};

inline std::unique_ptr<Engine> start_demo_engine(const char* device,
                                                 const SpeculationSettings& speculation = {},
                                                 bool graphs = true) {
  Settings settings;
  settings.model_path = std::string(FATHOM_SOURCE_DIR) + "/models/demo";
  settings.device = device;
  settings.threads = 2;
  settings.max_total_tokens = 4096;
  settings.max_running_requests = 8;
  settings.speculation = speculation;
  settings.disable_cuda_graph = !graphs;
  ModelFacts facts;
  return start_engine(settings, &facts).value();
}

// Sequences that decode together, each in the slot of its index, with one step always submitted ahead of the
// one that is waited for, as the scheduler does.
struct MaskedRun {
  struct One {
    SlotInit init;
    std::vector<TokenOutput> outputs;
    std::optional<Error> failure;
  };
  std::vector<One> all;

  void add(float temperature, std::shared_ptr<const TokenMaskSource> mask, std::vector<int32_t> output = {}) {
    One& one = all.emplace_back();
    one.init.sampling.temperature = temperature;
    one.init.sampling.seed = 17;
    one.init.logprobs.output = true;
    one.init.logprobs.top = 20;
    for (int32_t i = 0; i < 9; ++i) one.init.prompt.push_back(100 + 31 * i);
    one.init.output = std::move(output);
    one.init.mask = std::move(mask);
  }

  void go(Engine& engine, int steps, uint64_t* step) {
    const int32_t page_size = engine.limits().page_size;
    const int32_t pages_each = 128 / page_size + 1;
    std::deque<std::future<Result<StepResult>>> flying;
    for (int n = 0; n < steps; ++n) {
      BatchPlan plan;
      plan.step = ++*step;
      for (size_t s = 0; s < all.size(); ++s) {
        const auto slot = static_cast<int32_t>(s);
        const SlotInit& init = all[s].init;
        BatchRow row;
        row.slot = slot;
        row.sample = true;
        const auto known = static_cast<int32_t>(init.prompt.size() + init.output.size());
        if (n == 0) {
          std::vector<int32_t> pages(static_cast<size_t>(pages_each));
          std::iota(pages.begin(), pages.end(), slot * pages_each);
          plan.open.push_back({slot, init, std::move(pages)});
          row.mode = RowMode::kExtend;
          row.tokens = init.prompt;
          row.tokens.insert(row.tokens.end(), init.output.begin(), init.output.end());
        } else {
          row.start = known + n - 1;
        }
        plan.rows.push_back(std::move(row));
      }
      flying.push_back(engine.step(std::move(plan)));
      if (flying.size() == 2) take(flying);
    }
    while (!flying.empty()) take(flying);
  }

  // The same with guesses, each step once the one before is known; until all have `count` tokens or failed.
  void go_guessing(Engine& engine, size_t count, uint64_t* step) {
    go(engine, 1, step);
    for (;;) {
      BatchPlan plan;
      plan.step = ++*step;
      for (size_t s = 0; s < all.size(); ++s) {
        const One& one = all[s];
        if (one.failure || one.outputs.size() >= count) continue;
        BatchRow row;
        row.slot = static_cast<int32_t>(s);
        row.sample = true;
        row.start =
            static_cast<int32_t>(one.init.prompt.size() + one.init.output.size() + one.outputs.size()) - 1;
        // Not always all that it could.
        row.drafts = engine.limits().max_drafts - static_cast<int32_t>((s + *step) % 4 == 0);
        plan.rows.push_back(std::move(row));
      }
      if (plan.rows.empty()) return;
      ++steps;
      std::deque<std::future<Result<StepResult>>> flying;
      flying.push_back(engine.step(std::move(plan)));
      take(flying);
    }
  }

  int64_t steps = 0, held = 0;  // of go_guessing()

  void take(std::deque<std::future<Result<StepResult>>>& flying) {
    const StepResult result = flying.front().get().value();
    flying.pop_front();
    for (const RowResult& row : result.rows) {
      One& one = all[static_cast<size_t>(row.slot)];
      if (row.error && !one.failure) one.failure = row.error;
      held += static_cast<int64_t>(row.outputs.size()) - 1;
      one.outputs.insert(one.outputs.end(), row.outputs.begin(), row.outputs.end());
    }
  }

  std::vector<int32_t> tokens(size_t index) const {
    std::vector<int32_t> ids;
    for (const TokenOutput& output : all[index].outputs) ids.push_back(output.token);
    return ids;
  }
};

// Every choice keeps its mask, greedy ones are the most likely allowed tokens, and rows without a mask choose
// as they do without such neighbours.
inline void expect_masks_to_be_kept(Engine& engine) {
  uint64_t step = 0;
  MaskedRun alone;
  alone.add(0.0F, nullptr);
  alone.add(0.9F, nullptr);
  alone.go(engine, 24, &step);
  MaskedRun mixed;
  mixed.add(0.0F, nullptr);
  mixed.add(0.9F, nullptr);
  mixed.add(0.0F, std::make_shared<SumMask>());
  mixed.add(0.9F, std::make_shared<SumMask>());
  mixed.add(5.0F, std::make_shared<SumMask>());
  mixed.go(engine, 24, &step);
  EXPECT_EQ(mixed.tokens(0), alone.tokens(0));
  EXPECT_EQ(mixed.tokens(1), alone.tokens(1));
  for (size_t s = 2; s < mixed.all.size(); ++s) {
    int64_t sum = 0;
    ASSERT_EQ(mixed.all[s].outputs.size(), 24U);
    for (const TokenOutput& output : mixed.all[s].outputs) {
      ASSERT_TRUE(SumMask::allows(sum, output.token)) << "row " << s;
      if (mixed.all[s].init.sampling.temperature == 0.0F) {
        const auto first = std::find_if(output.top.begin(), output.top.end(),
                                        [&](const auto& top) { return SumMask::allows(sum, top.token); });
        if (first != output.top.end()) {
          ASSERT_EQ(output.token, first->token);
        }
      }
      sum += output.token;
    }
  }
  // Resumed after a preemption: the mask has seen what came before.
  const std::vector<int32_t> whole = mixed.tokens(3);
  MaskedRun resumed;
  resumed.add(0.9F, std::make_shared<SumMask>(), {whole.begin(), whole.begin() + 5});
  resumed.go(engine, 10, &step);
  int64_t sum = std::accumulate(whole.begin(), whole.begin() + 5, int64_t{0});
  for (const int32_t token : resumed.tokens(0)) {
    ASSERT_TRUE(SumMask::allows(sum, token));
    sum += token;
  }
}

// With guesses the tokens are those without, and guesses do hold under masks.
inline void expect_masks_to_go_with_guesses(Engine& plain, Engine& guessing) {
  const auto fill = [](MaskedRun& run) {
    run.add(0.0F, nullptr);
    for (const int modulus : {2, 7}) {
      for (const float temperature : {0.0F, 0.9F, 2.0F})
        run.add(temperature, std::make_shared<SumMask>(-1, modulus));
    }
    run.add(0.0F, std::make_shared<SumMask>(11, 2));  // fails in the midst
  };
  uint64_t step = 0;
  MaskedRun wanted;
  fill(wanted);
  wanted.go(plain, 40, &step);
  step = 0;
  MaskedRun run;
  fill(run);
  run.go_guessing(guessing, 40, &step);
  EXPECT_GT(run.held, 10) << "guesses, of all rows";
  for (size_t s = 0; s < run.all.size(); ++s) {
    auto tokens = run.tokens(s);
    auto same = wanted.tokens(s);
    if (s + 1 == run.all.size()) {
      ASSERT_TRUE(run.all[s].failure);
      tokens.resize(11);
      same.resize(11);
    } else {
      EXPECT_FALSE(run.all[s].failure);
    }
    tokens.resize(std::min(tokens.size(), same.size()));
    EXPECT_EQ(tokens, same) << "row " << s;
  }
  // A sequence alone, with few constraints: most of its guesses hold.
  MaskedRun alone;
  alone.add(0.0F, std::make_shared<SumMask>(-1, 2));
  alone.go_guessing(guessing, 40, &step);
  EXPECT_LT(alone.steps, 36);
}

inline void expect_a_mask_to_fail_alone(Engine& engine) {
  uint64_t step = 100;
  MaskedRun run;
  run.add(0.0F, std::make_shared<SumMask>());
  run.add(0.0F, std::make_shared<SumMask>(3));
  run.go(engine, 8, &step);
  EXPECT_FALSE(run.all[0].failure);
  ASSERT_TRUE(run.all[1].failure);
  EXPECT_EQ(run.all[1].failure->message, "too costly");
  int64_t sum = 0;
  for (const int32_t token : run.tokens(0)) {
    ASSERT_TRUE(SumMask::allows(sum, token));
    sum += token;
  }
}

}  // namespace fathom::engine
