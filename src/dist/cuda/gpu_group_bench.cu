// Times the sums of a group of GPUs with residual and norm, by either way, at V3's width: microseconds in a
// replayed graph, beside the bytes over the link's measured bandwidth and, where libnccl.so.2 is found (or
// NCCL_LIBRARY names it), NCCL's all-reduce without the norm.
#include <dlfcn.h>
#include <fmt/core.h>

#include <barrier>
#include <cstdlib>
#include <functional>
#include <thread>

#include "device/cuda/graph.h"
#include "device/cuda/testing.h"
#include "dist/cuda/gpu_group.h"

namespace {

using namespace fathom;              // NOLINT
using namespace fathom::dist::cuda;  // NOLINT
using device::DType;
using device::cuda::DeviceBuffer;
using device::cuda::Graph;
using device::cuda::Stream;
using ops::cuda::Matrix;

constexpr int64_t kWidth = 7168;
constexpr int64_t kMostRows = 4096;
constexpr int kCalls = 40, kRepeats = 9;

// The part of NCCL's interface that is needed (nccl.h, version 2).
struct Nccl {
  using Comm = void*;
  int (*init_all)(Comm*, int, const int*) = nullptr;
  int (*all_reduce)(const void*, void*, size_t, int, int, Comm, cudaStream_t) = nullptr;
  static constexpr int kFloat32 = 7, kBfloat16 = 9, kSum = 0;

