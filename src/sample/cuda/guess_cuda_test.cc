// What speculation asks of the sampler: guesses that leave no trace, and which rows go on.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <numeric>
#include <random>

#include "device/cuda/testing.h"
#include "sample/cuda/gpu_sampler.h"
#include "sample/ref.h"
#include "sample/sampler.h"
#include "sample/testing.h"

namespace fathom::sample::cuda {
namespace {

using device::cuda::DeviceArena;
using device::cuda::testing::DeviceArray;
using device::cuda::testing::test_stream;

class Guesses : public testing::Test {
 protected:
  static constexpr int64_t kVocab = 3001;
  static constexpr int32_t kRows = 9;

  void SetUp() override {
    if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
    arena_ = std::make_unique<DeviceArena>(size_t{8} << 20);
    sampler_ = std::move(GpuSampler::create(*test_stream(), *arena_, {kRows, kVocab, kRows})).value();
    for (int32_t r = 0; r < kRows; ++r) {
      SlotInit& init = inits_.emplace_back();
      init.sampling.temperature = r % 3 == 0 ? 0.0F : 0.8F;
      init.sampling.top_k = r % 3 == 2 ? 7 : -1;
      init.sampling.seed = static_cast<uint64_t>(r) + 5;
      // None of these may touch a guess.
      init.sampling.frequency_penalty = r % 2 == 0 ? 1.5F : 0.0F;
      init.sampling.repetition_penalty = r % 4 == 1 ? 2.0F : 1.0F;
      init.sampling.logit_bias = {{3, 50.0F}};
      init.sampling.min_new_tokens = 100;
      init.sampling.stop_token_ids = {4, 17};
      init.prompt = {1, 2, 3};
      init.output.assign(static_cast<size_t>(r), 9);
      ASSERT_TRUE(sampler_->open(r, init).ok());
      slots_.push_back(r);
    }
    slots_[4] = -1;
    sampler_->flush();
    std::mt19937 random(3);
    std::normal_distribution<float> normal(0.0F, 3.0F);
    for (int64_t i = 0; i < kRows * kVocab; ++i) logits_.push_back(normal(random));
  }

  std::vector<int32_t> sample(int32_t ahead) {
    const DeviceArray<float> logits(logits_), adjusted(kRows * kVocab);
    const DeviceArray<int32_t> slots(slots_), last(kRows), tokens(kRows);
    SampleArgs args;
    args.logits = logits.data();
    args.adjusted = adjusted.data();
    args.rows = kRows;
    args.row_slots = slots.data();
    args.last_tokens = last.data();
    args.tokens = tokens.data();
    args.ahead = ahead;
    sampler_->sample(args);
    const auto result = tokens.get();
    EXPECT_TRUE(test_stream()->synchronize().ok());
    if (ahead >= 0) {
      EXPECT_EQ(last.get(), std::vector<int32_t>(kRows, -1)) << "a guess is no slot's last token";
    }
    return result;
  }

