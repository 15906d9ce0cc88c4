#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <set>

#include "base/random.h"
#include "sample/logprobs.h"
#include "sample/ref.h"
#include "sample/row_kernels.h"
#include "sample/sampler.h"
#include "sample/testing.h"

namespace fathom::sample {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

float uniform(uint64_t stream, uint64_t i) {
  return random_uniform(7, stream, i);
}

enum class Shape { kSmooth, kPeaked, kTies, kBanned, kFlat };

std::vector<float> make_logits(int64_t vocab, uint64_t stream, Shape shape) {
  std::vector<float> logits(static_cast<size_t>(vocab));
  for (size_t i = 0; i < logits.size(); ++i) {
    const float u = uniform(stream, 2 * i);
    logits[i] = 8.0F * (u + uniform(stream, 2 * i + 1) - 1.0F);
    if (shape == Shape::kPeaked) logits[i] = logits[i] * 2.0F + (u > 0.98F ? 12.0F : 0.0F);
    if (shape == Shape::kTies) logits[i] = std::round(logits[i]);
    if (shape == Shape::kBanned && u < 0.7F && i > 0) logits[i] = -kInfinity;
    if (shape == Shape::kFlat) logits[i] = 1.25F;
  }
  return logits;
}

device::Tensor as_tensor(std::vector<float>& logits, int64_t rows) {
  return {logits.data(), device::DType::kF32, {rows, static_cast<int64_t>(logits.size()) / rows}};
}

// A draw that falls on a border between two tokens, as near as rounding can tell, may go to either.
void expect_same_choice(const std::vector<float>& logits, const SamplingParams& params, int64_t index) {
  const auto vocab = static_cast<int64_t>(logits.size());
  const auto distribution = reference_distribution(logits.data(), vocab, params);
  const int32_t got = choose_token(logits.data(), vocab, params, index);
  if (params.greedy()) {
    EXPECT_EQ(got, distribution[0].token);
    return;
  }
  const double draw = random_uniform(params.seed, 0, static_cast<uint64_t>(index));
  constexpr double kSlack = 2e-6;
  double low = 0.0;
  double high = 0.0;
  bool possible = false;
  for (const auto& token : distribution) {
    low = high;
    high += token.probability;
    if (token.token != got) continue;
    possible = draw >= low - kSlack && draw < high + kSlack;
    break;
  }
  EXPECT_TRUE(possible) << "token " << got << ", expected " << reference_choice(distribution, draw)
                        << ", draw " << draw << " temperature " << params.temperature << " top_k "
                        << params.top_k << " top_p " << params.top_p << " min_p " << params.min_p << " vocab "
                        << vocab;
}

TEST(Sampler, ChoosesAsTheReferenceDoes) {
  uint64_t stream = 0;
  for (const int64_t vocab : {1, 2, 3, 17, 255, 256, 257, 1000, 4099}) {
    for (const Shape shape : {Shape::kSmooth, Shape::kPeaked, Shape::kTies, Shape::kBanned, Shape::kFlat}) {
      const auto logits = make_logits(vocab, ++stream, shape);
      for (uint64_t i = 0; i < 40; ++i) {
        SamplingParams params;
        const auto pick = [&](uint64_t k, std::initializer_list<float> from) {
          return *(from.begin() +
                   static_cast<int>(uniform(1000 + stream, 8 * i + k) * static_cast<float>(from.size())));
        };
        params.temperature = pick(0, {1.0F, 0.7F, 2.5F, 0.1F, 0.0F, 1e-5F});
        params.top_k = static_cast<int32_t>(pick(1, {-1.0F, -1.0F, 1.0F, 2.0F, 20.0F, 300.0F, 1e6F}));
        params.top_p = pick(2, {1.0F, 1.0F, 0.9F, 0.5F, 0.05F, 0.999F});
        params.min_p = pick(3, {0.0F, 0.0F, 0.1F, 0.9F, 1.0F});
        params.seed = stream * 1000 + i;
        expect_same_choice(logits, params, static_cast<int64_t>(i));
      }
    }
  }
}

TEST(Sampler, MeasuresTopPOnAllTokensNotOnTheTopK) {
  // 0.4, 0.3, 0.2, 0.1: among the two of top_k alone the first would have 0.57, more than top_p.
  const std::vector<float> logits{std::log(0.4F), std::log(0.3F), std::log(0.2F), std::log(0.1F)};
  const SamplingParams params = Choice{.top_p = 0.5F, .top_k = 2};
  EXPECT_EQ(reference_distribution(logits.data(), 4, params).size(), 2U);
  std::set<int32_t> seen;
  for (int64_t i = 0; i < 200; ++i) seen.insert(choose_token(logits.data(), 4, params, i));
  EXPECT_EQ(seen, (std::set<int32_t>{0, 1}));
}

TEST(Sampler, TakesTheLowestIdOfEqualsWhenGreedy) {
  const std::vector<float> logits{-1.0F, 3.0F, 2.0F, 3.0F};
  EXPECT_EQ(choose_token(logits.data(), 4, Choice{.temperature = 0.0F}, 0), 1);
  EXPECT_EQ(choose_token(logits.data(), 4, Choice{.temperature = 1.0F, .top_k = 1}, 5), 1);
}

TEST(Sampler, SurvivesLogitsThatAreNotNumbers) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  for (const auto& logits : {std::vector<float>(300, nan), std::vector<float>(300, -kInfinity)}) {
    for (const float temperature : {0.0F, 1.0F}) {
      const int32_t token = choose_token(logits.data(), 300, Choice{.temperature = temperature}, 0);
      EXPECT_TRUE(token >= 0 && token < 300);
    }
  }
  std::vector<float> mixed(300, nan);
  mixed[123] = 1.0F;
  mixed[200] = kInfinity;
  EXPECT_EQ(choose_token(mixed.data(), 300, Choice{}, 0), 200);
  mixed[200] = nan;
  for (int64_t i = 0; i < 50; ++i) EXPECT_EQ(choose_token(mixed.data(), 300, Choice{.top_p = 0.9F}, i), 123);
}

