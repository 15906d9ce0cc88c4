// Speed of the dense projections on the shapes of DeepSeek-V2-Lite, each as a share of what the machine can
// do, probed directly before and after it.
//   ops_linear_bench [threads] [isa] [dtypes: bf16, f8, f32]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <string>
#include <vector>

#include "base/clock.h"
#include "device/cpu/probe.h"
#include "ops/linear/linear.h"

namespace fathom::ops {
namespace {

using device::DType;

struct Shape {
  const char* name;
  int64_t n, k;
};
constexpr Shape kShapes[] = {
    {"q", 3072, 2048},         {"kv_a", 576, 2048},         {"kv_b", 4096, 512},
    {"o", 2048, 2048},         {"dense up", 21888, 2048},   {"dense down", 2048, 10944},
    {"expert up", 2816, 2048}, {"expert down", 2048, 1408}, {"lm_head", 102400, 2048}};

struct Bench {
  ThreadPool& pool;
  device::Target target;
  device::BandwidthProbe probe;

  double bandwidth() { return probe.measure(pool, 2, 0.5); }
  double peak(bool bf16) { return measure_compute_peak(pool, target.isa, bf16, 2); }
};

void run_shape(Bench& bench, const Shape& shape, DType dtype) {
  const Compute compute = dtype == DType::kF32 ? Compute::kF32 : Compute::kBF16;
  device::Arena arena;
  device::Launch launch(bench.pool);
  // Enough copies that each call finds its weights in memory, not in a cache.
  const int64_t bytes = shape.n * shape.k * device::size_of(dtype);
  std::vector<PackedLinear> copies;
  while (copies.empty() || (bytes * static_cast<int64_t>(copies.size()) < (int64_t{200} << 20))) {
    copies.push_back(random_linear(bench.target, compute, dtype, shape.n, shape.k, 0.02F, copies.size(),
                                   arena, &bench.pool)
                         .value());
  }
  const LinearFunction linear = choose_linear(bench.target, dtype, compute);
  std::vector<float> x(static_cast<size_t>(512 * shape.k), 0.5F);
  std::vector<float> y(static_cast<size_t>(512 * shape.n));
  std::string line = fmt::format("{:12} {:8}", shape.name, to_string(dtype));
  for (const int64_t rows : {1, 2, 4, 16, 64, 512}) {
    if (rows * shape.n > (int64_t{512} * 22000)) continue;
    const LinearArgs args{device::Tensor(x.data(), DType::kF32, {rows, shape.k}),
                          device::Tensor(y.data(), DType::kF32, {rows, shape.n}), nullptr, false};
    const bool few = rows <= 16;
    std::vector<std::pair<double, double>> shares;  // share of the ceiling, rate
    for (int repeat = 0; repeat < 7; ++repeat) {
      const double before = few ? bench.bandwidth() : bench.peak(compute == Compute::kBF16);
      const int64_t start = steady_clock().now_ns();
      const double work = static_cast<double>(few ? bytes : 2 * rows * shape.n * shape.k);
      int64_t calls = 0;
      while (calls < 2 || (calls < static_cast<int64_t>(copies.size()) && seconds_since(start) < 0.05)) {
        LinearArgs call = args;
        call.weight = &copies[static_cast<size_t>(calls++) % copies.size()];
        linear(launch, call);
      }
      const double rate = work * static_cast<double>(calls) / seconds_since(start) * 1e-9;
      const double after = few ? bench.bandwidth() : bench.peak(compute == Compute::kBF16);
      const double share = rate / (0.5 * (before + after));
      shares.emplace_back(share, rate);
    }
    std::sort(shares.begin(), shares.end());
    const auto& [share, rate] = shares[shares.size() / 2];
    line += fmt::format("  M={}: {:.1f} ({:.0f}%)", rows, rate, 100 * share);
  }
  fmt::print("{}\n", line);
}

}  // namespace
}  // namespace fathom::ops

int main(int argc, char** argv) {
  using namespace fathom;
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const auto isa = device::choose_isa(argc > 2 ? argv[2] : "auto");
  const std::string dtypes = argc > 3 ? argv[3] : "bf16,f8";
  if (threads < 1 || !isa.ok()) {
    fmt::print(stderr, "usage: ops_linear_bench [threads] [isa] [dtypes]\n");
    return 2;
  }
  ThreadPool pool(threads);
  ops::Bench bench{pool, {device::DeviceKind::kCpu, *isa}, device::BandwidthProbe::create(pool).value()};
  fmt::print(
      "{} thread(s), {}: {:.1f} GB/s, {:.0f} GFLOP/s; up to M=16 in GB/s of weights, then in GFLOP/s\n",
      threads, to_string(*isa), bench.bandwidth(), bench.peak(true));
  for (const auto& shape : ops::kShapes) {
    if (dtypes.find("bf16") != std::string::npos) run_shape(bench, shape, device::DType::kBF16);
    if (dtypes.find("f8") != std::string::npos) run_shape(bench, shape, device::DType::kF8E4M3);
    if (dtypes.find("f32") != std::string::npos) run_shape(bench, shape, device::DType::kF32);
  }
  return 0;
}
