// Engines of several ranks: the tokens of one rank, and what happens when a rank fails.
#include <gtest/gtest.h>

#include <atomic>
#include <numeric>
#include <thread>

#include "base/clock.h"
#include "base/log.h"
#include "engine/model_ranks.h"
#include "engine/settings.h"
#include "engine/verify.h"

namespace fathom::engine {
namespace {

const std::string kRoot = FATHOM_SOURCE_DIR "/";

Settings settings_of(const std::string& model, int32_t ranks) {
  set_log_level(LogLevel::kWarning);
  Settings settings;
  settings.model_path = kRoot + model;
  settings.device = "cpu";
  settings.dtype = "float32";
  settings.threads = 2;
  settings.tp_size = ranks;
  settings.max_total_tokens = 1024;
  settings.max_running_requests = 4;
  settings.chunked_prefill_size = 64;
  return settings;
}

TEST(ThreadShares, SumUpAndAreAtLeastOne) {
  EXPECT_EQ(thread_shares(8, 3), (std::vector<int32_t>{3, 3, 2}));
  EXPECT_EQ(thread_shares(2, 4), (std::vector<int32_t>{1, 1, 1, 1}));
  const std::vector<int> cpus = {10, 11, 12, 13};
  EXPECT_EQ(cpu_share(cpus, {2, 2}, 1), (std::vector<int>{12, 13}));
  EXPECT_EQ(cpu_share(cpus, {2, 2, 2}, 2), (std::vector<int>{10, 11})) << "from the front when they run out";
}

// What a plan says of one open sequence; greedy.
BatchPlan first_step(const std::vector<int32_t>& prompt) {
  BatchPlan plan;
  SlotInit init;
  init.sampling.temperature = 0.0F;
  init.prompt = prompt;
  init.logprobs.output = true;
  init.logprobs.prompt_start = 1;
  std::vector<int32_t> pages(8);
  std::iota(pages.begin(), pages.end(), 3);
  plan.open.push_back({0, init, pages});
  BatchRow row;
  row.mode = RowMode::kExtend;
  row.tokens = prompt;
  row.sample = true;
  row.prompt_logprob_start = 1;
  plan.rows.push_back(row);
  return plan;
}
BatchPlan next_step(int32_t start) {
  BatchPlan plan;
  BatchRow row;
  row.start = start;
  row.sample = true;
  plan.rows.push_back(row);
  return plan;
}

std::vector<int32_t> some_prompt() {
  std::vector<int32_t> prompt;
  for (int32_t i = 0; i < 40; ++i) prompt.push_back(i * 61 % 2900 + 20);
  return prompt;
}

TEST(RankEngine, GivesTheTokensOfOneRank) {
  ModelFacts facts;
  std::vector<int32_t> expected;
  std::vector<float> expected_logprobs;
  for (const int32_t ranks : {1, 2, 4}) {
    const auto engine = start_engine(settings_of("models/demo", ranks), &facts).value();
    std::vector<int32_t> tokens;
    std::vector<float> logprobs;
    const auto prompt = some_prompt();
    const auto first = engine->step(first_step(prompt)).get().value();
    tokens.push_back(first.rows[0].outputs[0].token);
    for (const auto& output : first.rows[0].prompt_logprobs) logprobs.push_back(output.logprob);
    for (int32_t i = 0; i < 20; ++i)
      tokens.push_back(engine->step(next_step(40 + i)).get().value().rows[0].outputs[0].token);
    ASSERT_EQ(logprobs.size(), prompt.size() - 1);
    if (ranks == 1) {
      expected = tokens;
      expected_logprobs = logprobs;
    }
    EXPECT_EQ(tokens, expected) << ranks;
    for (size_t i = 0; i < logprobs.size(); ++i)
      EXPECT_NEAR(logprobs[i], expected_logprobs[i], 1e-3) << ranks;
    EXPECT_EQ(engine->report().device.find(fmt::format("on {} ranks", ranks)) != std::string::npos,
              ranks > 1);
  }
}

// A request's greedy tokens by an engine that others may run beside.
std::vector<int32_t> run_alone(Engine& engine, const std::vector<int32_t>& prompt, int32_t steps) {
  std::vector<int32_t> tokens = {engine.step(first_step(prompt)).get().value().rows[0].outputs[0].token};
  const auto length = static_cast<int32_t>(prompt.size());
  for (int32_t i = 0; i < steps; ++i)
    tokens.push_back(engine.step(next_step(length + i)).get().value().rows[0].outputs[0].token);
  return tokens;
}

std::string name_of(const model::Split& split) {
  return fmt::format("tp {} dp {} ep {} pp {}", split.tp, split.dp, split.ep, split.pp);
}

// Every way to split the demo model (4 heads, 16 experts) over up to 8 ranks; with several groups of
// requests, groups run, wait and sleep as they like.
TEST(RankEngine, GivesTheTokensOfOneRankHoweverItIsSplit) {
  ModelFacts facts;
  const auto prompt_of = [](size_t group) {
    auto prompt = some_prompt();
    prompt.resize(40 - 9 * group);
    return prompt;
  };
  std::vector<std::vector<int32_t>> expected;
  {
    const auto engine = start_engine(settings_of("models/demo", 1), &facts).value();
    for (size_t group = 0; group < 4; ++group)
      expected.push_back(run_alone(*engine, prompt_of(group), 6 + 5 * static_cast<int32_t>(group)));
  }
  for (const model::Split split : {model::Split{.tp = 2, .ep = 2},
                                   {.tp = 4, .ep = 2},
                                   {.tp = 4, .ep = 4},
                                   {.tp = 1, .pp = 2},
                                   {.tp = 2, .pp = 3},
                                   {.tp = 2, .dp = 2},
                                   {.tp = 2, .dp = 2, .ep = 2},
                                   {.tp = 4, .dp = 2, .ep = 4},
                                   {.tp = 4, .dp = 4},
                                   {.tp = 4, .dp = 2, .ep = 2, .pp = 2},
                                   {.tp = 8, .dp = 2, .ep = 8}}) {
    Settings settings = settings_of("models/demo", split.tp);
    settings.dp_size = split.dp;
    settings.enable_dp_attention = split.dp > 1;
    settings.ep_size = split.ep;
    settings.pp_size = split.pp;
    const auto engines = start_engines(settings, &facts).value();
    ASSERT_EQ(engines.size(), static_cast<size_t>(split.dp));
    std::vector<std::thread> threads;
    for (size_t group = 0; group < engines.size(); ++group) {
      threads.emplace_back([&, group] {
        EXPECT_EQ(run_alone(*engines[group], prompt_of(group), 6 + 5 * static_cast<int32_t>(group)),
                  expected[group])
            << name_of(split) << " group " << group;
      });
    }
    for (auto& thread : threads) thread.join();
  }
}

// Experts in several places, and moved while requests run: the tokens stay.
TEST(RankEngine, BalancesExpertsWhileItServes) {
  ModelFacts facts;
  const auto expected =
      run_alone(*start_engine(settings_of("models/demo", 1), &facts).value(), some_prompt(), 40);
  for (const model::Split split : {model::Split{.tp = 2, .ep = 2},
                                   {.tp = 2, .ep = 2, .redundant = 6},
                                   {.tp = 4, .dp = 2, .ep = 2, .pp = 2, .redundant = 3},
                                   {.tp = 4, .dp = 4, .ep = 4, .redundant = 4}}) {
    Settings settings = settings_of("models/demo", split.tp);
    settings.dp_size = split.dp;
    settings.enable_dp_attention = split.dp > 1;
    settings.ep_size = split.ep;
    settings.pp_size = split.pp;
    settings.redundant_experts = split.redundant;
    settings.enable_eplb = true;
    settings.eplb_iterations = 5;
    const auto engines = start_engines(settings, &facts).value();
    std::vector<std::thread> threads;
    for (const auto& engine : engines) {
      threads.emplace_back(
          [&] { EXPECT_EQ(run_alone(*engine, some_prompt(), 40), expected) << name_of(split); });
    }
    for (auto& thread : threads) thread.join();
    const auto report = engines.front()->experts();
    ASSERT_TRUE(report.has_value());
    EXPECT_GE(report->balancings, 8);
    EXPECT_GT(report->moved, 0) << name_of(split);
    EXPECT_LE(report->imbalance, report->imbalance_before);
  }
}

TEST(RankEngine, ReplicasAreWholeEngines) {
  ModelFacts facts;
  Settings settings = settings_of("models/demo", 1);
  settings.dp_size = 2;
  const auto engines = start_engines(settings, &facts).value();
  ASSERT_EQ(engines.size(), 2U);
  EXPECT_EQ(run_alone(*engines[0], some_prompt(), 5), run_alone(*engines[1], some_prompt(), 5));
}

TEST(RankEngine, VerifiesGoldens) {
  for (const int32_t ranks : {2, 4}) {
    const auto cases = verify(settings_of("models/demo", ranks), kRoot + "tests/golden/demo.safetensors");
    ASSERT_TRUE(cases.ok()) << cases.error().message;
    for (const auto& c : *cases) {
      EXPECT_EQ(c.first_difference, -1) << c.name;
      EXPECT_LT(c.worst_error, 2e-3) << c.name;
    }
  }
}

TEST(RankEngine, RefusesWhatCannotBeSplit) {
  ModelFacts facts;
  const auto message = [&](const model::Split& split, bool attention) {
    Settings settings = settings_of("models/demo", split.tp);
    settings.dp_size = split.dp;
    settings.enable_dp_attention = attention;
    settings.ep_size = split.ep;
    settings.pp_size = split.pp;
    settings.redundant_experts = split.redundant;
    const auto engines = start_engines(settings, &facts);
    return engines.ok() ? std::string("started") : engines.error().message;
  };
  EXPECT_EQ(message({.tp = 3}, false), "--tp 3: the model's 4 attention heads do not split in 3; use 2 or 4");
  EXPECT_EQ(message({.tp = 3, .dp = 2}, true),
            "--tp 3 --dp 2: the ranks do not split in 2 groups of requests; make --tp a multiple of --dp");
  EXPECT_EQ(message({.tp = 4, .ep = 3}, false),
            "--tp 4 --ep-size 3: the ranks do not split in 3 sets of experts; make --tp a multiple of "
            "--ep-size");
  EXPECT_EQ(message({.tp = 1, .pp = 9}, false),
            "--tp 1 --pp-size 9: the model has 5 layers; use at most so many stages");
  EXPECT_NE(message({.tp = 2}, true).find("with --dp"), std::string::npos);
  EXPECT_NE(message({.tp = 2, .redundant = 2}, false).find("spread them with --ep-size"), std::string::npos);
  EXPECT_NE(message({.tp = 2, .ep = 2, .redundant = 17}, false).find("give at most so many"),
            std::string::npos);
}

// Weights that cannot be loaded are the error of the start, not a timeout.
TEST(RankEngine, AStartThatFailsSaysWhy) {
  ModelFacts facts;
  const Settings settings = settings_of("models/demo", 2);
  auto options = resolve(settings, &facts).value();
  const auto checkpoint = weights::Checkpoint::open(kRoot + "tests/golden/v3").value();
  options.load.checkpoint = &checkpoint;
  const int64_t start = steady_clock().now_ns();
  const auto engine = Engine::start(options);
  ASSERT_FALSE(engine.ok());
  EXPECT_NE(engine.error().message.find("do not fit config.json"), std::string::npos)
      << engine.error().message;
  EXPECT_LT(seconds_since(start), 20.0);
}

// Passes everything on; from the n-th sum on, rank 1 leaves or hangs.
class FailingGroup final : public dist::Group {
 public:
  enum class Fate { kLeave, kHang };
  FailingGroup(std::unique_ptr<dist::Group> inner, Fate fate, int sums)
      : inner_(std::move(inner)), fate_(fate), left_(sums) {}

