// The group of GPUs against sums on the host, on as many GPUs as there are.
#include <gtest/gtest.h>

#include <atomic>
#include <functional>
#include <random>
#include <thread>

#include "base/clock.h"
#include "device/cuda/graph.h"
#include "dist/cuda/gpu_group.h"
#include "dist/cuda/nccl.h"
#include "dist/cuda/nccl_group.h"
#include "dist/reduce.h"
#include "dist/testing.h"
#include "ops/cuda_testing.h"
#include "ops/rms_norm/cuda.h"

namespace fathom::dist::cuda {
namespace {

using device::DType;
using device::cuda::Stream;
using device::cuda::testing::DeviceArray;
using ops::cuda::DeviceMatrix;
using ops::cuda::Matrix;

#define FATHOM_GPUS_OR_SKIP() \
  if (device::cuda::gpu_count() < 2) GTEST_SKIP() << "fewer than two GPUs"

// Ranks that share a GPU wait for each other's kernels, and one that was not loaded yet waits for all of
// them.
const int kLoadsKernelsFirst = setenv("CUDA_MODULE_LOADING", "EAGER", 1);

using Groups = std::vector<std::unique_ptr<GpuGroup>>;

void run_groups(Groups groups, const std::function<void(GpuGroup&, Stream&)>& fn) {
  std::vector<std::thread> threads;
  for (auto& group : groups) {
    threads.emplace_back([&fn, &group] {
      const auto stream = std::move(Stream::create(device::cuda::open_gpu(group->gpu()).value())).value();
      fn(*group, *stream);
      ASSERT_TRUE(stream->synchronize().ok()) << stream->status().error().message;
      // Nobody frees what another's kernels may still use.
      (void)group->host().barrier();
    });
  }
  for (auto& thread : threads) thread.join();
}

// fn(group, stream) on a thread for each rank.
void run_ranks(int size, std::chrono::milliseconds timeout,
               const std::function<void(GpuGroup&, Stream&)>& fn) {
  GpuGroupOptions options;
  for (int i = 0; i < size; ++i) options.gpus.push_back(i % device::cuda::gpu_count());
  options.timeout = timeout;
  auto groups = GpuGroup::create(options);
  ASSERT_TRUE(groups.ok()) << groups.error().message;
  run_groups(std::move(*groups), fn);
}

// The same on GPUs that send each other everything, as those of different processes do: nodes of one GPU,
// that talk through sockets of this process.
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

#define FATHOM_NCCL_OR_SKIP() \
  FATHOM_GPUS_OR_SKIP();      \
  if (const auto nccl = Nccl::load(); !nccl.ok()) GTEST_SKIP() << nccl.error().message

constexpr std::chrono::milliseconds kPatient{20'000};

std::vector<float> values_of(uint64_t seed, int rank, int64_t count, DType dtype) {
  std::mt19937 random(static_cast<unsigned>(seed * 31 + static_cast<uint64_t>(rank)));
  std::vector<float> values = ops::cuda::random_floats(count, random, 3.0F);
  return ops::cuda::rounded(dtype, values);
}

// The sum over the ranks, in float32, in their order.
std::vector<float> sum_of(uint64_t seed, int size, int64_t count, DType dtype) {
  std::vector<std::vector<float>> all;
  std::vector<const void*> in;
  for (int r = 0; r < size; ++r) all.push_back(values_of(seed, r, count, dtype));
  for (const auto& one : all) in.push_back(one.data());
  std::vector<float> sum(static_cast<size_t>(count));
  void* out = sum.data();
  sum_into(in, {&out, 1}, 0, count, DType::kF32);
  return sum;
}

struct Shape {
  int64_t rows, width;
  DType rows_dtype, y_dtype;
  bool residual, fresh, norm;
  Way way;
};

Shape random_shape(uint64_t seed) {
  std::mt19937 random(static_cast<unsigned>(seed));
  constexpr int64_t kWidths[] = {8, 64, 256, 1032, 2048, 7168, 9216};
  Shape s{};
  s.width = kWidths[random() % std::size(kWidths)];
  s.rows = random() % 3 == 0 ? 1 + random() % 3 : 1 + random() % 200;
  s.way = random() % 2 == 0 ? Way::kPost : Way::kMeet;
  if (s.way == Way::kMeet && random() % 2 == 0) s.rows += 400;
  s.rows_dtype = random() % 2 == 0 ? DType::kF32 : DType::kBF16;
  s.y_dtype = random() % 2 == 0 ? DType::kF32 : DType::kBF16;
  s.residual = random() % 3 != 0;
  s.fresh = random() % 3 == 0;
  s.norm = random() % 3 != 0;
  return s;
}

// Rows that this rank answers for by Way::kMeet.
std::pair<int64_t, int64_t> share_of(const Shape& s, int rank, int size) {
  if (s.way == Way::kPost) return {0, s.rows};
  const int64_t each = (s.rows + size - 1) / size;
  return {std::min(s.rows, each * rank), std::min(s.rows, each * (rank + 1))};
}

void check_sum(GpuGroup& group, Stream& stream, uint64_t seed) {
  const Shape s = random_shape(seed);
  const int64_t count = s.rows * s.width;
  const std::string what =
      fmt::format("seed {}: [{}, {}] rank {} of {}", seed, s.rows, s.width, group.rank(), group.size());
  const DeviceMatrix rows(s.rows_dtype, s.rows, s.width, values_of(seed, group.rank(), count, s.rows_dtype));
  const DeviceMatrix y(s.y_dtype, s.rows, s.width, 8);
  std::mt19937 random(7);
  const auto before = ops::cuda::random_floats(count, random);
  const auto weight = ops::cuda::random_floats(s.width, random);
  const DeviceArray<float> residual(before);
  const DeviceArray<float> factors(weight);
  ASSERT_TRUE(group.share(rows.view().data, count * device::size_of(s.rows_dtype)).ok());
  ASSERT_TRUE(group.share(y.view().data, s.rows * (s.width + 8) * device::size_of(s.y_dtype)).ok());
  SumArgs args;
  args.rows = rows.view();
  args.residual = s.residual ? residual.data() : nullptr;
  args.fresh = s.fresh;
  args.weight = s.norm ? factors.data() : nullptr;
  args.y = y.view();
  args.way = s.way;
  group.sum(stream, args);
  ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
  ASSERT_TRUE(group.state().ok()) << group.state().error().message;

  // On one GPU: the sum as the only rank's rows.
  const std::vector<float> sum = sum_of(seed, group.size(), count, s.rows_dtype);
  const DeviceArray<float> want_residual(s.fresh ? std::vector<float>(before.size(), 0.0F) : before);
  const DeviceMatrix delta(DType::kF32, s.rows, s.width, sum);
  const DeviceMatrix want(s.y_dtype, s.rows, s.width);
  const DeviceArray<float> nothing(std::vector<float>(before.size(), 0.0F));
  ops::cuda::add_rms_norm(stream, {.residual = s.residual ? want_residual.data() : nothing.data(),
                                   .delta = delta.view(),
                                   .weight = factors.data(),
                                   .eps = args.eps,
                                   .y = want.view()});
  ASSERT_TRUE(stream.synchronize().ok());
  const std::vector<float> added = s.residual ? want_residual.get() : sum;
  if (s.norm) {
    ops::cuda::expect_same(y.get(), want.get(), s.width, what);
  } else {
    ops::cuda::expect_same(y.get(), ops::cuda::rounded(s.y_dtype, added), s.width, what);
  }
  if (s.residual) {
    const auto [begin, end] = share_of(s, group.rank(), group.size());
    const auto got = residual.get();
    const auto cut = [&](const std::vector<float>& all) {
      return std::vector<float>(all.begin() + begin * s.width, all.begin() + end * s.width);
    };
    ops::cuda::expect_same(cut(got), cut(added), s.width, what + " residual");
  }
  ASSERT_TRUE(group.host().barrier().ok());
}

TEST(GpuGroup, SumsHaveTheBitsOfOneGpuByEitherWay) {
  FATHOM_GPUS_OR_SKIP();
  for (int size = 2; size <= device::cuda::gpu_count(); size *= 2) {
    run_ranks(size, kPatient, [](GpuGroup& group, Stream& stream) {
      for (uint64_t seed = 0; seed < 60; ++seed) check_sum(group, stream, seed);
    });
  }
}

TEST(GpuGroupOverNodes, SumsHaveTheBitsOfOneGpuByEitherWay) {
  FATHOM_NCCL_OR_SKIP();
  for (const int shift : {0, 1}) {
    run_nodes(device::cuda::gpu_count(), kPatient, shift, [](GpuGroup& group, Stream& stream) {
      for (uint64_t seed = 0; seed < 60; ++seed) check_sum(group, stream, seed);
    });
  }
}

// Each rank has rows of its own among all, perhaps none.
void check_own_rows(GpuGroup& group, Stream& stream) {
  const int size = group.size();
  std::mt19937 random(17);
  for (uint64_t round = 0; round < 30; ++round) {
    const int64_t width = round % 2 == 0 ? 7168 : 256;
    const auto places = static_cast<int64_t>(1 + random() % (round % 3 == 0 ? 500 : 40));
    std::vector<int64_t> counts;
    for (int r = 0; r < size; ++r)
      counts.push_back(static_cast<int64_t>(random() % static_cast<unsigned>(places + 1)));
    const int64_t mine = counts[static_cast<size_t>(group.rank())];
    const int64_t first = group.rank() * places;
    const int64_t all = size * places;
    const DeviceMatrix rows(DType::kF32, all, width,
                            values_of(round, group.rank(), all * width, DType::kF32));
    const DeviceMatrix y(DType::kBF16, places, width), want(DType::kBF16, places, width);
    std::mt19937 same(7);
    const auto before = ops::cuda::random_floats(places * width, same);
    const auto weight = ops::cuda::random_floats(width, same);
    const DeviceArray<float> residual(before), want_residual(before), factors(weight);
    ASSERT_TRUE(group.share(rows.view().data, all * width * 4).ok());
    SumArgs args;
    args.rows = rows.view().row_range(first, first + mine);
    args.residual = residual.data();
    args.weight = factors.data();
    args.y = y.view().first_rows(mine);
    group.sum_own(stream, args, {.most = places});
    ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
    const auto sum = sum_of(round, size, all * width, DType::kF32);
    const std::vector<float> own(sum.begin() + first * width, sum.begin() + (first + mine) * width);
    const DeviceMatrix delta(DType::kF32, mine, width, own);
    ops::cuda::add_rms_norm(stream, {.residual = want_residual.data(),
                                     .delta = delta.view(),
                                     .weight = factors.data(),
                                     .eps = args.eps,
                                     .y = want.view().first_rows(mine)});
    ASSERT_TRUE(stream.synchronize().ok());
    const std::string what = fmt::format("round {}", round);
    ops::cuda::expect_same(y.get(), want.get(), width, what);  // poison where no row is
    ops::cuda::expect_same(residual.get(), want_residual.get(), width, what + " residual");
    ASSERT_TRUE(group.host().barrier().ok());
  }
}

TEST(GpuGroup, ARankAddsItsOwnRows) {
  FATHOM_GPUS_OR_SKIP();
  for (int size = 2; size <= device::cuda::gpu_count(); size *= 2) run_ranks(size, kPatient, check_own_rows);
}

TEST(GpuGroupOverNodes, ARankAddsItsOwnRows) {
  FATHOM_NCCL_OR_SKIP();
  run_nodes(device::cuda::gpu_count(), kPatient, 0, check_own_rows);
}

// Lanes that have the same rows, and each a share of their residual: a sum by shares, and one of own rows.
void check_lanes(GpuGroup& world, GpuGroup& lanes, Stream& stream) {
  constexpr int64_t kWidth = 256, kPlaces = 20;
  const int group = world.rank() / lanes.size();
  const int groups = world.size() / lanes.size();
  for (uint64_t round = 0; round < 8; ++round) {
    const auto tokens = static_cast<int64_t>((round * 7 + static_cast<uint64_t>(group) * 3) % kPlaces);
    const auto size_all = groups * kPlaces * kWidth;
    const DeviceMatrix rows(DType::kF32, kPlaces, kWidth,
                            values_of(round, world.rank(), kPlaces * kWidth, DType::kF32));
    const DeviceMatrix all(DType::kF32, groups * kPlaces, kWidth,
                           values_of(round + 100, world.rank(), size_all, DType::kF32));
    const DeviceMatrix y(DType::kBF16, kPlaces, kWidth), want(DType::kBF16, kPlaces, kWidth);
    std::mt19937 same(static_cast<unsigned>(round));
    const auto before = ops::cuda::random_floats(kPlaces * kWidth, same);
    const auto weight = ops::cuda::random_floats(kWidth, same);
    const DeviceArray<float> residual(before), want_residual(before), factors(weight);
    for (GpuGroup* shared : {&lanes, &world}) {
      ASSERT_TRUE(shared->share(rows.view().data, kPlaces * kWidth * 4).ok());
      ASSERT_TRUE(shared->share(y.view().data, kPlaces * kWidth * 2).ok());
    }
    ASSERT_TRUE(world.share(all.view().data, size_all * 4).ok());
    SumArgs args;
    args.rows = rows.view().first_rows(tokens);
    args.residual = residual.data();
    args.weight = factors.data();
    args.y = y.view().first_rows(tokens);
    args.way = round % 2 == 0 ? Way::kMeet : Way::kPost;
    args.cut = kPlaces;
    lanes.sum(stream, args);
    const bool shares = lanes.share_of(args).has_value();
    ASSERT_EQ(shares, round % 2 == 0);
    args.rows = all.view().row_range(group * kPlaces, group * kPlaces + tokens);
    world.sum_own(stream, args, {.most = kPlaces, .lanes = lanes.size(), .shared_out = shares});
    ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
    ASSERT_TRUE(world.state().ok()) << world.state().error().message;

    // On one GPU, one sum after the other.
    std::vector<float> first(static_cast<size_t>(kPlaces * kWidth));
    for (int l = 0; l < lanes.size(); ++l) {
      const auto part = values_of(round, group * lanes.size() + l, kPlaces * kWidth, DType::kF32);
      for (size_t i = 0; i < first.size(); ++i) first[i] = l == 0 ? part[i] : first[i] + part[i];
    }
    const auto sum = sum_of(round + 100, world.size(), size_all, DType::kF32);
    const auto* own = sum.data() + group * kPlaces * kWidth;
    for (const auto& delta : {first, std::vector<float>(own, own + kPlaces * kWidth)}) {
      const DeviceMatrix added(DType::kF32, kPlaces, kWidth, delta);
      ops::cuda::add_rms_norm(stream, {.residual = want_residual.data(),
                                       .delta = added.view().first_rows(tokens),
                                       .weight = factors.data(),
                                       .eps = args.eps,
                                       .y = want.view().first_rows(tokens)});
      ASSERT_TRUE(stream.synchronize().ok());
    }
    ops::cuda::expect_same(y.get(), want.get(), kWidth, fmt::format("round {}", round));
    ASSERT_TRUE(world.host().barrier().ok());
  }
}

TEST(GpuGroupOverNodes, LanesShareTheirRows) {
  FATHOM_NCCL_OR_SKIP();
  const int lanes = 2;
  run_nodes(device::cuda::gpu_count() / lanes * lanes, kPatient, 0, [](GpuGroup& world, Stream& stream) {
    auto mine = world.split(world.rank() / lanes, "lanes", true).value();
    check_lanes(world, *mine, stream);
  });
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

TEST(GpuGroup, AGroupOfAGroupNamesRanksByTheirNumberInTheFirst) {
  if (device::cuda::gpu_count() < 1) GTEST_SKIP() << "no GPU";
  run_ranks(4, std::chrono::milliseconds(400), [](GpuGroup& world, Stream& stream) {
    auto pair = world.split(world.rank() / 2, "pair", true).value();
    const DeviceMatrix rows(DType::kF32, 1, 64, std::vector<float>(64, 1.0F));
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

void check_gathers(GpuGroup& group, Stream& stream) {
  const int size = group.size();
  std::mt19937 random(3);
  for (int round = 0; round < 30; ++round) {
    const DType dtype = round % 2 == 0 ? DType::kF32 : DType::kBF16;
    const bool columns = round % 3 != 0;
    const int64_t other = 1 + static_cast<int64_t>(random() % 40);
    std::vector<int64_t> ends{0};
    int64_t most = 0;
    for (int r = 0; r < size; ++r) {
      const auto part = static_cast<int64_t>(random() % (round < 10 ? 17 : 6000));
      ends.push_back(ends.back() + part);
      most = std::max(most, part * other);
    }
    const auto rank = static_cast<size_t>(group.rank());
    const int64_t rows = columns ? other : ends.back();
    const int64_t width = columns ? ends.back() : other;
    const auto all = values_of(static_cast<uint64_t>(round), 99, rows * width, dtype);
    // A rank has its own part; the rest is poisoned.
    auto mine = all;
    for (int64_t i = 0; i < rows * width; ++i) {
      const int64_t place = columns ? i % width : i / width;
      if (place < ends[rank] || place >= ends[rank + 1])
        mine[static_cast<size_t>(i)] = std::numeric_limits<float>::quiet_NaN();
    }
    const DeviceMatrix matrix(dtype, rows, width, mine);
    ASSERT_TRUE(group.share(matrix.view().data, rows * width * device::size_of(dtype)).ok());
    group.gather(stream,
                 columns ? matrix.view().slice(ends[rank], ends[rank + 1])
                         : matrix.view().row_range(ends[rank], ends[rank + 1]),
                 most);
    ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
    ops::cuda::expect_same(matrix.get(), all, width, fmt::format("round {}", round));
    ASSERT_TRUE(group.host().barrier().ok());
  }
}

TEST(GpuGroup, GathersPartsOfAnySize) {
  FATHOM_GPUS_OR_SKIP();
  for (int size = 2; size <= device::cuda::gpu_count(); size *= 2) run_ranks(size, kPatient, check_gathers);
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

// Pieces of any number and size between any two ranks.
void check_exchanges(GpuGroup& group, Stream& stream) {
  const int size = group.size();
  for (int round = 0; round < 10; ++round) {
    std::mt19937 random(static_cast<unsigned>(round));  // the same on all ranks
    struct Transfer {
      int from, to;
      int64_t begin, count;  // of 4 bytes
    };
    std::vector<Transfer> transfers;
    for (int i = 0; i < 12; ++i) {
      const int from = static_cast<int>(random() % static_cast<unsigned>(size));
      const int to = (from + 1 + static_cast<int>(random() % static_cast<unsigned>(size - 1))) % size;
      transfers.push_back({from, to, i * 20'000, static_cast<int64_t>(1 + random() % 20'000)});
    }
    const auto mine = values_of(7, group.rank(), 240'000, DType::kF32);
    const DeviceArray<float> from(mine), to(mine);
    std::vector<Piece> out, in;
    auto want = mine;
    for (const Transfer& t : transfers) {
      if (t.from == group.rank()) out.push_back({t.to, from.data() + t.begin, t.count * 4});
      if (t.to != group.rank()) continue;
      in.push_back({t.from, to.data() + t.begin, t.count * 4});
      const auto theirs = values_of(7, t.from, 240'000, DType::kF32);
      std::copy_n(theirs.begin() + t.begin, t.count, want.begin() + t.begin);
    }
    const auto done = group.exchange(stream, out, in);
    ASSERT_TRUE(done.ok()) << done.error().message;
    ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
    ops::cuda::expect_same(to.get(), want, 240'000, fmt::format("round {}", round));
  }
}

TEST(GpuGroup, ExchangesPieces) {
  FATHOM_GPUS_OR_SKIP();
  for (int size = 2; size <= device::cuda::gpu_count(); size *= 2) run_ranks(size, kPatient, check_exchanges);
}

TEST(GpuGroupOverNodes, ExchangesPieces) {
  FATHOM_NCCL_OR_SKIP();
  run_nodes(device::cuda::gpu_count(), kPatient, 1, check_exchanges);
}

__global__ void scale_kernel(const float* from, float factor, int64_t count, float* to) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i < count) to[i] = from[i] * factor;
}

// Graphs of sums by both ways, replayed in a random order without the host looking on; each result is the
// next one's input, so that a word which came late, or was left from before, stays in what comes out.
void check_replays(GpuGroup& group, Stream& stream) {
  constexpr int64_t kWidth = 1024, kRows = 96;
  constexpr int kReplays = 3000;
  const auto start = values_of(5, group.rank(), kRows * kWidth, DType::kF32);
  const DeviceArray<float> rows(start);
  const DeviceArray<float> sums(kRows * kWidth);
  ASSERT_TRUE(group.share(rows.data(), kRows * kWidth * 4).ok());
  ASSERT_TRUE(group.share(sums.data(), kRows * kWidth * 4).ok());
  const float factor = group.rank() == 0 ? 0.3F : 0.7F;
  constexpr int64_t kSizes[] = {1, 17, 96, 40};
  const auto step = [&](int64_t count, Way way) {
    SumArgs args;
    args.rows = Matrix(rows.data(), DType::kF32, count, kWidth);
    args.y = Matrix(sums.data(), DType::kF32, count, kWidth);
    args.way = way;
    group.sum(stream, args);
    scale_kernel<<<static_cast<unsigned>(count * kWidth / 256), 256, 0, stream.handle()>>>(
        sums.data(), factor, count * kWidth, rows.data());
    stream.launched("scale");
  };
  std::vector<device::cuda::Graph> graphs;
  for (size_t i = 0; i < std::size(kSizes); ++i) {
    graphs.push_back(std::move(device::cuda::Graph::capture(stream, [&] {
                       step(kSizes[i], i % 2 == 0 ? Way::kPost : Way::kMeet);
                       step(kSizes[i], Way::kPost);
                     })).value());
  }
  std::mt19937 random(11);
  std::vector<size_t> order;
  for (int i = 0; i < kReplays; ++i) order.push_back(random() % graphs.size());
  for (size_t i = 0; i < order.size(); ++i) {
    graphs[order[i]].launch(stream);
    // Ranks drift apart.
    if (i % 500 == 100 + static_cast<size_t>(group.rank()) * 30)
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
  }
  ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
  ASSERT_TRUE(group.state().ok()) << group.state().error().message;

  std::vector<float> zero = values_of(5, 0, kRows * kWidth, DType::kF32);
  std::vector<float> one = values_of(5, 1, kRows * kWidth, DType::kF32);
  for (const size_t g : order) {
    for (int twice = 0; twice < 2; ++twice) {
      for (int64_t i = 0; i < kSizes[g] * kWidth; ++i) {
        const float sum = zero[static_cast<size_t>(i)] + one[static_cast<size_t>(i)];
        zero[static_cast<size_t>(i)] = sum * 0.3F;
        one[static_cast<size_t>(i)] = sum * 0.7F;
      }
    }
  }
  ops::cuda::expect_same(rows.get(), group.rank() == 0 ? zero : one, kWidth, "after the replays");
}

TEST(GpuGroup, ReplayedGraphsKeepStep) {
  FATHOM_GPUS_OR_SKIP();
  run_ranks(2, kPatient, check_replays);
}

TEST(GpuGroupOverNodes, ReplayedGraphsKeepStep) {
  FATHOM_NCCL_OR_SKIP();
  run_nodes(2, kPatient, 1, check_replays);
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
