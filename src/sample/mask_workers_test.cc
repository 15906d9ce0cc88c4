#include "sample/mask_workers.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>

namespace fathom::sample {
namespace {

// Allows the number of tokens so far, and takes its time for it.
class Counting final : public TokenMaskSource {
 public:
  struct Mask final : TokenMask {
    explicit Mask(const Counting& counting) : source(counting) {}
    bool accept(int32_t token) override {
      sum = sum * 31 + static_cast<uint64_t>(token);
      ++count;
      return true;
    }
    void rollback(int) override {}
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
        workers.accept(all[s].sequence, step);
      }
    }
  }
}

TEST(MaskWorkers, AWaiterSeesTheTokenThatComesLater) {
  MaskWorkers workers(100, 1);
  const auto sequence = workers.open(masked(std::make_shared<Counting>()));
  std::thread teller([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    workers.accept(sequence, 9);
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
  workers.accept(bad, 3);
  workers.accept(good, 3);
  EXPECT_EQ(workers.wait(bad, 1).error->message, "too costly");
  EXPECT_FALSE(workers.wait(good, 1).error);
  workers.accept(bad, 3);
  EXPECT_TRUE(workers.wait(bad, 2).error);
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
