// Entries of the batch's own places come from the kernel ahead, however long that takes; those before them
// may be read while it runs (MlaDecodeArgs::settled).
#include "device/cuda/launch_kernel.h"
#include "ops/attention/cuda_testing.h"
#include "ops/cuda_testing.h"
#include "ops/mla_decode/cuda.h"

namespace fathom::ops::cuda {
namespace {

using namespace testing;  // NOLINT: the fixture of these tests

constexpr int64_t kLatent = 512, kWidth = 576, kPage = 64;
constexpr int32_t kNew = 2;  // places of each sequence in the batch

// As the kernel that writes entries, but late.
__global__ void write_late(uint8_t* to, const uint8_t* from, int64_t bytes) {
  device::cuda::let_next_start();
  constexpr int64_t kCycles = 100000;
  for (const int64_t begin = clock64(); clock64() - begin < kCycles;) {
  }
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < bytes; i += step)
    to[i] = from[i];
}

// Each sequence's last places, as queries of one batch.
class Late {
 public:
  Late(const std::vector<int32_t>& lengths, int64_t heads, DType cache, uint32_t seed)
      : heads_(heads), sequences_(lengths, kPage, kWidth, cache, seed), q_(DType::kBF16, 0) {
    for (size_t s = 0; s < lengths.size(); ++s) {
      for (int32_t place = std::max(lengths[s] - kNew, 0); place < lengths[s]; ++place) {
        positions_.push_back(place);
        slots_.push_back(static_cast<int32_t>(s));
      }
    }
    // Padding, whose slot is anything.
    positions_.push_back(-1);
    slots_.push_back(0);
    q_ = Values(DType::kBF16, tokens() * heads * kWidth);
    q_.draw_all(sequences_.random());
  }

  int64_t tokens() const { return static_cast<int64_t>(positions_.size()); }

  std::vector<uint8_t> run(device::cuda::Stream& stream, bool late) {
    const auto all = sequences_.cache();
    const int64_t entry = kWidth * device::size_of(all.dtype), bytes = all.num_pages * kPage * entry;
    const auto* data = static_cast<const uint8_t*>(all.data);
    const std::vector<uint8_t> whole(data, data + bytes);
    std::vector<uint8_t> before = whole;
    for (size_t t = 0; late && t < positions_.size(); ++t) {
      if (positions_[t] < 0) continue;
      const int64_t page = sequences_.table(static_cast<size_t>(slots_[t]))[positions_[t] / kPage];
      std::fill_n(before.begin() + (page * kPage + positions_[t] % kPage) * entry, entry, uint8_t{0xff});
    }
    const DeviceArray<uint8_t> device_whole(whole), q(q_.bytes());
    DeviceArray<uint8_t> cache(before);
    const DeviceArray<int32_t> positions(positions_), slots(slots_);
    const DeviceArray<uint8_t> out(tokens() * heads_ * kLatent * 2);
    const int64_t longest = *std::max_element(positions_.begin(), positions_.end()) + 1;
    const DeviceArray<uint8_t> workspace(
        mla_decode_workspace(stream.gpu(), tokens(), heads_, kLatent, longest));
    MlaDecodeArgs args;
    args.q = {q.data(), DType::kBF16, tokens(), heads_ * kWidth};
    args.cache = {cache.data(), all.dtype, kPage, kWidth};
    args.batch.tokens = tokens();
    args.batch.positions = positions.data();
    args.batch.slots = slots.data();
    args.batch.block_tables = sequences_.device_tables();
    args.batch.table_stride = sequences_.table_stride();
    args.heads = heads_;
    args.latent = kLatent;
    args.scale = 0.05F;
    args.settled = late;
    args.max_context = longest;
    args.workspace = workspace.data();
    args.out = {out.data(), DType::kBF16, tokens(), heads_ * kLatent};
    EXPECT_TRUE(stream.synchronize().ok());
    if (late) {
      write_late<<<16, 256, 0, stream.handle()>>>(cache.data(), device_whole.data(), bytes);
      stream.launched("write late");
    }
    mla_decode(stream, args);
    EXPECT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
    return out.get();
  }

 private:
  int64_t heads_;
  GpuSequences sequences_;
  std::vector<int32_t> positions_, slots_;
  Values q_;
};

TEST(MlaDecodeSettledCuda, WhatTheBatchWritesMayComeLate) {
  FATHOM_GPU_OR_SKIP(stream);
  uint32_t seed = 1;
  for (const DType cache : {DType::kBF16, DType::kF8E4M3}) {
    for (const int64_t heads : {16, 64, 128}) {
      for (const std::vector<int32_t>& lengths :
           {std::vector<int32_t>{700}, {64}, {1}, {1500, 65, 66}, {130, 64, 2, 513, 90, 1030, 256, 100}}) {
        Late late(lengths, heads, cache, ++seed);
        ASSERT_EQ(late.run(stream, true), late.run(stream, false))
            << heads << " heads, " << device::to_string(cache) << ", " << lengths.size() << " sequences";
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda
