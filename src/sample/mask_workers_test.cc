#include "sample/mask_workers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

namespace fathom::sample {
namespace {

constexpr int32_t kForbidden = 66;

// Allows what tells of the tokens so far, and takes its time for it. Refuses one token.
class Counting final : public TokenMaskSource {
 public:
  struct Mask final : TokenMask {
    explicit Mask(const Counting& counting) : source(counting) {}
    bool accept(int32_t token) override {
      if (token == kForbidden) return false;
      before.push_back(sum);
      sum = sum * 31 + static_cast<uint64_t>(token);
      ++count;
      return true;
    }
    void rollback(int tokens) override {
      for (; tokens > 0; --tokens, --count) {
        sum = before.back();
        before.pop_back();
      }
    }
    bool constrains() const override { return count != source.free_at; }
    Result<void> fill(std::span<uint64_t> allowed) override {
      std::this_thread::sleep_for(source.delay);
      if (count == source.fails_at) return error(ErrorCode::kInvalidArgument, "too costly");
      std::fill(allowed.begin(), allowed.end(), 0);
      allowed[0] = sum;
      return {};
    }
    const Counting& source;
    int count = 0;
    uint64_t sum = 0;
    std::vector<uint64_t> before;
  };
  std::unique_ptr<TokenMask> begin() const override { return std::make_unique<Mask>(*this); }
  std::chrono::microseconds delay{0};
  int fails_at = -1, free_at = -1;
};

SlotInit masked(std::shared_ptr<const TokenMaskSource> source, std::vector<int32_t> output = {}) {
  SlotInit init;
  init.mask = std::move(source);
  init.output = std::move(output);
  return init;
}

void accept(MaskWorkers& workers, const std::shared_ptr<MaskWorkers::Sequence>& sequence, int32_t token) {
  workers.accept(sequence, {&token, 1});
}

TEST(MaskWorkers, FollowManySequencesAtOnce) {
  for (const int threads : {1, 3}) {
    auto source = std::make_shared<Counting>();
    source->delay = std::chrono::microseconds(200);
    source->free_at = 7;
    MaskWorkers workers(100, threads);
    EXPECT_EQ(workers.open(SlotInit{}), nullptr);
    struct One {
      std::shared_ptr<MaskWorkers::Sequence> sequence;
      uint64_t sum = 0;
    };
    std::vector<One> all;
    for (int32_t s = 0; s < 10; ++s) {
      const std::vector<int32_t> output(static_cast<size_t>(s), 5);  // resumed after so many
      One& one = all.emplace_back();
      one.sequence = workers.open(masked(source, output));
      for (const int32_t token : output) one.sum = one.sum * 31 + static_cast<uint64_t>(token);
    }
    for (int32_t step = 0; step < 20; ++step) {
      for (size_t s = 0; s < all.size(); ++s) {
        const int64_t tokens = static_cast<int64_t>(s) + step;
        const MaskWorkers::Found& found = workers.wait(all[s].sequence, tokens);
        EXPECT_FALSE(found.error);
        ASSERT_EQ(found.constrains, tokens != 7);
        if (found.constrains) {
          ASSERT_EQ(found.allowed[0], all[s].sum);
        }
        all[s].sum = all[s].sum * 31 + static_cast<uint64_t>(step);
        accept(workers, all[s].sequence, step);
      }
    }
  }
}

TEST(MaskWorkers, AWaiterSeesTheTokenThatComesLater) {
  MaskWorkers workers(100, 1);
  const auto sequence = workers.open(masked(std::make_shared<Counting>()));
  std::thread teller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    accept(workers, sequence, 9);
  });
  EXPECT_EQ(workers.wait(sequence, 1).allowed[0], 9U);
  teller.join();
}

TEST(MaskWorkers, AnErrorStaysWithItsSequence) {
  auto source = std::make_shared<Counting>();
  source->fails_at = 1;
  MaskWorkers workers(100, 1);
  const auto bad = workers.open(masked(source));
  const auto good = workers.open(masked(std::make_shared<Counting>()));
  accept(workers, bad, 3);
  accept(workers, good, 3);
  EXPECT_EQ(workers.wait(bad, 1).error->message, "too costly");
  EXPECT_FALSE(workers.wait(good, 1).error);
  accept(workers, bad, 3);
  EXPECT_TRUE(workers.wait(bad, 2).error);
}

