#include "sample/verify.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <map>
#include <numeric>

#include "base/random.h"
#include "sample/ref.h"
#include "sample/sampler.h"
#include "sample/testing.h"

namespace fathom::sample {
namespace {

constexpr int64_t kVocab = 8;

// The logits after a token, in a model that sees nothing else; and those of one that is nearly that model.
std::vector<float> logits_after(int32_t token, float error = 0.0F) {
  std::vector<float> logits(kVocab);
  for (uint64_t t = 0; t < kVocab; ++t) {
    const auto stream = static_cast<uint64_t>(token) + 100;
    logits[t] = 3.0F * static_cast<float>(random_uniform(1, stream, t)) +
                error * static_cast<float>(random_uniform(2, stream, t));
  }
  return logits;
}

// Logits of the tokens `after` as one tensor.
struct Rows {
  explicit Rows(const std::vector<int32_t>& after) {
    for (const int32_t token : after) {
      const auto row = logits_after(token);
      values.insert(values.end(), row.begin(), row.end());
    }
    tensor = {values.data(), device::DType::kF32, {static_cast<int64_t>(after.size()), kVocab}};
  }
  std::vector<float> values;
  device::Tensor tensor;
};

SlotSampler make_slot(const SamplingParams& params, const LogprobParams& logprobs = {}) {
  SlotInit init;
  init.sampling = params;
  init.logprobs = logprobs;
  init.prompt = {0, 3};
  return SlotSampler(init);
}

// `count` tokens after token 0, one by one.
std::vector<TokenOutput> decode(SlotSampler slot, size_t count) {
  std::vector<TokenOutput> outputs;
  int32_t last = 0;
  while (outputs.size() < count) {
    auto logits = logits_after(last);
    outputs.push_back(sample_row(logits.data(), kVocab, slot));
    last = outputs.back().token;
    slot.accept(last);
  }
  return outputs;
}

void expect_same(const TokenOutput& got, const TokenOutput& wanted) {
  EXPECT_EQ(got.token, wanted.token);
  EXPECT_EQ(got.logprob, wanted.logprob);
  ASSERT_EQ(got.top.size(), wanted.top.size());
  for (size_t i = 0; i < got.top.size(); ++i) EXPECT_EQ(got.top[i].token, wanted.top[i].token);
}

TEST(Verify, GivesTheTokensOfDecodingOneByOne) {
  ThreadPool pool(2);
  int64_t right = 0;
  for (uint64_t seed = 0; seed < 300; ++seed) {
    SamplingParams params = Choice{.temperature = seed % 3 == 0 ? 0.0F : 0.8F,
                                   .top_p = seed % 5 == 0 ? 0.7F : 1.0F,
                                   .top_k = seed % 7 == 0 ? 3 : -1,
                                   .min_p = seed % 11 == 0 ? 0.2F : 0.0F,
                                   .repetition_penalty = seed % 2 == 0 ? 1.4F : 1.0F,
                                   .frequency_penalty = seed % 4 == 1 ? 0.9F : 0.0F,
                                   .seed = seed};
    if (seed % 6 == 0) params.logit_bias = {{2, 1.5F}};
    const LogprobParams logprobs = seed % 2 == 0 ? output_logprobs(3) : LogprobParams{};
    const auto wanted = decode(make_slot(params, logprobs), 12);
    // The guesses are the right ones up to a place that the seed says.
    SlotSampler slot = make_slot(params, logprobs);
    std::vector<TokenOutput> got;
    while (got.size() < 8) {
      std::vector<int32_t> inputs{got.empty() ? 0 : got.back().token};
      std::vector<int32_t> guesses;
      for (size_t i = 0; i < 3; ++i) {
        const bool wrong = random_uniform(seed, 9, got.size() + i) < 0.3;
        guesses.push_back((wanted[got.size() + i].token + (wrong ? 1 : 0)) % static_cast<int32_t>(kVocab));
        inputs.push_back(guesses.back());
      }
      Rows rows(inputs);
      std::vector<TokenOutput> outputs;
      const GuessTree tree = GuessTree::chain(guesses);
      const VerifyRow row{.first = 0, .guesses = &tree, .slot = &slot, .outputs = &outputs};
      verify_rows(pool, rows.tensor, {&row, 1});
      ASSERT_FALSE(outputs.empty());
      right += static_cast<int64_t>(outputs.size()) - 1;
      for (const TokenOutput& output : outputs) {
        expect_same(output, wanted[got.size()]);
        got.push_back(output);
      }
      if (outputs.size() <= guesses.size()) {
        EXPECT_NE(outputs.back().token, guesses[outputs.size() - 1]);
      }
    }
    EXPECT_EQ(slot.generated(), static_cast<int64_t>(got.size()));
  }
  EXPECT_GT(right, 500);
}

// Of a chain of three, guesses that hold with a probability whatever they are, and tokens of the model's.
TEST(Verify, SimulatedGuessesHoldAsOftenAsAsked) {
  ThreadPool pool(1);
  constexpr double kHolds = 0.6;
  int64_t held = 0, asked = 0;
  for (uint64_t seed = 0; seed < 2000; ++seed) {
    SamplingParams params;
    params.seed = seed;
    auto slot = make_slot(params);
    const auto tree = GuessTree::chain(std::vector<int32_t>{1, 1, 1});
    std::vector<TokenOutput> outputs;
    std::vector<int32_t> path;
    Rows rows({0, 1, 1, 1});
    const VerifyRow row{
        .first = 0, .guesses = &tree, .slot = &slot, .simulated = kHolds, .outputs = &outputs, .path = &path};
    verify_rows(pool, rows.tensor, {&row, 1});
    ASSERT_EQ(outputs.size(), path.size() + 1);
    for (size_t i = 0; i < path.size(); ++i) ASSERT_EQ(path[i], static_cast<int32_t>(i));
    held += static_cast<int64_t>(path.size());
    asked += static_cast<int64_t>(std::min<size_t>(path.size() + 1, 3));
  }
  EXPECT_NEAR(static_cast<double>(held) / static_cast<double>(asked), kHolds, 0.04);
}

TEST(Verify, EndsAtAStopToken) {
  ThreadPool pool(1);
  SamplingParams params = Choice{.temperature = 0.0F};
  const auto wanted = decode(make_slot(params), 4);
  params.stop_token_ids = {wanted[1].token};
  SlotSampler slot = make_slot(params);
  const std::vector<int32_t> guesses{wanted[0].token, wanted[1].token, wanted[2].token};
  Rows rows({0, guesses[0], guesses[1], guesses[2]});
  std::vector<TokenOutput> outputs;
  const GuessTree tree = GuessTree::chain(guesses);
  const VerifyRow row{.first = 0, .guesses = &tree, .slot = &slot, .outputs = &outputs};
  verify_rows(pool, rows.tensor, {&row, 1});
  const size_t end = wanted[0].token == wanted[1].token ? 1 : 2;
  EXPECT_EQ(outputs.size(), end);
}

TEST(Verify, ARowWithAMaskChoosesAmongWhatItAllows) {
  ThreadPool pool(1);
  SlotInit init;
  init.sampling = Choice{.temperature = 1.0F, .seed = 3};
  SlotSampler slot(init);
  Rows rows({0});
  const MaskWorkers::Found mask{.constrains = true, .allowed = {uint64_t{1} << 5}, .error = {}};
  std::vector<TokenOutput> outputs;
  const VerifyRow row{.first = 0, .slot = &slot, .mask = &mask, .outputs = &outputs};
  verify_rows(pool, rows.tensor, {&row, 1});
  ASSERT_EQ(outputs.size(), 1U);
  EXPECT_EQ(outputs[0].token, 5);
}

TEST(Verify, EachGuessHasItsOwnMask) {
  ThreadPool pool(1);
  const auto only = [](int token) {
    return MaskWorkers::Found{.constrains = true, .allowed = {uint64_t{1} << token}, .error = {}};
  };
  // Two guesses for the first place, of which the second holds; the mask after its child fails.
  GuessTree tree;
  tree.add(4, GuessTree::kRoot);
  tree.add(6, 0);
  tree.add(5, GuessTree::kRoot);
  tree.add(2, 2);
  tree.add(7, 3);
  tree.add(1, 4);
  std::vector<MaskWorkers::Found> masks{only(6), only(0), only(2), only(7), only(1), only(3)};
  const auto choose = [&](std::vector<int32_t>* path) {
    SlotInit init;
    init.sampling = Choice{.temperature = 1.0F, .seed = 3};
    SlotSampler slot(init);
    Rows rows({0, 4, 6, 5, 2, 7, 1});
    const MaskWorkers::Found first = only(5);
    std::vector<TokenOutput> outputs;
    const VerifyRow row{.first = 0,
                        .guesses = &tree,
                        .slot = &slot,
                        .mask = &first,
                        .guess_masks = masks,
                        .outputs = &outputs,
                        .path = path};
    verify_rows(pool, rows.tensor, {&row, 1});
    std::vector<int32_t> tokens;
    for (const TokenOutput& output : outputs) tokens.push_back(output.token);
    return tokens;
  };
  std::vector<int32_t> path;
  EXPECT_EQ(choose(&path), (std::vector<int32_t>{5, 2, 7, 1, 3}));
  EXPECT_EQ(path, (std::vector<int32_t>{2, 3, 4, 5}));
  masks[4] = {.constrains = false, .allowed = {}, .error = error(ErrorCode::kInvalidArgument, "too costly")};
  path.clear();
  EXPECT_EQ(choose(&path), (std::vector<int32_t>{5, 2, 7})) << "the next step meets the failure";
}

// What three tokens in a row have as probabilities, by the definition of the choice.
std::map<std::vector<int32_t>, double> triples(const SamplingParams& params) {
  std::map<std::vector<int32_t>, double> result{{{}, 1.0}};
  for (int i = 0; i < 3; ++i) {
    std::map<std::vector<int32_t>, double> longer;
    for (const auto& [tokens, probability] : result) {
      const auto logits = logits_after(tokens.empty() ? 0 : tokens.back());
      for (const auto& next : reference_distribution(logits.data(), kVocab, params)) {
        auto extended = tokens;
        extended.push_back(next.token);
        longer[extended] = probability * next.probability;
      }
    }
    result = std::move(longer);
  }
  return result;
}

enum class Guessing { kGreedy, kDraws, kTree };

// Two places deep: for each the three most likely tokens of a model that is nearly the right one.
GuessTree guess_tree(int32_t last) {
  GuessTree tree;
  const auto best = [](int32_t after) {
    const auto logits = logits_after(after, 1.0F);
    std::vector<int32_t> ids(kVocab);
    std::iota(ids.begin(), ids.end(), 0);
    std::ranges::sort(ids, [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    ids.resize(3);
    return ids;
  };
  for (const int32_t token : best(last)) {
    const int32_t node = tree.size();
    tree.add(token, GuessTree::kRoot);
    for (const int32_t next : best(token)) tree.add(next, node);
  }
  return tree;
}

// The first three tokens of many requests, two of them guessed by a model that is nearly the right one, with
// the request's own draws or by what it holds for most likely, alone or several.
double chi_square(SamplingParams params, Guessing guessing, const GuessThresholds* thresholds,
                  double* degrees, double* accepted) {
  // Fewer for sanitizers, which watch each.
  const int64_t total = std::getenv("FATHOM_TEST_SMALL") != nullptr ? 10'000 : 200'000;
  ThreadPool pool(1);
  std::map<std::vector<int32_t>, int64_t> counts;
  int64_t right = 0;
  for (int64_t r = 0; r < total; ++r) {
    params.seed = mix64(static_cast<uint64_t>(r) + 1);
    SlotSampler slot = make_slot(params);
    std::vector<int32_t> tokens;
    while (tokens.size() < 3) {
      std::vector<int32_t> inputs{tokens.empty() ? 0 : tokens.back()};
      GuessTree tree;
      if (guessing == Guessing::kTree) tree = guess_tree(inputs.back());
      for (int64_t i = 0; i < 2 && guessing != Guessing::kTree; ++i) {
        const auto logits = logits_after(i == 0 ? inputs.back() : tree.tokens.back(), 1.0F);
        SamplingParams guess = params;
        if (guessing == Guessing::kGreedy) guess.temperature = 0.0F;
        tree.extend(choose_token(logits.data(), kVocab, guess, slot.generated() + i));
      }
      inputs.insert(inputs.end(), tree.tokens.begin(), tree.tokens.end());
      Rows rows(inputs);
      std::vector<TokenOutput> outputs;
      const VerifyRow row{
          .first = 0, .guesses = &tree, .slot = &slot, .thresholds = thresholds, .outputs = &outputs};
      verify_rows(pool, rows.tensor, {&row, 1});
      if (tokens.empty()) right += static_cast<int64_t>(outputs.size()) - 1;
      for (const TokenOutput& output : outputs) tokens.push_back(output.token);
    }
    tokens.resize(3);
    ++counts[tokens];
  }
  double sum = 0.0;
  double rare_expected = 0.0;
  double rare_seen = 0.0;
  *degrees = -1.0;
  int64_t seen = 0;
  for (const auto& [tokens, probability] : triples(params)) {
    const double expected = probability * static_cast<double>(total);
    const auto count = static_cast<double>(counts[tokens]);
    seen += counts[tokens];
    if (expected < 10.0) {
      rare_expected += expected;
      rare_seen += count;
      continue;
    }
    sum += (count - expected) * (count - expected) / expected;
    ++*degrees;
  }
  if (rare_expected > 10.0) {
    sum += (rare_seen - rare_expected) * (rare_seen - rare_expected) / rare_expected;
    ++*degrees;
  }
  EXPECT_EQ(seen, total) << "tokens that cannot be chosen";
  *accepted = static_cast<double>(right) / static_cast<double>(total);
  return sum;
}

// Wilson and Hilferty's approximation: normal.
double deviations(double sum, double degrees) {
  return (std::cbrt(sum / degrees) - (1.0 - 2.0 / (9.0 * degrees))) / std::sqrt(2.0 / (9.0 * degrees));
}

TEST(Verify, KeepsTheDistribution) {
  for (const float temperature : {0.6F, 1.0F, 1.8F}) {
    for (const float top_p : {1.0F, 0.8F}) {
      double accepted[3] = {};
      for (const Guessing guessing : {Guessing::kGreedy, Guessing::kDraws, Guessing::kTree}) {
        double degrees = 0.0;
        const auto kind = static_cast<size_t>(guessing);
        const double sum = chi_square(Choice{.temperature = temperature, .top_p = top_p}, guessing, nullptr,
                                      &degrees, &accepted[kind]);
        // Four deviations are one in 30,000.
        EXPECT_LT(deviations(sum, degrees), 4.0)
            << "temperature " << temperature << " top_p " << top_p << ": chi-square " << sum << " with "
            << degrees << " degrees of freedom";
        EXPECT_GT(accepted[kind], 0.2);
        EXPECT_LT(accepted[kind], 1.999) << "no guess was wrong";
      }
      // What a guess gains by being drawn as the token is.
      EXPECT_GT(accepted[1], accepted[0]);
      // And by guessing several for a place.
      EXPECT_GT(accepted[2], accepted[0]);
    }
  }
}

TEST(Verify, ThresholdsOfOneKeepTheDistributionAndLowerOnesFavourGuesses) {
  const SamplingParams params = Choice{.temperature = 1.0F, .top_p = 0.8F};
  for (const Guessing guessing : {Guessing::kDraws, Guessing::kTree}) {
    const auto judge = [&](const GuessThresholds& thresholds, double* accepted) {
      double degrees = 0.0;
      const double sum = chi_square(params, guessing, &thresholds, &degrees, accepted);
      return deviations(sum, degrees);
    };
    double exact = 0.0, single = 0.0, acc = 0.0;
    EXPECT_LT(judge({}, &exact), 4.0);
    EXPECT_GT(judge({.single = 0.2, .acc = 1.0}, &single), 10.0);
    EXPECT_GT(judge({.single = 1.0, .acc = 0.5}, &acc), 10.0);
    EXPECT_GT(single, exact);
    EXPECT_GT(acc, exact);
  }
}

TEST(Verify, ThresholdsLeaveGreedyChoicesAndFiltersAlone) {
  ThreadPool pool(1);
  const GuessThresholds none{.single = 1e-9, .acc = 1e-9};
  const auto logits = logits_after(0);
  std::vector<int32_t> ids(kVocab);
  std::iota(ids.begin(), ids.end(), 0);
  std::ranges::sort(ids, [&](int32_t a, int32_t b) {
    return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
  });
  const auto choose = [&](const SamplingParams& params, int32_t guess) {
    SlotSampler slot = make_slot(params);
    GuessTree tree;
    tree.extend(guess);
    Rows rows({0, guess});
    std::vector<TokenOutput> outputs;
    const VerifyRow row{
        .first = 0, .guesses = &tree, .slot = &slot, .thresholds = &none, .outputs = &outputs};
    verify_rows(pool, rows.tensor, {&row, 1});
    return outputs.front().token;
  };
  EXPECT_EQ(choose(Choice{.temperature = 0.0F}, ids[1]), ids[0]);
  for (uint64_t seed = 0; seed < 50; ++seed) {
    EXPECT_EQ(choose(Choice{.temperature = 1.0F, .top_k = 2, .seed = seed}, ids[1]), ids[1]);
    EXPECT_NE(choose(Choice{.temperature = 1.0F, .top_k = 2, .seed = seed}, ids[2]), ids[2]);
  }
}

}  // namespace
}  // namespace fathom::sample
