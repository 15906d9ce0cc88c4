// Groups of GPUs whose ranks are threads of one process, on as many GPUs as there are.
#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "dist/cuda/gpu_group_testing.h"
#include "ops/cuda_testing.h"

namespace fathom::dist::cuda {
namespace {

using device::DType;
using ops::cuda::DeviceMatrix;

// Ranks that share a GPU wait for each other's kernels, and one that was not loaded yet waits for all of
// them.
const int kLoadsKernelsFirst = setenv("CUDA_MODULE_LOADING", "EAGER", 1);

// fn(group, stream) on a thread for each rank, which uses the GPU of that number in `gpus`.
void run_on(std::vector<int> gpus, std::chrono::milliseconds timeout,
            const std::function<void(GpuGroup&, Stream&)>& fn) {
  GpuGroupOptions options;
  options.gpus = std::move(gpus);
  options.timeout = timeout;
  auto groups = GpuGroup::create(options);
  ASSERT_TRUE(groups.ok()) << groups.error().message;
  run_groups(std::move(*groups), fn);
}
void run_ranks(int size, std::chrono::milliseconds timeout,
               const std::function<void(GpuGroup&, Stream&)>& fn) {
  std::vector<int> gpus;
  for (int i = 0; i < size; ++i) gpus.push_back(i % device::cuda::gpu_count());
  run_on(std::move(gpus), timeout, fn);
}

TEST(GpuGroup, SumsHaveTheBitsOfOneGpuByEitherWay) {
  FATHOM_GPUS_OR_SKIP();
  for (int size = 2; size <= device::cuda::gpu_count(); size *= 2) {
    run_ranks(size, kPatient, [](GpuGroup& group, Stream& stream) {
      for (uint64_t seed = 0; seed < 60; ++seed) check_sum(group, stream, seed);
    });
  }
}

TEST(GpuGroup, ASumAddsUpExpertsAnswers) {
  FATHOM_GPUS_OR_SKIP();
  for (int size = 2; size <= device::cuda::gpu_count(); size *= 2) run_ranks(size, kPatient, check_answers);
}

TEST(GpuGroup, ARankAddsItsOwnRows) {
  FATHOM_GPUS_OR_SKIP();
  for (int size = 2; size <= device::cuda::gpu_count(); size *= 2) run_ranks(size, kPatient, check_own_rows);
}

// Four ranks, two a group, perhaps several on a GPU: a model's sums in its groups, and the experts' over all
// of them, of which a rank of a group has the share that it keeps of the residual and sends the norm to the
// other.
TEST(GpuGroup, GroupsOfAGroup) {
  if (device::cuda::gpu_count() < 1) GTEST_SKIP() << "no GPU";
  ASSERT_EQ(kLoadsKernelsFirst, 0);
  constexpr int kSize = 4, kLanes = 2;
  run_ranks(kSize, kPatient, [](GpuGroup& world, Stream& stream) {
    const int group = world.rank() / kLanes;
    const int lane = world.rank() % kLanes;
    for (const bool posts : {true, false}) {
      auto lanes = world.split(group, "lanes", posts).value();
      auto across = world.split(lane, "across", false).value();
      ASSERT_EQ(lanes->rank(), lane);
      ASSERT_EQ(across->rank(), group);
      if (posts) check_lanes(world, *lanes, stream);
      // A rank sends what the others of its lane do not have.
      const DeviceMatrix numbers(DType::kF32, 2, 64, std::vector<float>(128, static_cast<float>(group)));
      ASSERT_TRUE(across->share(numbers.view().data, 512).ok());
      across->gather(stream, numbers.view().row_range(group, group + 1), 64);
      ASSERT_TRUE(stream.synchronize().ok());
      for (size_t i = 0; i < 128; ++i) EXPECT_EQ(numbers.get()[i], i < 64 ? 0.0F : 1.0F);
      ASSERT_TRUE(world.host().barrier().ok());
    }
  });
}

TEST(GpuGroup, RanksThatWaitLeaveRoomToThoseThatShareTheirGpu) {
  if (device::cuda::gpu_count() < 1) GTEST_SKIP() << "no GPU";
  run_on({0, 0, 0, 0}, std::chrono::seconds(3), check_room);
}

TEST(GpuGroup, AGroupOfAGroupNamesRanksByTheirNumberInTheFirst) {
  if (device::cuda::gpu_count() < 1) GTEST_SKIP() << "no GPU";
  run_ranks(4, std::chrono::milliseconds(400), [](GpuGroup& world, Stream& stream) {
    auto pair = world.split(world.rank() / 2, "pair", true).value();
    const DeviceMatrix rows(DType::kF32, 1, 64, std::vector<float>(64, 1.0F));
    // Where ranks share a GPU, memory for one would wait for another's kernel, and its pair for it.
    ASSERT_TRUE(world.host().barrier().ok());
    if (world.rank() == 2) {
      SumArgs args;
      args.rows = args.y = rows.view();
      pair->sum(stream, args);
      ASSERT_TRUE(stream.synchronize().ok());
    } else {
      std::this_thread::sleep_for(std::chrono::milliseconds(700));
    }
    ASSERT_FALSE(world.state().ok());
    EXPECT_EQ(world.state().error().message, "rank 2 waited 0.4 s on its GPU in a sum, held up by rank 3");
  });
}

// Numbers whose words mean "nobody has written here" must not hold a sum up.
TEST(GpuGroup, ANanIsANumberLikeAnyOther) {
  FATHOM_GPUS_OR_SKIP();
  run_ranks(2, kPatient, [](GpuGroup& group, Stream& stream) {
    for (const DType dtype : {DType::kF32, DType::kBF16}) {
      const DeviceMatrix rows(dtype, 3, 64);  // poisoned: all bits are ones
      const DeviceMatrix y(DType::kF32, 3, 64, std::vector<float>(192, 1.0F));
      SumArgs args;
      args.rows = rows.view();
      args.y = y.view();
      args.way = Way::kPost;
      group.sum(stream, args);
      ASSERT_TRUE(stream.synchronize().ok());
      ASSERT_TRUE(group.state().ok()) << group.state().error().message;
      for (const float value : y.get()) ASSERT_TRUE(std::isnan(value));
    }
  });
}

TEST(GpuGroup, GathersPartsOfAnySize) {
  FATHOM_GPUS_OR_SKIP();
  for (int size = 2; size <= device::cuda::gpu_count(); size *= 2) run_ranks(size, kPatient, check_gathers);
}

TEST(GpuGroup, ExchangesPieces) {
  FATHOM_GPUS_OR_SKIP();
  for (int size = 2; size <= device::cuda::gpu_count(); size *= 2) run_ranks(size, kPatient, check_exchanges);
}

TEST(GpuGroup, ReplayedGraphsKeepStep) {
  FATHOM_GPUS_OR_SKIP();
  run_ranks(2, kPatient, check_replays);
}

TEST(GpuGroup, ARankThatDoesNotComeIsNamed) {
  FATHOM_GPUS_OR_SKIP();
  for (const Way way : {Way::kPost, Way::kMeet}) {
    std::atomic<double> waited{0};
    run_ranks(2, std::chrono::milliseconds(400), [&](GpuGroup& group, Stream& stream) {
      const DeviceMatrix rows(DType::kF32, 4, 64, std::vector<float>(256, 1.0F));
      ASSERT_TRUE(group.share(rows.view().data, 1024).ok());
      if (group.rank() == 1) {
        std::this_thread::sleep_for(std::chrono::milliseconds(900));
        return;
      }
      SumArgs args;
      args.rows = rows.view();
      args.y = rows.view();
      args.way = way;
      const int64_t start = steady_clock().now_ns();
      group.sum(stream, args);
      group.sum(stream, args);  // and nobody waits a second time
      ASSERT_TRUE(stream.synchronize().ok());
      waited = seconds_since(start);
      ASSERT_FALSE(group.state().ok());
      EXPECT_EQ(group.state().error().message, "rank 0 waited 0.4 s on its GPU in a sum, held up by rank 1");
    });
    EXPECT_GT(waited, 0.35);
    EXPECT_LT(waited, 0.8);
  }
}

TEST(GpuGroup, AnAbortEndsTheWait) {
  FATHOM_GPUS_OR_SKIP();
  run_ranks(2, kPatient, [&](GpuGroup& group, Stream& stream) {
    const DeviceMatrix rows(DType::kF32, 4, 64, std::vector<float>(256, 1.0F));
    if (group.rank() == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      group.abort(error(ErrorCode::kInternal, "rank 1 has no more to say"));
      return;
    }
    SumArgs args;
    args.rows = rows.view();
    args.y = rows.view();
    args.way = Way::kPost;
    group.sum(stream, args);
    ASSERT_TRUE(stream.synchronize().ok());
    ASSERT_FALSE(group.state().ok());
    EXPECT_EQ(group.state().error().message, "rank 1 has no more to say");
  });
}

}  // namespace
}  // namespace fathom::dist::cuda