TEST(MaskWorkers, FindTheMasksOfGuessesAndGoBack) {
  auto source = std::make_shared<Counting>();
  source->free_at = 4;
  MaskWorkers workers(100, 2);
  std::vector<std::shared_ptr<MaskWorkers::Sequence>> all;
  for (int32_t s = 0; s < 8; ++s) all.push_back(workers.open(masked(source, {s})));
  const auto after = [](std::vector<int32_t> tokens) {
    uint64_t sum = 0;
    for (const int32_t token : tokens) sum = sum * 31 + static_cast<uint64_t>(token);
    return sum;
  };
  for (int32_t s = 0; s < 8; ++s) {
    // 5, with 7 and (forbidden, with 9) after it; 6 beside it, with 8, 1 after it.
    GuessTree guesses;
    guesses.add(5, GuessTree::kRoot);
    guesses.add(7, 0);
    guesses.add(kForbidden, 0);
    guesses.add(9, 2);
    guesses.add(6, GuessTree::kRoot);
    guesses.add(8, 4);
    guesses.add(1, 5);
    workers.guess(all[static_cast<size_t>(s)], &guesses);
    EXPECT_EQ(guesses.tokens, (std::vector<int32_t>{5, 7, 6, 8, 1}));
    EXPECT_EQ(guesses.parents, (std::vector<int32_t>{-1, 0, -1, 2, 3}));
  }
  for (int32_t s = 0; s < 8; ++s) {
    const auto& sequence = all[static_cast<size_t>(s)];
    EXPECT_EQ(workers.wait(sequence, 1).allowed[0], after({s}));
    const auto masks = workers.wait_guessed(sequence);
    ASSERT_EQ(masks.size(), 5U);
    EXPECT_EQ(masks[0].allowed[0], after({s, 5}));
    EXPECT_EQ(masks[1].allowed[0], after({s, 5, 7}));
    EXPECT_EQ(masks[2].allowed[0], after({s, 6}));
    EXPECT_EQ(masks[3].allowed[0], after({s, 6, 8}));
    EXPECT_FALSE(masks[4].constrains);  // four tokens
    const std::vector<int32_t> chosen{6, 3};
    workers.accept(sequence, chosen);
  }
  for (int32_t s = 0; s < 8; ++s) {
    const auto& sequence = all[static_cast<size_t>(s)];
    GuessTree none = GuessTree::chain(std::vector<int32_t>{kForbidden, 3});
    workers.guess(sequence, &none);
    EXPECT_TRUE(none.empty());
    EXPECT_TRUE(workers.wait_guessed(sequence).empty());
    EXPECT_EQ(workers.wait(sequence, 3).allowed[0], after({s, 6, 3}));
  }
}

TEST(MaskWorkers, AGuessAfterWhichTheMaskFailsIsToldApart) {
  auto source = std::make_shared<Counting>();
  source->fails_at = 2;
  MaskWorkers workers(100, 1);
  const auto sequence = workers.open(masked(source));
  GuessTree guesses = GuessTree::chain(std::vector<int32_t>{4, 5, 6});
  workers.guess(sequence, &guesses);
  EXPECT_FALSE(workers.wait(sequence, 0).error);
  const auto masks = workers.wait_guessed(sequence);
  ASSERT_EQ(masks.size(), 3U);
  EXPECT_FALSE(masks[0].error);
  EXPECT_TRUE(masks[1].error);
  const std::vector<int32_t> chosen{4, 5};
  workers.accept(sequence, chosen);
  EXPECT_TRUE(workers.wait(sequence, 2).error);
}

TEST(MaskWorkers, NobodyWaitsForAnAbandonedSequence) {
  MaskWorkers workers(100, 1);
  const auto sequence = workers.open(masked(std::make_shared<Counting>()));
  std::thread teller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    workers.abandon(sequence);
  });
  EXPECT_TRUE(workers.wait(sequence, 1).error);
  teller.join();
}

}  // namespace
}  // namespace fathom::sample