// Chi-squared of many draws against the probabilities.
TEST(Sampler, DrawsEachTokenAsOftenAsItShould) {
  constexpr int64_t kVocab = 40;
  constexpr int64_t kDraws = 200'000;
  const auto logits = make_logits(kVocab, 99, Shape::kSmooth);
  for (const SamplingParams params : {Choice{.temperature = 1.5F, .seed = 3},
                                      Choice{.temperature = 3.0F, .top_p = 0.9F, .top_k = 30, .seed = 4},
                                      Choice{.temperature = 2.0F, .min_p = 0.05F, .seed = 5}}) {
    std::vector<int64_t> counts(kVocab);
    for (int64_t i = 0; i < kDraws; ++i) {
      ++counts[static_cast<size_t>(choose_token(logits.data(), kVocab, params, i))];
    }
    double chi2 = 0.0;
    int64_t drawn = 0;
    const auto distribution = reference_distribution(logits.data(), kVocab, params);
    for (const auto& token : distribution) {
      const double expected = token.probability * kDraws;
      const auto count = static_cast<double>(counts[static_cast<size_t>(token.token)]);
      chi2 += (count - expected) * (count - expected) / expected;
      drawn += counts[static_cast<size_t>(token.token)];
    }
    EXPECT_EQ(drawn, kDraws);
    // Mean k, variance 2k: five deviations.
    const auto freedom = static_cast<double>(distribution.size() - 1);
    EXPECT_LT(chi2, freedom + 5.0 * std::sqrt(2.0 * freedom));
  }
}

