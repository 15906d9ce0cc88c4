// The model's own small kernels: where tokens of several groups stand, and which place of an expert each
// takes.
#include <gtest/gtest.h>

#include <bit>
#include <random>

#include "device/cuda/testing.h"
#include "model/cuda/expert_places.h"
#include "model/cuda/group_positions.h"
#include "model/expert_placement.h"

namespace fathom::model::cuda {
namespace {

using device::cuda::testing::DeviceArray;
using device::cuda::testing::test_stream;

TEST(GroupPositions, PadWhatAGroupDoesNotFill) {
  device::cuda::Stream* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  for (const int64_t places : {1, 7, 256, 257, 1000}) {
    for (const int64_t tokens : {int64_t{0}, int64_t{1}, places / 2, places}) {
      std::vector<int32_t> positions;
      for (int64_t i = 0; i < tokens; ++i) positions.push_back(static_cast<int32_t>(i % 5 == 3 ? -1 : 3 * i));
      const DeviceArray<int32_t> from(positions), to(places);
      group_positions(*stream, from.data(), tokens, places, to.data());
      positions.resize(static_cast<size_t>(places), -1);
      EXPECT_EQ(to.get(), positions) << tokens << " tokens of " << places;
    }
  }
}

// Each copy of a token's experts goes to one place, on the rank that has it, by the token's own logits.
TEST(ExpertPlaces, EveryTokenFindsEachOfItsExpertsInOneSet) {
  device::cuda::Stream* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  constexpr int32_t kExperts = 16, kTopK = 4;
  constexpr int kSets = 3;
  std::mt19937 random(4);
  for (const int64_t tokens : {1, 40, 301}) {
    std::vector<float> logits;
    std::vector<int32_t> positions, ids;
    std::vector<unsigned long long> counted(kExperts, 0);
    for (int64_t t = 0; t < tokens; ++t) {
      positions.push_back(t % 7 == 5 ? -1 : static_cast<int32_t>(t));
      for (int32_t e = 0; e < kExperts; ++e) logits.push_back(std::normal_distribution<float>()(random));
      const auto first = static_cast<int32_t>(random() % kExperts);
      for (int32_t k = 0; k < kTopK; ++k) {
        ids.push_back((first + 3 * k) % kExperts);
        if (positions.back() >= 0) ++counted[static_cast<size_t>(ids.back())];
      }
    }
    const ExpertPlacement placement = first_placement(kExperts, 11, kSets);
    std::vector<int> found(ids.size(), 0);
    std::vector<int> used(kSets, 0);
    for (int set = 0; set < kSets; ++set) {
      const ExpertSlots slots = slots_of(placement, set, kExperts);
      const DeviceArray<float> device_logits(logits);
      const DeviceArray<int32_t> first(slots.first), places(slots.slots), device_positions(positions);
      const DeviceArray<int32_t> device_ids(ids);
      const DeviceArray<unsigned long long> load(std::vector<unsigned long long>(kExperts, 2));
      place_experts(*stream, {.logits = device_logits.data(),
                              .positions = device_positions.data(),
                              .places = {first.data(), places.data(), load.data()},
                              .tokens = tokens,
                              .experts = kExperts,
                              .top_k = kTopK,
                              .ids = device_ids.data()});
      const auto got = device_ids.get();
      for (size_t i = 0; i < ids.size(); ++i) {
        const auto t = i / kTopK;
        if (positions[t] < 0) continue;
        const uint32_t dice = std::bit_cast<uint32_t>(logits[t * kExperts]) * 2654435761U >> 8;
        const auto copies = static_cast<uint32_t>(slots.copies(ids[i]));
        EXPECT_EQ(got[i], slots.slot(ids[i], static_cast<int32_t>(dice % copies)));
        if (got[i] < 0) continue;
        ++found[i];
        ++used[static_cast<size_t>(set)];
        EXPECT_EQ(placement.sets[static_cast<size_t>(set)][static_cast<size_t>(got[i])], ids[i]);
      }
      auto expected = counted;
      for (auto& count : expected) count += 2;
      EXPECT_EQ(load.get(), expected);
    }
    for (size_t i = 0; i < ids.size(); ++i) EXPECT_EQ(found[i], positions[i / kTopK] < 0 ? 0 : 1);
    if (tokens > 100) {
      for (const int count : used) EXPECT_GT(count, 0);
    }
  }
}

}  // namespace
}  // namespace fathom::model::cuda