  int rank() const override { return rank_; }
  int size() const override { return size_; }
  Result<void> all_reduce(void* data, int64_t count, device::DType dtype) override {
    if (rank_ == 1 && left_-- <= 0 && inner_) {
      if (fate_ == Fate::kLeave) {
        inner_.reset();
      } else {
        while (inner_->state().ok()) std::this_thread::sleep_for(std::chrono::milliseconds(1));
      }
    }
    return inner_ ? inner_->all_reduce(data, count, dtype) : gone();
  }
  Result<void> all_gather(const void* send, std::span<const int64_t> bytes, void* receive) override {
    return inner_ ? inner_->all_gather(send, bytes, receive) : gone();
  }
  Result<void> reduce_scatter(const void* data, std::span<const int64_t> counts, device::DType dtype,
                              void* receive) override {
    return inner_ ? inner_->reduce_scatter(data, counts, dtype, receive) : gone();
  }
  Result<void> broadcast(void* data, int64_t bytes, int root) override {
    return inner_ ? inner_->broadcast(data, bytes, root) : gone();
  }
  Result<void> all_to_all(std::span<const dist::Outgoing> send,
                          std::span<const dist::Incoming> receive) override {
    return inner_ ? inner_->all_to_all(send, receive) : gone();
  }
  Result<void> barrier() override { return inner_ ? inner_->barrier() : gone(); }
  Result<std::unique_ptr<dist::Group>> split(int colour, const std::string& name) override {
    if (!inner_) return gone();
    return inner_->split(colour, name);
  }
  void abort(Error error) override {
    if (inner_) inner_->abort(std::move(error));
  }
  Result<void> state() const override { return inner_ ? inner_->state() : Result<void>(gone()); }