TEST(RowKernels, GiveTheSameBitsInEveryInstructionSet) {
  for (const int64_t count : {1, 15, 16, 17, 255, 256, 257, 5000}) {
    auto logits = make_logits(count, 5, Shape::kPeaked);
    if (count > 20) logits[3] = -kInfinity;
    if (count > 20) logits[19] = std::numeric_limits<float>::quiet_NaN();
    const auto blocks = static_cast<size_t>(num_blocks(count));
    std::vector<float> weights(logits.size());
    std::vector<float> sums(blocks);
    const float highest = kPlainRowKernels.max(logits.data(), count);
    kPlainRowKernels.weigh(logits.data(), count, highest, 1.25F, weights.data(), sums.data());
    for (const RowKernels* other : {avx2_row_kernels(), avx512_row_kernels(), &row_kernels()}) {
      if (other == nullptr) continue;
      std::vector<float> other_weights(logits.size());
      std::vector<float> other_sums(blocks);
      EXPECT_EQ(other->max(logits.data(), count), highest);
      other->weigh(logits.data(), count, highest, 1.25F, other_weights.data(), other_sums.data());
      EXPECT_EQ(other_weights, weights);
      EXPECT_EQ(other_sums, sums);
    }
    for (size_t i = 0; i < logits.size(); ++i) {
      const double argument = (static_cast<double>(logits[i]) - highest) * 1.25;
      const double exact = std::isnan(logits[i]) ? 0.0 : std::exp(argument);
      // Two roundings of the argument, each of half an ulp of it, and two ulp of the result.
      const double relative = (std::isfinite(argument) ? -argument : 0.0) * 0x1p-23 + 0x1p-22;
      EXPECT_NEAR(weights[i], exact, relative * exact + 1e-36) << logits[i];
    }
  }
}

TEST(Sampler, GivesARequestTheSameTokensInAnyBatch) {
  constexpr int64_t kVocab = 3000;
  ThreadPool pool(2);
  SlotInit init;
  init.sampling = Choice{
      .temperature = 1.2F, .top_p = 0.95F, .repetition_penalty = 1.3F, .presence_penalty = 0.5F, .seed = 77};
  init.logprobs = output_logprobs(3, {5});
  init.prompt = {1, 2, 3};
  const auto run = [&](size_t rows, size_t mine) {
    SlotInit other_init;
    other_init.sampling.seed = 1234;
    SlotSampler me(init);
    SlotSampler other(other_init);
    std::vector<TokenOutput> chosen;
    for (uint64_t step = 0; step < 20; ++step) {
      std::vector<float> logits;
      std::vector<const SlotSampler*> slots;
      for (size_t r = 0; r < rows; ++r) {
        const auto row = make_logits(kVocab, r == mine ? step : 500 + 31 * step + r, Shape::kSmooth);
        logits.insert(logits.end(), row.begin(), row.end());
        slots.push_back(r == mine ? &me : &other);
      }
      std::vector<TokenOutput> outputs(rows);
      sample_rows(pool, as_tensor(logits, static_cast<int64_t>(rows)), slots, {}, outputs);
      me.accept(outputs[mine].token);
      chosen.push_back(outputs[mine]);
    }
    return chosen;
  };
  const auto alone = run(1, 0);
  for (const auto& together : {run(7, 3), run(2, 1), run(33, 0)}) {
    for (size_t i = 0; i < alone.size(); ++i) {
      EXPECT_EQ(together[i].token, alone[i].token);
      EXPECT_EQ(together[i].logprob, alone[i].logprob);
      EXPECT_EQ(together[i].top[2].token, alone[i].top[2].token);
    }
  }
}

TEST(SlotSampler, AppliesBiasThenPenaltiesThenTheBanOnStopping) {
  SlotInit init;
  init.sampling = Choice{.repetition_penalty = 2.0F, .frequency_penalty = 0.25F, .presence_penalty = 0.5F};
  init.sampling.logit_bias = {{0, 10.0F}, {2, -1.0F}, {99, 5.0F}};
  init.sampling.min_new_tokens = 4;
  init.sampling.stop_token_ids = {4, -7};
  init.prompt = {0, 1};
  init.output = {2, 2, 3};
  const SlotSampler slot(init);
  std::vector<float> logits{2.0F, -3.0F, 5.0F, 1.0F, 8.0F, 7.0F};
  const auto before = logits;
  std::vector<std::pair<int32_t, float>> changed;
  slot.adjust(logits.data(), 6, &changed);
  EXPECT_EQ(logits[0], 6.0F);    // (2 + 10) / 2
  EXPECT_EQ(logits[1], -6.0F);   // negative: times 2
  EXPECT_EQ(logits[2], 1.0F);    // (5 - 1) / 2 - 2 * 0.25 - 0.5
  EXPECT_EQ(logits[3], -0.25F);  // 1 / 2 - 0.25 - 0.5
  EXPECT_EQ(logits[4], -kInfinity);
  EXPECT_EQ(logits[5], 7.0F);
  for (const auto& [token, value] : changed) logits[static_cast<size_t>(token)] = value;
  EXPECT_EQ(logits, before);
}