  static Nccl load() {
    Nccl nccl;
    const char* named = std::getenv("NCCL_LIBRARY");
    void* library = dlopen(named != nullptr ? named : "libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return nccl;
    nccl.init_all = reinterpret_cast<decltype(nccl.init_all)>(dlsym(library, "ncclCommInitAll"));
    nccl.all_reduce = reinterpret_cast<decltype(nccl.all_reduce)>(dlsym(library, "ncclAllReduce"));
    return nccl;
  }
};

DeviceBuffer numbers(size_t bytes) {
  auto buffer = std::move(DeviceBuffer::allocate(bytes)).value();
  // 0x3e3e3e3e: 0.186 as float32 and as bfloat16.
  FATHOM_CHECK(cudaMemset(buffer.data(), 0x3e, bytes) == cudaSuccess, "fill");
  return buffer;
}

struct Rank {
  GpuGroup* group = nullptr;
  std::unique_ptr<Stream> stream;
  DeviceBuffer rows, residual, weight, y;
  Nccl::Comm comm = nullptr;
};

// Median microseconds of one call on rank 0, all ranks replaying the same graph.
double time_us(std::vector<Rank>& ranks, const std::function<void(Rank&)>& queue) {
  std::vector<double> times(kRepeats);
  std::barrier gate(static_cast<ptrdiff_t>(ranks.size()));
  std::vector<std::thread> threads;
  for (auto& rank : ranks) {
    threads.emplace_back([&] {
      (void)device::cuda::open_gpu(rank.group->gpu()).value();
      queue(rank);
      FATHOM_CHECK(rank.stream->synchronize().ok(), "{}", rank.stream->status().error().message);
      gate.arrive_and_wait();
      auto captured = Graph::capture(*rank.stream, [&] {
        for (int i = 0; i < kCalls; ++i) queue(rank);
      });
      const Graph graph = std::move(captured).value();
      auto begun = std::move(device::cuda::Event::create(true)).value();
      auto ended = std::move(device::cuda::Event::create(true)).value();
      for (int repeat = -2; repeat < kRepeats; ++repeat) {
        gate.arrive_and_wait();
        graph.launch(*rank.stream);  // the ranks come together
        rank.stream->record(begun);
        graph.launch(*rank.stream);
        rank.stream->record(ended);
        FATHOM_CHECK(rank.stream->synchronize().ok(), "{}", rank.stream->status().error().message);
        if (repeat >= 0 && rank.group->rank() == 0)
          times[static_cast<size_t>(repeat)] = ended.seconds_since(begun).value() * 1e6 / kCalls;
      }
    });
  }
  for (auto& thread : threads) thread.join();
  FATHOM_CHECK(ranks[0].group->state().ok(), "{}", ranks[0].group->state().error().message);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

SumArgs sum_args(const Rank& rank, int64_t rows, DType dtype, Way way) {
  SumArgs args;
  args.rows = Matrix(rank.rows.data(), dtype, rows, kWidth);
  args.residual = static_cast<float*>(rank.residual.data());
  args.fresh = true;  // the stream does not run away
  args.weight = static_cast<const float*>(rank.weight.data());
  args.y = Matrix(rank.y.data(), DType::kBF16, rows, kWidth);
  args.way = way;
  return args;
}

}  // namespace

int main(int argc, char** argv) {
  const int size = argc > 1 ? std::atoi(argv[1]) : 2;
  if (device::cuda::gpu_count() < size) {
    fmt::print("{} GPUs are wanted, {} are there\n", size, device::cuda::gpu_count());
    return 0;
  }
  GpuGroupOptions options;
  for (int i = 0; i < size; ++i) options.gpus.push_back(i);
  options.timeout = std::chrono::seconds(30);
  auto groups = GpuGroup::create(options).value();
  std::vector<Rank> ranks(static_cast<size_t>(size));
  std::vector<std::thread> threads;
  for (size_t r = 0; r < ranks.size(); ++r) {
    threads.emplace_back([&, r] {
      Rank& rank = ranks[r];
      rank.group = groups[r].get();
      rank.stream = std::move(Stream::create(device::cuda::open_gpu(rank.group->gpu()).value())).value();
      rank.rows = numbers(kMostRows * kWidth * 4);
      rank.residual = numbers(kMostRows * kWidth * 4);
      rank.weight = numbers(kWidth * 4);
      rank.y = numbers(kMostRows * kWidth * 4);
      FATHOM_CHECK(rank.group->share(rank.rows.data(), kMostRows * kWidth * 4).ok(), "share");
      FATHOM_CHECK(rank.group->share(rank.y.data(), kMostRows * kWidth * 4).ok(), "share");
    });
  }
  for (auto& thread : threads) thread.join();

  const Nccl nccl = Nccl::load();
  const bool peer = nccl.init_all != nullptr && nccl.all_reduce != nullptr;
  if (peer) {
    std::vector<Nccl::Comm> comms(ranks.size());
    FATHOM_CHECK(nccl.init_all(comms.data(), size, options.gpus.data()) == 0, "ncclCommInitAll");
    for (size_t r = 0; r < ranks.size(); ++r) ranks[r].comm = comms[r];
  }

  // What the link carries one way, both ways busy: every rank sends all its rows to the others.
  const int64_t all = kMostRows * kWidth;
  const double link_us = time_us(ranks, [&](Rank& rank) {
    const auto each = all / size;
    rank.group->gather(
        *rank.stream,
        Matrix(static_cast<float*>(rank.rows.data()) + rank.group->rank() * each, DType::kF32, 1, each),
        each);
  });
  const double link = static_cast<double>(all / size * 4 * (size - 1)) / link_us * 1e-3;  // GB/s
  fmt::print("{} GPUs; a gather carries {:.0f} GB/s a direction\n", size, link);
  fmt::print("{:>6} {:>5} {:>9} {:>9} {:>9} {:>12}\n", "rows", "type", "floor us", "post us", "meet us",
             peer ? "nccl us" : "(no nccl)");
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int64_t rows : {1, 2, 4, 8, 16, 32, 64, 128, 256, 1024, 4096}) {
      const int64_t bytes = rows * kWidth * device::size_of(dtype);
      const auto sum = [&](Way way) {
        return time_us(ranks,
                       [&](Rank& rank) { rank.group->sum(*rank.stream, sum_args(rank, rows, dtype, way)); });
      };
      const std::string post =
          bytes <= GpuGroup::kMostPostBytes ? fmt::format("{:.1f}", sum(Way::kPost)) : "-";
      const double meet = sum(Way::kMeet);
      std::string theirs = "-";
      if (peer) {
        theirs = fmt::format(
            "{:.1f}", time_us(ranks, [&](Rank& rank) {
              rank.stream->note(
                  nccl.all_reduce(rank.rows.data(), rank.y.data(), static_cast<size_t>(rows * kWidth),
                                  dtype == DType::kF32 ? Nccl::kFloat32 : Nccl::kBfloat16, Nccl::kSum,
                                  rank.comm, rank.stream->handle()) == 0
                      ? cudaSuccess
                      : cudaErrorUnknown,
                  "ncclAllReduce");
            }));
      }
      // By meeting: a share of every rank's rows comes, and the others' bfloat16 rows of the norm.
      const double floor =
          static_cast<double>(size - 1) / size * static_cast<double>(bytes + rows * kWidth * 2) / link * 1e-3;
      fmt::print("{:>6} {:>5} {:>9.1f} {:>9} {:>9.1f} {:>12}\n", rows, dtype == DType::kF32 ? "f32" : "bf16",
                 floor, post, meet, theirs);
      std::fflush(stdout);
    }
  }
  return 0;
}