  std::unique_ptr<DeviceArena> arena_;
  std::unique_ptr<GpuSampler> sampler_;
  std::vector<SlotInit> inits_;
  std::vector<int32_t> slots_;
  std::vector<float> logits_;
};

TEST_F(Guesses, AreTheHostsChoicesFromTheBareLogits) {
  for (const int32_t ahead : {0, 1, 5}) {
    const auto tokens = sample(ahead);
    for (int32_t r = 0; r < kRows; ++r) {
      const auto row = static_cast<size_t>(r);
      const int32_t wanted = slots_[row] < 0 ? -1
                                             : choose_token(logits_.data() + r * kVocab, kVocab,
                                                            inits_[row].sampling, r + ahead);
      EXPECT_EQ(tokens[row], wanted) << "row " << r << ", " << ahead << " ahead";
    }
  }
}

TEST_F(Guesses, ChangeNothingForTheChoicesThatFollow) {
  for (int32_t ahead = 0; ahead < 4; ++ahead) sample(ahead);
  const auto tokens = sample(-1);
  for (int32_t r = 0; r < kRows; ++r) {
    const auto row = static_cast<size_t>(r);
    if (slots_[row] < 0) continue;
    std::vector<float> logits(logits_.begin() + r * kVocab, logits_.begin() + (r + 1) * kVocab);
    EXPECT_EQ(tokens[row], sample_row(logits.data(), kVocab, SlotSampler(inits_[row])).token) << "row " << r;
  }
}

TEST_F(Guesses, OnlyRowsWhoseGuessHoldsGoOn) {
  //                                   right, wrong, none left, a stop, no row, right, a stop, right, wrong
  const DeviceArray<int32_t> tokens(std::vector<int32_t>{8, 8, 8, 17, -1, 3000, 4, 0, 5});
  const DeviceArray<int32_t> guesses(std::vector<int32_t>{8, 9, 8, 17, -1, 3000, 4, 0, -1});
  const DeviceArray<int32_t> drafts(std::vector<int32_t>{2, 2, 1, 2, 2, 3, 3, 2, 2});
  const DeviceArray<int32_t> slots(slots_), next(kRows);
  FollowArgs args;
  args.rows = kRows;
  args.tokens = tokens.data();
  args.guesses = guesses.data();
  args.drafts = drafts.data();
  args.position = 1;
  args.row_slots = slots.data();
  args.next_slots = next.data();
  sampler_->follow(args);
  ASSERT_TRUE(test_stream()->synchronize().ok());
  EXPECT_EQ(next.get(), (std::vector<int32_t>{0, -1, -1, -1, -1, 5, -1, 7, -1}));
  args.simulated = 1.0F;
  sampler_->follow(args);
  ASSERT_TRUE(test_stream()->synchronize().ok());
  EXPECT_EQ(next.get(), (std::vector<int32_t>{0, 1, -1, -1, -1, 5, -1, 7, 8})) << "but for stops";
}

TEST_F(Guesses, InATreeThePathGoesWhereTheTokenIs) {
  constexpr int32_t kWidth = 6, kEach = 2;
  // 1 and 4 follow the last token, 2 and 3 follow 1, 5 follows 4; or a chain; or nothing.
  const std::vector<int32_t> tree{-1, 0, 1, 1, 0, 4}, chain{-1, 0, 1, 2, -1, -1}, none(kWidth, -1);
  struct Case {
    std::vector<int32_t> parents, guesses;
    int32_t at, token, held;
    std::vector<int32_t> next;
  };
  const std::vector<Case> cases = {{tree, {-1, 8, 3, 5, 9, 7}, 0, 8, 1, {3, 5}},
                                   {tree, {-1, 8, 3, 5, 9, 7}, 0, 9, 4, {7, -1}},
                                   {tree, {-1, 8, 3, 5, 9, 7}, 1, 5, 3, {-1, -1}},
                                   {tree, {-1, 8, 3, 5, 9, 7}, 1, 7, 0, {-1, -1}},
                                   {tree, {-1, 8, 3, 5, 9, 7}, 0, 8, 0, {-1, -1}},    // no row
                                   {tree, {-1, 8, 3, 5, 17, 7}, 0, 17, 0, {-1, -1}},  // a stop
                                   {chain, {-1, 8, 8, 8, -1, -1}, 2, 8, 3, {-1, -1}},
                                   {chain, {-1, 8, 8, 8, -1, -1}, 3, 8, 0, {-1, -1}},
                                   {none, none, 0, 8, 0, {-1, -1}}};
  std::vector<int32_t> tokens, at, parents, guesses;
  for (size_t r = 0; r < cases.size(); ++r) {
    tokens.push_back(cases[r].token);
    at.push_back(static_cast<int32_t>(r) * kWidth + cases[r].at);
    parents.insert(parents.end(), cases[r].parents.begin(), cases[r].parents.end());
    guesses.insert(guesses.end(), cases[r].guesses.begin(), cases[r].guesses.end());
  }
  const DeviceArray<int32_t> device_tokens(tokens), device_at(at), device_parents(parents),
      device_guesses(guesses), slots(slots_), next(kRows), next_rows(kRows), next_guessed(kRows * kEach);
  FollowTreeArgs args;
  args.rows = kRows;
  args.width = kWidth;
  args.tokens = device_tokens.data();
  args.row_slots = slots.data();
  args.logit_rows = device_at.data();
  args.place_tokens = device_guesses.data();
  args.place_parents = device_parents.data();
  args.next_slots = next.data();
  args.next_logit_rows = next_rows.data();
  args.next_guessed = next_guessed.data();
  args.each = kEach;
  sampler_->follow(args);
  ASSERT_TRUE(test_stream()->synchronize().ok());
  const auto got = next.get(), rows = next_rows.get(), guessed = next_guessed.get();
  for (size_t r = 0; r < cases.size(); ++r) {
    EXPECT_EQ(got[r], cases[r].held > 0 ? slots_[r] : -1) << r;
    EXPECT_EQ(rows[r], static_cast<int32_t>(r) * kWidth + cases[r].held) << r;
    EXPECT_EQ(std::vector<int32_t>(guessed.begin() + static_cast<ptrdiff_t>(r * kEach),
                                   guessed.begin() + static_cast<ptrdiff_t>((r + 1) * kEach)),
              cases[r].next)
        << r;
  }
}

// The threshold rule against the host's, and with 1 and 1 against the distribution: 200,000 choices of a few
// tokens each. A draw may fall within rounding of a border.
TEST(GuessThresholdsCuda, ChooseAsTheHostDoes) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  // Statistics need many draws, which run the same code as a few: those are for sanitizers.
  const bool small = std::getenv("FATHOM_TEST_SMALL") != nullptr;
  const int32_t rows = small ? 40 : 2000;
  constexpr int32_t kEach = 3;
  const int32_t calls = small ? 2 : 100, compared = small ? 2 : 10;
  constexpr int64_t kVocab = 9;
  std::vector<float> logits;
  // All filters below leave several tokens of these.
  const std::vector<float> row{1.2F, 0.3F, -0.5F, 0.8F, 0.0F, 1.6F, -0.9F, 0.5F, 1.0F};
  int judged = 0;
  // Rows look at other rows' logits: the last of these.
  logits.assign(static_cast<size_t>(kVocab * 2), 0.0F);
  std::copy(row.begin(), row.end(), logits.begin() + kVocab);
  const DeviceArray<float> device_logits(logits), adjusted(rows * kVocab);
  const DeviceArray<int32_t> logit_rows(std::vector<int32_t>(rows, 1));
  std::vector<int32_t> slots(rows), guessed;
  std::iota(slots.begin(), slots.end(), 0);
  for (int32_t r = 0; r < rows; ++r) {
    // None, one, or several different ones; gaps between.
    for (int32_t i = 0; i < kEach; ++i) guessed.push_back(r % 4 <= i ? -1 : (r / 4 + 2 * i) % kVocab);
  }
  const DeviceArray<int32_t> device_slots(slots), device_guessed(guessed), last(rows), tokens(rows);
  const SamplingParams kinds[] = {Choice{.temperature = 1.0F}, Choice{.temperature = 0.7F, .top_p = 0.8F},
                                  Choice{.temperature = 1.3F, .top_k = 4},
                                  Choice{.temperature = 1.0F, .min_p = 0.15F}, Choice{.temperature = 0.0F}};
  const GuessThresholds rules[] = {{}, {.single = 0.25, .acc = 1.0}, {.single = 1.0, .acc = 0.5}};
  for (const SamplingParams& kind : kinds) {
    for (const GuessThresholds& rule : rules) {
      DeviceArena arena(size_t{8} << 20);
      auto sampler = std::move(GpuSampler::create(*test_stream(), arena, {rows, kVocab, rows})).value();
      for (int32_t r = 0; r < rows; ++r) {
        SlotInit init;
        init.sampling = kind;
        init.sampling.seed = static_cast<uint64_t>(r) + 1;
        ASSERT_TRUE(sampler->open(r, init).ok());
      }
      sampler->flush();
      std::vector<int64_t> counts(kVocab);
      int64_t differ = 0;
      const bool exact = !kind.greedy() && rule.single == 1.0 && rule.acc == 1.0;
      for (int32_t call = 0; call < (exact ? calls : compared); ++call) {
        SampleArgs args;
        args.logits = device_logits.data();
        args.logit_rows = logit_rows.data();
        args.adjusted = adjusted.data();
        args.rows = rows;
        args.row_slots = device_slots.data();
        args.last_tokens = last.data();
        args.tokens = tokens.data();
        args.guessed = device_guessed.data();
        args.guesses = kEach;
        args.threshold_single = static_cast<float>(rule.single);
        args.threshold_acc = static_cast<float>(rule.acc);
        sampler->sample(args);
        const auto got = tokens.get();
        ASSERT_TRUE(test_stream()->synchronize().ok()) << test_stream()->status().error().message;
        for (const int32_t token : got) ++counts[static_cast<size_t>(token)];
        for (int32_t r = 0; r < rows && call < compared; ++r) {
          SlotInit init;
          init.sampling = kind;
          init.sampling.seed = static_cast<uint64_t>(r) + 1;
          init.output.assign(static_cast<size_t>(call), 0);
          std::vector<int32_t> guesses;
          for (int32_t i = 0; i < kEach; ++i) {
            const int32_t guess = guessed[static_cast<size_t>(r * kEach + i)];
            if (guess >= 0) guesses.push_back(guess);
          }
          std::vector<float> bare = row;
          const int32_t wanted =
              sample_row(bare.data(), kVocab, SlotSampler(init), {}, {guesses, &rule}).token;
          differ += got[static_cast<size_t>(r)] == wanted ? 0 : 1;
        }
      }
      EXPECT_LE(differ, 2) << kind.temperature << " " << kind.top_p << " " << kind.top_k << " "
                           << rule.single;
      if (!exact) continue;
      ++judged;
      if (small) continue;
      double sum = 0.0, degrees = -1.0;
      for (const auto& next : reference_distribution(row.data(), kVocab, kind)) {
        const double expected = next.probability * rows * calls;  // 200,000
        const double off = static_cast<double>(counts[static_cast<size_t>(next.token)]) - expected;
        sum += off * off / expected;
        ++degrees;
      }
      ASSERT_GT(degrees, 0.0) << "one token alone";
      // Wilson and Hilferty's approximation: four deviations are one in 30,000.
      const double spread = std::sqrt(2.0 / (9.0 * degrees));
      EXPECT_LT((std::cbrt(sum / degrees) - (1.0 - spread * spread)) / spread, 4.0) << sum << " " << degrees;
    }
  }
  EXPECT_EQ(judged, 4);
}

}  // namespace
}  // namespace fathom::sample::cuda
