#include "engine/engine.h"

#include <gtest/gtest.h>

#include <random>

#include "base/log.h"
#include "engine/settings.h"
#include "engine/verify.h"

namespace fathom::engine {
namespace {

PoolRequest request() {
  PoolRequest request;
  request.available_bytes = 1000 << 20;
  request.weight_bytes = 450 << 20;
  request.bytes_per_token = 1 << 10;
  request.page_size = 16;
  request.max_context = 1 << 20;
  request.max_running = 64;
  request.mem_fraction = 0.5;
  return request;
}

TEST(PoolSize, TakesWhatTheFractionLeaves) {
  const auto size = size_pool(request());
  ASSERT_TRUE(size.ok());
  EXPECT_EQ(size->pages, 50 * 1024 / 16);
  EXPECT_EQ(size->bytes, 50 << 20);
  EXPECT_STREQ(size->bound, "memory");
}

TEST(PoolSize, IsNoLargerThanUsefulOrWished) {
  auto few = request();
  few.max_context = 100;
  few.max_running = 3;
  EXPECT_EQ(size_pool(few)->pages, 3 * 7);
  auto wish = request();
  wish.max_total_tokens = 1000;
  EXPECT_EQ(size_pool(wish)->pages, 63);
  EXPECT_STREQ(size_pool(wish)->bound, "--max-total-tokens");
}

TEST(PoolSize, SaysWhatToChangeWhenItDoesNotFit) {
  auto wish = request();
  wish.max_total_tokens = 1 << 20;
  EXPECT_NE(size_pool(wish).error().message.find("lower it, or raise --mem-fraction-static"),
            std::string::npos);
  auto full = request();
  full.weight_bytes = 600 << 20;
  EXPECT_EQ(size_pool(full).error().code, ErrorCode::kUnavailable);
}

TEST(Median, IsTheMiddle) {
  EXPECT_EQ(median({3.0, 1.0, 2.0}), 2.0);
  EXPECT_EQ(median({4.0}), 4.0);
}

class DemoEngine : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    set_log_level(LogLevel::kWarning);
    Settings settings;
    settings.model_path = std::string(FATHOM_SOURCE_DIR) + "/models/demo";
    settings.dtype = "float32";
    settings.threads = 2;
    settings.max_total_tokens = 2048;
    settings.max_running_requests = 4;
    settings.chunked_prefill_size = 64;
    settings.deterministic = true;
    ModelFacts facts;
    engine_ = start_engine(settings, &facts).value().release();
    EXPECT_EQ(facts.eos_token_ids, std::vector<int32_t>{1});
    EXPECT_EQ(facts.context_length, 4096);
  }
  static void TearDownTestSuite() {
    delete engine_;
    engine_ = nullptr;
  }

  static BatchPlan open(int32_t slot, const std::vector<int32_t>& prompt, std::vector<int32_t> pages,
                        const LogprobParams& logprobs = {}, const std::vector<int32_t>& output = {}) {
    BatchPlan plan;
    SlotInit init;
    init.sampling.temperature = 0.0F;
    init.logprobs = logprobs;
    init.prompt = prompt;
    init.output = output;
    plan.open.push_back({slot, init, std::move(pages)});
    return plan;
  }
  static BatchRow extend(int32_t slot, int32_t start, std::vector<int32_t> tokens, bool sample) {
    BatchRow row;
    row.slot = slot;
    row.mode = RowMode::kExtend;
    row.start = start;
    row.tokens = std::move(tokens);
    row.sample = sample;
    return row;
  }
  static BatchRow decode(int32_t slot, int32_t start) {
    BatchRow row;
    row.slot = slot;
    row.start = start;
    row.sample = true;
    return row;
  }
  static StepResult step(BatchPlan plan) { return engine_->step(std::move(plan)).get().value(); }

