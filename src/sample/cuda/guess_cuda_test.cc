// What speculation asks of the sampler: guesses that leave no trace, and which rows go on.
#include <gtest/gtest.h>

#include <random>

#include "device/cuda/testing.h"
#include "sample/cuda/gpu_sampler.h"
#include "sample/sampler.h"

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

}  // namespace
}  // namespace fathom::sample::cuda
