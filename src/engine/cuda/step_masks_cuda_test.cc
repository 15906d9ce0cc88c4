#include "engine/cuda/step_masks.h"

#include "device/cuda/testing.h"
#include "engine/masks_testing.h"

namespace fathom::engine::cuda {
namespace {

using device::cuda::testing::test_stream;

#define SKIP_WITHOUT_GPU() \
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU"

TEST(StepMasks, ArriveAsTheSamplerReadsThem) {
  SKIP_WITHOUT_GPU();
  for (const int64_t vocab : {31, 33, 64, 100, 129280}) {
    constexpr int64_t kSlots = 5;
    device::cuda::DeviceArena arena(size_t{1} << 20);
    const DeviceMasks device = DeviceMasks::allocate(kSlots, vocab, arena).value();
    StepMasks masks = StepMasks::allocate(kSlots, vocab).value();
    const auto words = static_cast<size_t>((vocab + 31) / 32);
    for (int round = 0; round < 2; ++round) {
      masks.clear();
      std::vector<std::vector<uint64_t>> sent;
      for (int row = 0; row < 4; ++row) {
        if (row == 1) {
          masks.add_free_row();
          continue;
        }
        std::vector<uint64_t>& bits = sent.emplace_back(num_mask_words(vocab));
        for (size_t w = 0; w < bits.size(); ++w)
          bits[w] = 0x9E3779B97F4A7C15U * (w + 1 + 100 * static_cast<size_t>(row + round));
        masks.add_row(bits);
      }
      masks.send(*test_stream(), device);
      const auto back = device::cuda::PinnedBuffer::allocate((3 * words + kSlots) * 4);
      ASSERT_TRUE(back.ok());
      auto* memory = static_cast<uint32_t*>(back->data());
      test_stream()->copy(memory, device.allowed, 3 * words * 4);
      test_stream()->copy(memory + 3 * words, device.rows, kSlots * 4);
      ASSERT_TRUE(test_stream()->synchronize().ok());
      const std::vector<uint32_t> allowed(memory, memory + 3 * words);
      const std::vector<int32_t> rows(memory + 3 * words, memory + 3 * words + kSlots);
      EXPECT_EQ(rows, (std::vector<int32_t>{0, -1, 1, 2, -1}));
      for (size_t mask = 0; mask < 3; ++mask) {
        for (int64_t token = 0; token < vocab; ++token) {
          const auto t = static_cast<size_t>(token);
          ASSERT_EQ(allowed[mask * words + t / 32] >> (t % 32) & 1U, sent[mask][t / 64] >> (t % 64) & 1U)
              << vocab << " tokens, mask " << mask << ", token " << token;
        }
      }
    }
  }
}

TEST(GpuMasks, AreKept) {
  SKIP_WITHOUT_GPU();
  expect_masks_to_be_kept(*start_demo_engine("cuda"));
}

TEST(GpuMasks, FailAlone) {
  SKIP_WITHOUT_GPU();
  expect_a_mask_to_fail_alone(*start_demo_engine("cuda"));
}

TEST(GpuMasks, GoWithGuesses) {
  SKIP_WITHOUT_GPU();
  const auto plain = start_demo_engine("cuda");
  for (const char* algorithm : {"EAGLE", "NGRAM"}) {
    for (const bool graphs : {true, false}) {
      expect_masks_to_go_with_guesses(
          *plain, *start_demo_engine("cuda", {.algorithm = algorithm, .draft_model_path = {}}, graphs));
    }
  }
}

}  // namespace
}  // namespace fathom::engine::cuda
