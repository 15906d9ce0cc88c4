// Groups of GPUs that send each other everything through NCCL, as those of different processes do.
#include <gtest/gtest.h>

#include <atomic>
#include <optional>
#include <thread>

#include "base/clock.h"
#include "dist/cuda/gpu_group_testing.h"
#include "dist/cuda/nccl.h"
#include "dist/cuda/nccl_group.h"
#include "dist/testing.h"
#include "ops/cuda_testing.h"

namespace fathom::dist::cuda {
namespace {

using device::DType;
using ops::cuda::DeviceMatrix;

#define FATHOM_NCCL_OR_SKIP() \
  FATHOM_GPUS_OR_SKIP();      \
  if (const auto nccl = Nccl::load(); !nccl.ok()) GTEST_SKIP() << nccl.error().message

// fn(group, stream) on a thread for each node, which has one GPU; they talk through sockets of this process.
void run_nodes(int size, std::chrono::milliseconds timeout, int shift,
               const std::function<void(GpuGroup&, Stream&)>& fn) {
  auto hosts = make_test_groups(size, size, timeout);
  std::vector<std::optional<Result<Groups>>> made(hosts.size());
  std::vector<std::thread> threads;
  for (size_t node = 0; node < hosts.size(); ++node) {
    threads.emplace_back([&, node] {
      std::vector<std::unique_ptr<Group>> mine;
      mine.push_back(std::move(hosts[node]));
      GpuGroupOptions options;
      options.gpus = {static_cast<int>(node)};
      options.timeout = timeout;
      made[node] = create_over_nodes(options, std::move(mine), shift);
    });
  }
  for (auto& thread : threads) thread.join();
  Groups groups;
  for (auto& node : made) {
    ASSERT_TRUE(node->ok()) << node->error().message;
    groups.push_back(std::move((*node)->front()));
  }
  run_groups(std::move(groups), fn);
}

TEST(GpuGroupOverNodes, SumsHaveTheBitsOfOneGpuByEitherWay) {
  FATHOM_NCCL_OR_SKIP();
  for (const int shift : {0, 1}) {
    run_nodes(device::cuda::gpu_count(), kPatient, shift, [](GpuGroup& group, Stream& stream) {
      for (uint64_t seed = 0; seed < 60; ++seed) check_sum(group, stream, seed);
    });
  }
}

TEST(GpuGroupOverNodes, ASumAddsUpExpertsAnswers) {
  FATHOM_NCCL_OR_SKIP();
  run_nodes(device::cuda::gpu_count(), kPatient, 0, check_answers);
}

TEST(GpuGroupOverNodes, ARankAddsItsOwnRows) {
  FATHOM_NCCL_OR_SKIP();
  run_nodes(device::cuda::gpu_count(), kPatient, 0, check_own_rows);
}

TEST(GpuGroupOverNodes, LanesShareTheirRows) {
  FATHOM_NCCL_OR_SKIP();
  const int lanes = 2;
  run_nodes(device::cuda::gpu_count() / lanes * lanes, kPatient, 0, [](GpuGroup& world, Stream& stream) {
    auto mine = world.split(world.rank() / lanes, "lanes", true).value();
    check_lanes(world, *mine, stream);
  });
}

TEST(GpuGroupOverNodes, GathersPartsOfAnySize) {
  FATHOM_NCCL_OR_SKIP();
  run_nodes(device::cuda::gpu_count(), kPatient, 1, check_gathers);
  run_nodes(2, kPatient, 0, [](GpuGroup& group, Stream& stream) {
    const DeviceMatrix rows(DType::kF32, 3, 64, std::vector<float>(192, static_cast<float>(group.rank())));
    ASSERT_TRUE(group.share(rows.view().data, 768).ok());
    const bool sends = group.rank() == 1;
    group.gather(stream, sends ? rows.view() : rows.view().first_rows(0), 192, {1, 2});
    ASSERT_TRUE(stream.synchronize().ok());
    for (const float value : rows.get()) ASSERT_EQ(value, 1.0F);
  });
}

TEST(GpuGroupOverNodes, ExchangesPieces) {
  FATHOM_NCCL_OR_SKIP();
  run_nodes(device::cuda::gpu_count(), kPatient, 1, check_exchanges);
}

TEST(GpuGroupOverNodes, ReplayedGraphsKeepStep) {
  FATHOM_NCCL_OR_SKIP();
  run_nodes(2, kPatient, 1, check_replays);
}

// Whether a rank says so or its node is gone: NCCL itself would wait for ever.
TEST(GpuGroupOverNodes, AnAbortEndsTheWait) {
  FATHOM_NCCL_OR_SKIP();
  std::atomic<double> waited{0};
  run_nodes(2, kPatient, 0, [&](GpuGroup& group, Stream& stream) {
    const DeviceMatrix rows(DType::kF32, 4, 64, std::vector<float>(256, 1.0F));
    SumArgs args;
    args.rows = rows.view();
    args.y = rows.view();
    args.way = Way::kPost;
    group.sum(stream, args);  // connects
    ASSERT_TRUE(stream.synchronize().ok());
    if (group.rank() == 1) {
      std::this_thread::sleep_for(std::chrono::milliseconds(100));
      group.abort(error(ErrorCode::kInternal, "rank 1 has no more to say"));
      return;
    }
    const int64_t start = steady_clock().now_ns();
    group.sum(stream, args);
    (void)stream.synchronize();
    waited = seconds_since(start);
    ASSERT_FALSE(group.state().ok());
    EXPECT_EQ(group.state().error().message, "rank 1 has no more to say");
  });
  EXPECT_GT(waited, 0.05);
  EXPECT_LT(waited, 5.0);
}

// Whoever is ready to be connected waits for a rank that is not, in NCCL, which has no end of it.
TEST(GpuGroupOverNodes, ARankThatFailsAtTheStartEndsTheOthers) {
  FATHOM_NCCL_OR_SKIP();
  // After the last word on the host before NCCL's turn.
  class Failing final : public Group {
   public:
    explicit Failing(std::unique_ptr<Group> group) : group_(std::move(group)) {}
    int rank() const override { return group_->rank(); }
    int size() const override { return group_->size(); }
    Result<void> all_reduce(void* data, int64_t count, DType dtype) override {
      return group_->all_reduce(data, count, dtype);
    }
    Result<void> all_gather(const void* send, std::span<const int64_t> bytes, void* receive) override {
      return group_->all_gather(send, bytes, receive);
    }
    Result<void> reduce_scatter(const void* data, std::span<const int64_t> counts, DType dtype,
                                void* receive) override {
      return group_->reduce_scatter(data, counts, dtype, receive);
    }
    Result<void> broadcast(void* data, int64_t bytes, int root) override {
      FATHOM_TRY(group_->broadcast(data, bytes, root));
      std::this_thread::sleep_for(std::chrono::milliseconds(300));
      return error(ErrorCode::kUnavailable, "rank 1 has no GPU after all");
    }
    Result<void> all_to_all(std::span<const Outgoing> send, std::span<const Incoming> receive) override {
      return group_->all_to_all(send, receive);
    }
    Result<void> barrier() override { return group_->barrier(); }
    Result<std::unique_ptr<Group>> split(int colour, const std::string& name) override {
      return group_->split(colour, name);
    }
    void abort(Error error) override { group_->abort(std::move(error)); }
    Result<void> state() const override { return group_->state(); }

   private:
    std::unique_ptr<Group> group_;
  };
  auto hosts = make_test_groups(2, 2, kPatient);
  std::vector<std::thread> threads;
  for (int node = 0; node < 2; ++node) {
    threads.emplace_back([&, node] {
      std::vector<std::unique_ptr<Group>> mine;
      mine.push_back(std::move(hosts[static_cast<size_t>(node)]));
      if (node == 1) mine.front() = std::make_unique<Failing>(std::move(mine.front()));
      GpuGroupOptions options;
      options.gpus = {node};
      options.timeout = kPatient;
      const int64_t start = steady_clock().now_ns();
      const auto made = create_over_nodes(options, std::move(mine), 0);
      ASSERT_FALSE(made.ok());
      EXPECT_NE(made.error().message.find("rank 1 has no GPU after all"), std::string::npos)
          << made.error().message;
      EXPECT_LT(seconds_since(start), 5.0);
    });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace
}  // namespace fathom::dist::cuda