TEST(SlotSampler, ChoosesAmongTheAllowedAndReportsTheModelsOwnLogprobs) {
  constexpr int64_t kVocab = 100;
  ThreadPool pool(1);
  for (const float temperature : {0.0F, 1.0F}) {
    SlotInit init;
    init.sampling = Choice{.temperature = temperature, .seed = 3};
    init.logprobs.output = true;
    const SlotSampler slot(init);
    std::vector<float> logits(2 * kVocab, 0.0F);
    for (const size_t row : {size_t{0}, static_cast<size_t>(kVocab)}) {
      logits[row + 5] = 20.0F;
      logits[row + 70] = 15.0F;
    }
    const std::vector<float> before = logits;
    const uint64_t all_but_five[] = {~(uint64_t{1} << 5), ~uint64_t{0}};
    const AllowedTokens allowed[] = {all_but_five, {}};
    const SlotSampler* slots[] = {&slot, &slot};
    TokenOutput outputs[2];
    sample_rows(pool, as_tensor(logits, 2), slots, allowed, outputs);
    EXPECT_EQ(logits, before);
    EXPECT_EQ(outputs[0].token, 70);
    EXPECT_LT(outputs[0].logprob, -4.9F);  // token 5 takes nearly all
    EXPECT_EQ(outputs[1].token, 5);
    const uint64_t only_ninety[] = {0, uint64_t{1} << (90 - 64)};
    const AllowedTokens one[] = {only_ninety, only_ninety};
    sample_rows(pool, as_tensor(logits, 2), slots, one, outputs);
    EXPECT_EQ(outputs[0].token, 90);
  }
}

TEST(SlotSampler, GoesOnAfterAPreemptionAsIfThereHadBeenNone) {
  constexpr int64_t kVocab = 50;
  SlotInit init;
  init.sampling =
      Choice{.temperature = 0.9F, .repetition_penalty = 1.5F, .frequency_penalty = 0.3F, .seed = 11};
  init.sampling.min_new_tokens = 25;
  init.sampling.stop_token_ids = {7};
  init.prompt = {3, 4, 4};
  const auto step = [&](SlotSampler& slot, uint64_t i) {
    auto logits = make_logits(kVocab, 40 + i, Shape::kSmooth);
    slot.adjust(logits.data(), kVocab, nullptr);
    const int32_t token = choose_token(logits.data(), kVocab, slot.params(), slot.generated());
    slot.accept(token);
    return token;
  };
  SlotSampler whole(init);
  std::vector<int32_t> tokens;
  for (uint64_t i = 0; i < 30; ++i) tokens.push_back(step(whole, i));
  for (const size_t cut : {1, 13, 26}) {
    SlotInit resumed = init;
    resumed.output.assign(tokens.begin(), tokens.begin() + static_cast<ptrdiff_t>(cut));
    SlotSampler slot(resumed);
    for (size_t i = cut; i < tokens.size(); ++i) EXPECT_EQ(step(slot, i), tokens[i]);
  }
}

TEST(Logprobs, AreOfTheUntouchedLogits) {
  constexpr int64_t kVocab = 600;
  ThreadPool pool(1);
  SlotInit init;
  init.sampling = Choice{.temperature = 0.0F, .repetition_penalty = 1.9F};
  init.sampling.logit_bias = {{17, 100.0F}, {18, -kInfinity}};
  init.logprobs = output_logprobs(5, {18, 0, 12345});
  init.prompt = {1, 5, 17};
  auto logits = make_logits(kVocab, 61, Shape::kTies);
  const auto raw = logits;
  double sum = 0.0;
  for (const float logit : raw) sum += std::exp(static_cast<double>(logit));
  const auto logprob = [&](int32_t token) { return raw[static_cast<size_t>(token)] - std::log(sum); };

  const SlotSampler slot(init);
  const SlotSampler* slots[] = {&slot};
  TokenOutput outputs[1];
  sample_rows(pool, as_tensor(logits, 1), slots, {}, outputs);
  EXPECT_EQ(outputs[0].token, 17);
  EXPECT_NEAR(outputs[0].logprob, logprob(17), 1e-5);
  ASSERT_EQ(outputs[0].requested.size(), 3U);
  EXPECT_NEAR(outputs[0].requested[0].logprob, logprob(18), 1e-5);
  EXPECT_EQ(outputs[0].requested[2].logprob, -kInfinity);
  std::vector<int32_t> order(kVocab);
  for (int32_t i = 0; i < kVocab; ++i) order[static_cast<size_t>(i)] = i;
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return raw[static_cast<size_t>(a)] > raw[static_cast<size_t>(b)];
  });
  ASSERT_EQ(outputs[0].top.size(), 5U);
  for (size_t i = 0; i < 5; ++i) {
    EXPECT_EQ(outputs[0].top[i].token, order[i]);
    EXPECT_NEAR(outputs[0].top[i].logprob, logprob(order[i]), 1e-5);
  }
  EXPECT_EQ(describe_token(raw.data(), 3, 1, output_logprobs(9)).top.size(), 3U);
}

