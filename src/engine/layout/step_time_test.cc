#include "engine/layout/step_time.h"

#include <gtest/gtest.h>

#include <cmath>
#include <numeric>

namespace fathom::engine {
namespace {

model::ModelConfig config(const std::string& name) {
  return model::load_config(FATHOM_SOURCE_DIR "/models/configs/" + name).value();
}

StepTimes times_of(const model::ModelConfig& config, const char* gpu, double bias = 0.0) {
  RoutingOptions routing;
  routing.bias_deviation = bias;
  return StepTimes::make(config, *find_gpu(gpu), routing).value();
}

double hit(const std::vector<std::vector<int32_t>>& trials) {
  double experts = 0.0;
  for (const auto& trial : trials)
    experts +=
        static_cast<double>(std::count_if(trial.begin(), trial.end(), [](int32_t r) { return r > 0; }));
  return experts / static_cast<double>(trials.size());
}

TEST(Routing, SendsEveryTokenToItsTopKExperts) {
  const auto c = config("deepseek_v3");
  for (const auto& trial : draw_routing(c, 33, {})) {
    EXPECT_EQ(std::accumulate(trial.begin(), trial.end(), 0), 33 * 8);
    for (const int32_t rows : trial) EXPECT_LE(rows, 33);
  }
}

TEST(Routing, WithoutBiasHitsAsManyExpertsAsUniformChoiceDoes) {
  const auto c = config("deepseek_v3");
  for (const int tokens : {1, 16, 64}) {
    const double uniform = 256 * (1 - std::pow(1 - 8.0 / 256, tokens));
    EXPECT_NEAR(hit(draw_routing(c, tokens, {.trials = 32})), uniform, 0.03 * uniform) << tokens;
  }
}

TEST(Routing, ABiasMakesFewerDo) {
  const auto c = config("deepseek_v3");
  EXPECT_LT(hit(draw_routing(c, 64, {.bias_deviation = kDummyBias})), 0.9 * hit(draw_routing(c, 64, {})));
}

// docs/benchmarks.md: slices of DeepSeek-V3 with dummy weights; 48 tokens of output.
TEST(StepTimes, PredictWhatOneGpuWasMeasuredToTake) {
  const struct {
    const char* gpu;
    int64_t layers, prompt, batch;
    double tokens_a_second;
  } measured[] = {
      {"h100", 6, 1024, 1, 490},    {"h100", 6, 1024, 4, 1338},    {"h100", 6, 1024, 16, 2888},
      {"h100", 6, 1024, 32, 4265},  {"h100", 6, 1024, 64, 6835},   {"h100", 6, 1024, 128, 10887},
      {"h200", 9, 512, 1, 484},     {"h200", 9, 512, 4, 1185},     {"h200", 9, 512, 16, 2305},
      {"h200", 9, 512, 32, 3342},   {"h200", 9, 512, 64, 5308},    {"h200", 9, 512, 128, 8142},
      {"h200", 9, 512, 256, 13189}, {"h100", 6, 1024, 256, 17377},
  };
  for (const auto& m : measured) {
    auto c = config("deepseek_v3_slice9");
    c.num_layers = m.layers;
    auto times = times_of(c, m.gpu, kDummyBias);
    const auto step = times.decode({}, m.batch, static_cast<double>(m.prompt + 24));
    const double took = 1e6 * static_cast<double>(m.batch) / m.tokens_a_second;
    EXPECT_NEAR(step.total() / took, 1.0, 0.1)
        << m.gpu << ' ' << m.batch << ": " << step.total() << " us predicted, " << took
        << " measured; attention " << step.attention << " experts " << step.experts << " dense " << step.dense
        << " head " << step.head;
  }
}

TEST(StepTimes, PredictWhatTwoGpusWereMeasuredToTake) {
  const model::Split tp{.tp = 2}, apart{.tp = 2, .dp = 2, .ep = 2};
  auto times = times_of(config("deepseek_v3_slice9"), "h200", kDummyBias);
  for (const auto& [split, batch, rate] : {std::tuple{tp, 1, 758.0},
                                           {tp, 16, 4053.0},
                                           {tp, 32, 5853.0},
                                           {tp, 128, 14373.0},
                                           {apart, 256, 22447.0}}) {
    const double predicted = 1e6 * batch / times.decode({.split = split}, batch, 512 + 24).total();
    EXPECT_NEAR(predicted / rate, 1.0, 0.1) << batch << " on two: " << predicted << " of " << rate;
  }
}

// A model as narrow as a rank's share of nine layers, on one GPU: all of such a rank's step but the meetings.
TEST(StepTimes, PredictWhatARanksShareWasMeasuredToTake) {
  for (const auto& [ranks, batch, rate] : {std::tuple{2, 1, 815.0},
                                           {2, 4, 2027.0},
                                           {2, 16, 4197.0},
                                           {4, 1, 1180.0},
                                           {4, 4, 3198.0},
                                           {8, 1, 1524.0},
                                           {8, 4, 4492.0},
                                           {8, 16, 10637.0}}) {
    auto c = config("deepseek_v3_slice9");
    c.num_heads /= ranks;
    c.moe_intermediate_size /= ranks;
    c.intermediate_size /= ranks;
    c.vocab_size /= ranks;
    const double predicted =
        1e6 * batch / times_of(c, "h200", kDummyBias).decode({}, batch, 512 + 24).total();
    EXPECT_NEAR(predicted / rate, 1.0, 0.1) << batch << " on one of " << ranks << ": " << predicted;
  }
}

TEST(StepTimes, PredictWhatPromptsWereMeasuredToTake) {
  for (const auto& [gpu, layers, rate] : {std::tuple{"h100", 6, 88000.0}, {"h200", 9, 58500.0}}) {
    auto c = config("deepseek_v3_slice9");
    c.num_layers = layers;
    auto times = times_of(c, gpu, kDummyBias);
    const double predicted = 4096 * 1e6 / times.prefill({}, 4096, 1024).total();
    EXPECT_NEAR(predicted / rate, 1.0, 0.1) << gpu;
  }
}

TEST(StepTimes, MoreRanksReadFewerWeightsAndMeetMore) {
  const auto c = config("deepseek_v3");
  auto times = times_of(c, "h200");
  const auto of = [&](Layout layout, int64_t batch) { return times.decode(layout, batch, 4096); };
  const auto one = of({.split = {.tp = 8}}, 64);
  const auto two = of({.split = {.tp = 16}, .nodes = 2}, 64);
  EXPECT_LT(two.attention + two.experts, one.attention + one.experts);
  EXPECT_GT(two.meetings, one.meetings);
  // One token's experts are on few ranks when they are spread, on all when they are split.
  EXPECT_GT(of({.split = {.tp = 8, .ep = 8}}, 1).experts, of({.split = {.tp = 8}}, 1).experts);
  // A group of its own attends to its own sequences only.
  EXPECT_LT(of({.split = {.tp = 8, .dp = 8}}, 1024).total(), of({.split = {.tp = 8}}, 1024).total());
  // Two copies take half of the sequences each.
  const Layout copies{.split = {.tp = 8}, .replicas = 2, .nodes = 2};
  EXPECT_EQ(of(copies, 128).total(), one.total());
}

TEST(StepTimes, RefuseWhatWasNeverTimed) {
  const auto v3 = config("deepseek_v3");
  EXPECT_EQ(StepTimes::make(v3, *find_gpu("a100"), {}).error().code, ErrorCode::kUnsupported);
  EXPECT_EQ(StepTimes::make(config("deepseek_v2_lite"), *find_gpu("h100"), {}).error().code,
            ErrorCode::kUnsupported);
}

TEST(KernelTimes, AreThoseOfTheBenchmarks) {
  const KernelTimes times(*find_gpu("h100"));
  const auto near = [](double predicted, double measured) {
    EXPECT_NEAR(predicted / measured, 1.0, 0.12) << measured;
  };
  near(times.heads_fp8(128, 512, 128, 17), 7.5);
  near(times.heads_fp8(128, 512, 128, 64), 8.7);
  near(times.heads_fp8(128, 512, 128, 128), 11.5);
  near(times.heads_fp8(128, 512, 128, 256), 20.3);
  near(times.heads_fp8(128, 512, 128, 512), 36.8);
  near(times.linear_fp8(2112, 7168, 1), 7.6);
  near(times.linear_fp8(2112, 7168, 128), 9.6);
  near(times.linear_fp8(2112, 7168, 512), 16.4);
  near(times.linear_fp8(24576, 1536, 1), 13.2);
  near(times.linear_fp8(24576, 1536, 128), 17.7);
  near(times.linear_fp8(4096, 7168, 1), 13.3);
  near(times.linear_fp8(4096, 7168, 128), 13.6);
  near(times.linear_fp8(7168, 16384, 1), 40.3);
  near(times.linear_fp8(7168, 16384, 64), 42.3);
  near(times.linear_fp8(7168, 16384, 128), 46.6);
  near(times.linear_fp8(7168, 16384, 4096), 748);
  near(times.linear_fp8(7168, 18432, 64), 47.0);
  near(times.linear_fp8(36864, 7168, 1), 87.8);
  near(times.linear_fp8(36864, 7168, 512), 213);
  near(times.linear_bf16(102400, 2048, 1), 144.8);
  const std::vector<int32_t> four(32, 4), many(32, 64), most(32, 512);
  near(times.experts_fp8(four, 4096, 7168), 311);
  near(times.experts_fp8(many, 4096, 7168), 330);
  near(times.experts_fp8(four, 7168, 2048), 159);
  near(times.experts_fp8(many, 7168, 2048), 172);
  near(times.experts_fp8(most, 4096, 7168), 889);
  near(times.mla_decode(128, 4096, 128), 265);
  near(times.mla_decode(128, 1024, 16), 61.8);
  near(times.mla_decode(1, 4096, 16), 9.4);
  near(times.mla_decode(1, 1024, 128), 10.8);
  near(times.mla_decode(1, 8192, 128), 31.9);
  near(times.mla_decode(16, 4096, 128), 44.7);
  near(times.mla_decode(1, 32768, 128), 57.7);
  near(times.mla_decode(1, 65536, 128), 63.7);
  near(times.mla_decode(1, 131072, 128), 76.9);
  near(times.mla_decode(4, 65536, 128), 152);
  near(times.mla_decode(8, 65536, 128), 260);
  near(times.mla_decode(32, 32768, 128), 501);
  // As long with half the heads (docs/benchmarks.md, two GPUs).
  EXPECT_EQ(times.mla_decode(1, 1024, 64), times.mla_decode(1, 1024, 128));
  EXPECT_LT(times.mla_decode(128, 1024, 64), times.mla_decode(128, 1024, 128));
  near(times.extend_attention(4096, 4096, 128, 192, 128), 1106);
  near(times.sample(128), 30.1);
}

}  // namespace
}  // namespace fathom::engine