 private:
  static Error gone() { return {ErrorCode::kInternal, "gone"}; }

  std::unique_ptr<dist::Group> inner_;
  const int rank_ = inner_->rank();
  const int size_ = inner_->size();
  const Fate fate_;
  int left_;
};

TEST(RankEngine, ARankThatFailsEndsAllSteps) {
  using Fate = FailingGroup::Fate;
  for (const Fate fate : {Fate::kLeave, Fate::kHang}) {
    ModelFacts facts;
    auto options = resolve(settings_of("models/demo", 2), &facts).value();
    const auto checkpoint = weights::Checkpoint::open(kRoot + "models/demo").value();
    options.load.checkpoint = &checkpoint;
    options.dist_timeout = std::chrono::milliseconds(2000);
    // A forward pass sums 1 + 2 * 5 times: the second step breaks in its middle.
    options.wrap_group = [&](std::unique_ptr<dist::Group> group) {
      return std::make_unique<FailingGroup>(std::move(group), fate, 16);
    };
    const auto engine = Engine::start(options).value();
    EXPECT_TRUE(engine->step(first_step(some_prompt())).get().ok());
    const int64_t start = steady_clock().now_ns();
    // All that are in flight, and all later ones.
    auto second = engine->step(next_step(40));
    auto third = engine->step(next_step(41));
    const auto broken = second.get();
    ASSERT_FALSE(broken.ok());
    const char* message = fate == Fate::kLeave ? "rank 1 has left" : "held up by rank 1";
    EXPECT_NE(broken.error().message.find(message), std::string::npos) << broken.error().message;
    EXPECT_FALSE(third.get().ok());
    EXPECT_FALSE(engine->step(next_step(42)).get().ok());
    EXPECT_LT(seconds_since(start), fate == Fate::kLeave ? 1.5 : 10.0);
  }
}

}  // namespace
}  // namespace fathom::engine
