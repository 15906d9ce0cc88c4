#include "device/cuda/pinned_copy.h"

#include <gtest/gtest.h>

#include <random>

#include "device/cuda/testing.h"

namespace fathom::device::cuda {
namespace {

using testing::DeviceArray;
using testing::test_stream;

TEST(PinnedCopyCuda, MovesWhatItIsTold) {
  Stream* stream = test_stream();
  if (stream == nullptr) GTEST_SKIP() << "no GPU";
  constexpr size_t kSize = 200 << 10;
  std::mt19937 random(1);
  const PinnedBuffer there = std::move(PinnedBuffer::allocate(kSize)).value();
  const PinnedBuffer back = std::move(PinnedBuffer::allocate(kSize)).value();
  const DeviceArray<uint8_t> between(static_cast<int64_t>(kSize));
  auto* from = static_cast<uint8_t*>(there.data());
  auto* to = static_cast<uint8_t*>(back.data());
  for (const size_t bytes : {size_t{4}, size_t{16}, size_t{20}, size_t{4096}, size_t{5000}, kMostByKernel,
                             kMostByKernel + 4, size_t{3}, size_t{101}, size_t{150'000}}) {
    for (const size_t offset : {size_t{0}, size_t{16}, size_t{4}, size_t{1}}) {
      // What the host wrote after an earlier copy of the same place is what comes.
      for (int turn = 0; turn < 2; ++turn) {
        for (size_t i = 0; i < kSize; ++i) from[i] = static_cast<uint8_t>(random());
        std::fill_n(to, kSize, uint8_t{0xee});
        copy_pinned(*stream, between.data() + offset, from + offset, bytes);
        copy_pinned(*stream, to + offset, between.data() + offset, bytes);
        ASSERT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
        for (size_t i = 0; i < kSize; ++i) {
          const bool inside = i >= offset && i < offset + bytes;
          ASSERT_EQ(to[i], inside ? from[i] : 0xee) << bytes << " bytes at " << offset << ", byte " << i;
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom::device::cuda