TEST(Logprobs, OfABannedTokenAreMinusInfinity) {
  const std::vector<float> logits{0.0F, -kInfinity, 0.0F};
  const TokenOutput output = describe_token(logits.data(), 3, 1, output_logprobs(0, {0}));
  EXPECT_EQ(output.logprob, -kInfinity);
  EXPECT_NEAR(output.requested[0].logprob, std::log(0.5), 1e-6);
}

TEST(ThinkingBudget, ClosesThoughtsInTime) {
  constexpr ThinkingBudget kBudget{3, 7, 8, 9, 0};
  ThinkingState state;
  state.thought = kBudget.begun;
  for (const int32_t token : {1, 2, 3}) {
    EXPECT_EQ(state.forced(kBudget), -1);
    state.accept(kBudget, token);
  }
  EXPECT_EQ(state.forced(kBudget), 9);
  state.accept(kBudget, 9);
  EXPECT_EQ(state.forced(kBudget), 8);
  state.accept(kBudget, 8);
  EXPECT_EQ(state.forced(kBudget), -1);
  // Thoughts that the model opens itself are bounded too, and a second tag does not begin them anew.
  for (const int32_t token : {5, 7, 1, 7}) {
    EXPECT_EQ(state.forced(kBudget), -1);
    state.accept(kBudget, token);
  }
  state.accept(kBudget, 9);
  EXPECT_EQ(state.forced(kBudget), 8) << "the line break is there already";
}

TEST(ThinkingBudget, NeedsNoLineBreakAndMayBeZeroOrUsedUp) {
  ThinkingState open;
  open.thought = 0;
  EXPECT_EQ(open.forced({0, 7, 8, -1, 0}), 8);
  EXPECT_EQ(open.forced({0, 7, 8, 9, 0}), 9);
  open.thought = 50;
  EXPECT_EQ(open.forced({20, 7, 8, 9, 50}), 9);
  EXPECT_EQ(open.forced({-1, 7, 8, 9, 50}), -1);
  EXPECT_EQ(ThinkingState{}.forced({0, 7, 8, 9, -1}), -1) << "nobody thinks";
}

TEST(Sampler, ChoosesWhatTheBudgetForces) {
  std::vector<float> logits = make_logits(64, 3, Shape::kPeaked);
  SlotInit init;
  init.sampling.temperature = 1.0F;
  init.sampling.logit_bias = {{9, -kInfinity}};
  init.sampling.thinking = {2, 7, 8, 9, 0};
  init.logprobs = output_logprobs(0);
  init.output = {1, 2};  // a resumed sequence
  SlotSampler slot(init);
  ThreadPool pool(1);
  const SlotSampler* slots[] = {&slot};
  std::vector<TokenOutput> outputs(1);
  for (const int32_t wanted : {9, 8}) {
    std::vector<float> row = logits;
    sample_rows(pool, as_tensor(row, 1), slots, {}, outputs);
    EXPECT_EQ(outputs[0].token, wanted);
    EXPECT_TRUE(std::isfinite(outputs[0].logprob)) << "the model's own";
    slot.accept(outputs[0].token);
  }
  EXPECT_EQ(slot.forced(), -1);
}

}  // namespace
}  // namespace fathom::sample
