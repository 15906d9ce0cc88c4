// What a group of GPUs must do wherever they are (gpu_group_testing.h), against sums on the host.
#include <array>
#include <random>
#include <thread>

#include "device/cuda/graph.h"
#include "dist/cuda/gpu_group_testing.h"
#include "dist/reduce.h"
#include "ops/cuda_testing.h"
#include "ops/rms_norm/cuda.h"

namespace fathom::dist::cuda {

using device::DType;
using device::cuda::testing::DeviceArray;
using ops::cuda::DeviceMatrix;
using ops::cuda::Matrix;

namespace {

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

__global__ void scale_kernel(const float* from, float factor, int64_t count, float* to) {
  const int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x;
  if (i < count) to[i] = from[i] * factor;
}
// Launched with all the shared memory that a block may have.
__global__ void fill_multiprocessor(float* to) {
  extern __shared__ float held[];
  held[threadIdx.x] = static_cast<float>(blockIdx.x);
  __syncthreads();
  if (threadIdx.x == 0) to[blockIdx.x] = held[31];
}

}  // namespace

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

void check_answers(GpuGroup& group, Stream& stream) {
  std::mt19937 random(static_cast<unsigned>(23 + group.rank()));
  for (uint64_t round = 0; round < 48; ++round) {
    const int64_t width = round % 3 == 0 ? 7168 : 256, tokens = std::array{1, 3, 40, 300}[round % 4];
    const auto top_k = static_cast<int32_t>(std::array{8, 6, 4}[round / 4 % 3]);
    const DType dtype = round % 5 == 4 ? DType::kF32 : DType::kBF16;
    const auto matrix = [&](int64_t rows) {
      const std::vector<float> values = ops::cuda::random_floats(rows * width, random);
      return DeviceMatrix(dtype, rows, width, ops::cuda::rounded(dtype, values));
    };
    const DeviceMatrix answers = matrix(tokens * top_k), shared = matrix(tokens);
    const DeviceArray<float> weights(ops::cuda::random_floats(tokens * top_k, random));
    std::vector<int32_t> places, positions;
    for (int64_t i = 0; i < tokens * top_k; ++i)
      places.push_back(random() % 5 == 0 ? -1 : static_cast<int32_t>(random() % (tokens * top_k)));
    for (int64_t t = 0; t < tokens; ++t) positions.push_back(tokens > 2 && t % 7 == 2 ? -1 : 5);
    const DeviceArray<int32_t> device_places(places), device_positions(positions);
    const DeviceArray<float> factors(ops::cuda::random_floats(width, random));
    const DeviceMatrix zeros(DType::kF32, tokens, width, std::vector<float>(tokens * width, 0.0F));
    ASSERT_TRUE(group.share(zeros.view().data, tokens * width * 4).ok());
    ops::cuda::ExpertCombineArgs combine;
    combine.rows = answers.view();
    combine.weights = weights.data();
    combine.places = device_places.data();
    combine.positions = device_positions.data();
    combine.top_k = top_k;
    if (round % 2 == 0) combine.shared = shared.view();
    combine.y = zeros.view();
    // Answers added up within the sum, then before it (padding's rows are zeros by then, or still).
    std::vector<float> y[2], residual[2];
    for (const int turn : {0, 1}) {
      const DeviceMatrix out(dtype, tokens, width);
      ASSERT_TRUE(group.share(out.view().data, tokens * width * device::size_of(dtype)).ok());
      const DeviceArray<float> stream_rows(std::vector<float>(static_cast<size_t>(tokens * width), 0.5F));
      SumArgs args;
      args.rows = zeros.view();
      args.residual = stream_rows.data();
      args.weight = factors.data();
      args.y = out.view();
      if (turn == 0)
        args.answers = combine;
      else
        ops::cuda::expert_combine(stream, combine);
      const auto share = group.share_of(args).value_or(RowRange{0, tokens});
      group.sum(stream, args);
      ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
      ASSERT_TRUE(group.state().ok()) << group.state().error().message;
      y[turn] = out.get();
      residual[turn] = stream_rows.get();
      residual[turn].resize(static_cast<size_t>(share.end * width));
      residual[turn].erase(residual[turn].begin(), residual[turn].begin() + share.first * width);
      ASSERT_TRUE(group.host().barrier().ok());
    }
    const std::string what = fmt::format("round {}: {} tokens of {}, top {}", round, tokens, width, top_k);
    ops::cuda::expect_same(y[0], y[1], width, what);
    ops::cuda::expect_same(residual[0], residual[1], width, what + " residual");
  }
}

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

void check_room(GpuGroup& group, Stream& stream) {
  constexpr int64_t kRows = 96, kWidth = 256;
  constexpr uint64_t kSeed = 3;
  const DeviceMatrix rows(DType::kF32, kRows, kWidth,
                          values_of(kSeed, group.rank(), kRows * kWidth, DType::kF32));
  const DeviceMatrix sums(DType::kF32, kRows, kWidth);
  const DeviceArray<float> filled(stream.gpu().multiprocessors);
  for (const DeviceMatrix* shared : {&rows, &sums})
    ASSERT_TRUE(group.share(shared->view().data, kRows * kWidth * 4).ok());
  const auto bytes = static_cast<int>(stream.gpu().shared_bytes_per_block);
  ASSERT_EQ(cudaFuncSetAttribute(fill_multiprocessor, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes),
            cudaSuccess);
  ASSERT_TRUE(group.host().barrier().ok());

  if (group.rank() == group.size() - 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));  // the others' sums have begun
    fill_multiprocessor<<<static_cast<unsigned>(stream.gpu().multiprocessors), 32, bytes, stream.handle()>>>(
        filled.data());
    stream.launched("fill multiprocessors");
  }
  SumArgs args;
  args.rows = rows.view();
  args.y = sums.view();
  group.sum(stream, args);
  ASSERT_TRUE(stream.synchronize().ok()) << stream.status().error().message;
  ASSERT_TRUE(group.state().ok()) << group.state().error().message;
  ops::cuda::expect_same(sums.get(), sum_of(kSeed, group.size(), kRows * kWidth, DType::kF32), kWidth,
                         "sums");
}

}  // namespace fathom::dist::cuda