  // The prompt's tokens with their logprobs, computed in two rows, or in one where the cut is its length.
  static std::vector<TokenOutput> cut_logprobs(Engine& engine, const std::vector<int32_t>& tokens,
                                               size_t cut) {
    LogprobParams logprobs;
    logprobs.output = true;
    logprobs.prompt_start = 1;
    logprobs.top = 2;
    auto plan = open(0, tokens, {0, 1, 2}, logprobs);
    const auto middle = tokens.begin() + static_cast<ptrdiff_t>(cut);
    auto head = extend(0, 0, {tokens.begin(), middle}, cut == tokens.size());
    head.prompt_logprob_start = 1;
    if (cut < tokens.size()) head.next_prompt_token = tokens[cut];
    plan.rows.push_back(head);
    auto all = engine.step(std::move(plan)).get().value().rows[0].prompt_logprobs;
    if (cut < tokens.size()) {
      BatchPlan next;
      auto tail = extend(0, static_cast<int32_t>(cut), {middle, tokens.end()}, true);
      tail.prompt_logprob_start = 1;
      next.rows.push_back(tail);
      const auto rest = engine.step(std::move(next)).get().value().rows[0].prompt_logprobs;
      all.insert(all.end(), rest.begin(), rest.end());
    }
    return all;
  }

  static std::vector<int32_t> prompt(unsigned seed, size_t length) {
    std::mt19937 random(seed);
    std::vector<int32_t> tokens(length);
    for (auto& token : tokens) token = static_cast<int32_t>(random() % 3000 + 20);
    return tokens;
  }

  static Engine* engine_;
};
Engine* DemoEngine::engine_ = nullptr;

TEST_F(DemoEngine, CutPromptsAndFlightsOfStepsGiveTheSameTokens) {
  const auto tokens = prompt(1, 50);
  std::vector<int32_t> whole;
  {
    auto plan = open(0, tokens, {0, 1, 2, 3, 4});
    plan.rows.push_back(extend(0, 0, tokens, true));
    whole.push_back(step(std::move(plan)).rows[0].outputs[0].token);
    for (int32_t i = 0; i < 8; ++i) {
      BatchPlan next;
      next.rows.push_back(decode(0, 50 + i));
      whole.push_back(step(std::move(next)).rows[0].outputs[0].token);
    }
  }
  // The same in two cuts, other pages in another order, beside a second sequence, all steps submitted before
  // any ends.
  const auto other = prompt(2, 30);
  std::vector<std::future<Result<StepResult>>> flights;
  auto first = open(2, tokens, {40, 9});
  first.rows.push_back(extend(2, 0, {tokens.begin(), tokens.begin() + 21}, false));
  flights.push_back(engine_->step(std::move(first)));
  auto second = open(1, other, {20, 21, 22});
  second.rows.push_back(extend(1, 0, other, true));
  auto rest = extend(2, 21, {tokens.begin() + 21, tokens.end()}, true);
  rest.new_pages = {33, 7, 60};
  second.rows.push_back(rest);
  flights.push_back(engine_->step(std::move(second)));
  for (int32_t i = 0; i < 8; ++i) {
    BatchPlan next;
    next.rows.push_back(decode(2, 50 + i));
    next.rows.push_back(decode(1, 30 + i));
    flights.push_back(engine_->step(std::move(next)));
  }
  std::vector<int32_t> cut;
  for (auto& flight : flights) {
    const StepResult done = flight.get().value();
    for (const auto& row : done.rows) {
      if (row.slot == 2 && !row.outputs.empty()) cut.push_back(row.outputs[0].token);
    }
  }
  EXPECT_EQ(cut, whole);
}

