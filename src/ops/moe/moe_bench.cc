// Speed of one MoE layer of DeepSeek-V2-Lite (64 experts of 1408, 6 a token) as a share of what the machine
// can do, probed directly before and after: of the bandwidth for decode batches (GB/s of active experts'
// weights), of the compute peak for prefill.
//   ops_moe_bench [threads] [isa]
#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <set>
#include <vector>

#include "base/clock.h"
#include "base/random.h"
#include "device/cpu/probe.h"
#include "ops/moe/moe.h"

namespace fathom::ops {
namespace {

using device::DType;
using device::Tensor;

constexpr int64_t kExperts = 64, kChoices = 6, kHidden = 2048, kInner = 1408;
constexpr int kLayers = 2;  // taken in turns, so that no expert is found in a cache

struct Routing {
  std::vector<int32_t> ids;
  int64_t active = 0;
};

Routing uniform_routing(uint64_t seed, int64_t tokens) {
  Routing routing;
  std::set<int32_t> all;
  uint64_t counter = 0;
  for (int64_t t = 0; t < tokens; ++t) {
    std::set<int32_t> mine;
    while (mine.size() < kChoices) {
      const auto e = static_cast<int32_t>(random_bits(seed, 0, counter++) % kExperts);
      if (mine.insert(e).second) routing.ids.push_back(e);
    }
    all.insert(mine.begin(), mine.end());
  }
  routing.active = static_cast<int64_t>(all.size());
  return routing;
}

struct Layer {
  std::vector<PackedLinear> gate_up, down;
};

struct Bench {
  ThreadPool& pool;
  device::Target target;
  device::BandwidthProbe probe;

  double ceiling(bool few) {
    return few ? probe.measure(pool, 2, 0.5) : measure_compute_peak(pool, target.isa, true, 2);
  }
};

void run_tokens(Bench& bench, device::Launch& launch, const std::vector<Layer>& layers, DType dtype,
                int64_t tokens) {
  const bool few = tokens <= 16;
  const MoeFunction moe = choose_moe(bench.target, dtype, Compute::kBF16);
  std::vector<float> x(static_cast<size_t>(tokens * kHidden), 0.5F);
  std::vector<float> y(x.size());
  std::vector<float> weights(static_cast<size_t>(tokens * kChoices), 0.16F);
  std::vector<std::pair<double, double>> shares;  // share of the ceiling, rate
  for (uint64_t repeat = 0; repeat < 9; ++repeat) {
    Routing routing = uniform_routing(repeat, tokens);
    const Layer& layer = layers[repeat % layers.size()];
    const MoeArgs args{Tensor(x.data(), DType::kF32, {tokens, kHidden}),
                       Tensor(routing.ids.data(), DType::kI32, {tokens, kChoices}),
                       Tensor(weights.data(), DType::kF32, {tokens, kChoices}),
                       layer.gate_up,
                       layer.down,
                       Tensor(y.data(), DType::kF32, {tokens, kHidden}),
                       false};
    const double before = bench.ceiling(few);
    const int64_t start = steady_clock().now_ns();
    moe(launch, args);
    const double seconds = seconds_since(start);
    const double after = bench.ceiling(few);
    const int64_t values = 3 * kHidden * kInner;  // of one expert
    const double work = static_cast<double>(few ? routing.active * values * device::size_of(dtype)
                                                : 2 * tokens * kChoices * values);
    if (repeat > 0)
      shares.emplace_back(work / seconds * 1e-9 / (0.5 * (before + after)), work / seconds * 1e-9);
  }
  std::sort(shares.begin(), shares.end());
  const auto& [share, rate] = shares[shares.size() / 2];
  fmt::print("{:12} T={:<4} median {:.1f} {} ({:.0f}%), best {:.0f}%\n", to_string(dtype), tokens, rate,
             few ? "GB/s" : "GFLOP/s", 100 * share, 100 * shares.back().first);
}

void run_dtype(Bench& bench, DType dtype) {
  device::Arena arena;
  device::Launch launch(bench.pool);
  std::vector<Layer> layers(kLayers);
  uint64_t seed = 0;
  for (Layer& layer : layers) {
    for (int64_t e = 0; e < kExperts; ++e) {
      layer.gate_up.push_back(random_linear(bench.target, Compute::kBF16, dtype, 2 * kInner, kHidden, 0.02F,
                                            ++seed, arena, &bench.pool)
                                  .value());
      layer.down.push_back(random_linear(bench.target, Compute::kBF16, dtype, kHidden, kInner, 0.02F, ++seed,
                                         arena, &bench.pool)
                               .value());
    }
  }
  for (const int64_t tokens : {1, 4, 16, 64, 512}) run_tokens(bench, launch, layers, dtype, tokens);
}

}  // namespace
}  // namespace fathom::ops

int main(int argc, char** argv) {
  using namespace fathom;
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  const auto isa = device::choose_isa(argc > 2 ? argv[2] : "auto");
  if (threads < 1 || !isa.ok()) {
    fmt::print(stderr, "usage: ops_moe_bench [threads] [isa]\n");
    return 2;
  }
  ThreadPool pool(threads);
  ops::Bench bench{pool, {device::DeviceKind::kCpu, *isa}, device::BandwidthProbe::create(pool).value()};
  fmt::print("{} thread(s), {}\n", threads, to_string(*isa));
  ops::run_dtype(bench, device::DType::kBF16);
  ops::run_dtype(bench, device::DType::kF8E4M3);
  return 0;
}