TEST_F(DemoEngine, AResumedSequenceGoesOnAsBefore) {
  const auto tokens = prompt(3, 20);
  auto plan = open(0, tokens, {0, 1, 2});
  plan.rows.push_back(extend(0, 0, tokens, true));
  std::vector<int32_t> output = {step(std::move(plan)).rows[0].outputs[0].token};
  for (int32_t i = 0; i < 9; ++i) {
    BatchPlan next;
    next.rows.push_back(decode(0, 20 + i));
    output.push_back(step(std::move(next)).rows[0].outputs[0].token);
  }
  // Preempted after 6 tokens: the prompt is extended again, the output replayed as decode rows.
  const std::vector<int32_t> kept(output.begin(), output.begin() + 6);
  auto resume = open(3, tokens, {50, 51, 52}, {}, kept);
  resume.rows.push_back(extend(3, 0, tokens, false));
  (void)step(std::move(resume));
  BatchPlan replay;
  BatchRow row = decode(3, 20);
  row.tokens = kept;
  replay.rows.push_back(row);
  std::vector<int32_t> resumed = kept;
  resumed.push_back(step(std::move(replay)).rows[0].outputs[0].token);
  for (int32_t i = 6; i < 9; ++i) {
    BatchPlan next;
    next.rows.push_back(decode(3, 20 + i));
    resumed.push_back(step(std::move(next)).rows[0].outputs[0].token);
  }
  EXPECT_EQ(resumed, output);
}

TEST_F(DemoEngine, PromptLogprobsDoNotDependOnTheCut) {
  const auto tokens = prompt(4, 40);
  const auto whole = cut_logprobs(*engine_, tokens, tokens.size());
  ASSERT_EQ(whole.size(), tokens.size() - 1);
  for (size_t i = 0; i < whole.size(); ++i) EXPECT_EQ(whole[i].token, tokens[i + 1]);
  for (const size_t cut : {1, 13, 39}) {
    const auto parts = cut_logprobs(*engine_, tokens, cut);
    ASSERT_EQ(parts.size(), whole.size()) << cut;
    for (size_t i = 0; i < whole.size(); ++i) {
      EXPECT_EQ(parts[i].token, whole[i].token);
      EXPECT_EQ(parts[i].logprob, whole[i].logprob) << "cut " << cut << " position " << i + 1;
      EXPECT_EQ(parts[i].top[0].token, whole[i].top[0].token);
    }
  }
}

// Where it costs less, the end of a prompt attends absorbed: only rounding tells.
TEST_F(DemoEngine, AbsorbedPromptsDifferByRoundingAlone) {
  Settings settings;
  settings.model_path = std::string(FATHOM_SOURCE_DIR) + "/models/demo";
  settings.dtype = "float32";
  settings.threads = 1;
  settings.max_total_tokens = 256;
  settings.max_running_requests = 1;
  ModelFacts facts;
  const auto by_price = start_engine(settings, &facts).value();
  EXPECT_EQ(by_price->limits().prompt_pairs, 170);
  EXPECT_EQ(engine_->limits().prompt_pairs, engine_->limits().max_step_tokens);
  const auto tokens = prompt(4, 40);
  const auto whole = cut_logprobs(*engine_, tokens, tokens.size());
  bool rounded = false;
  for (const size_t cut : {13, 39}) {
    const auto parts = cut_logprobs(*by_price, tokens, cut);
    ASSERT_EQ(parts.size(), whole.size()) << cut;
    for (size_t i = 0; i < whole.size(); ++i) {
      const bool head = i + 1 < cut;
      EXPECT_NEAR(parts[i].logprob, whole[i].logprob, head ? 0.0 : 2e-4) << "cut " << cut << " at " << i + 1;
      EXPECT_EQ(parts[i].top[0].token, whole[i].top[0].token);
      rounded = rounded || parts[i].logprob != whole[i].logprob;
    }
  }
  EXPECT_TRUE(rounded) << "nothing attended absorbed";
}

TEST(Verify, RefusesAFileThatIsNoGolden) {
  Settings settings;
  settings.model_path = std::string(FATHOM_SOURCE_DIR) + "/models/demo";
  settings.threads = 1;
  const auto answer = verify(settings, settings.model_path + "/model-00003-of-00003.safetensors");
  ASSERT_FALSE(answer.ok());
  EXPECT_NE(answer.error().message.find("not a golden file"), std::string::npos) << answer.error().message;
}

}  // namespace
}  // namespace fathom::engine
