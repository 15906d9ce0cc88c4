#include "device/cpu/probe.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>

#include "base/math.h"
#include "device/cpu/probe_loops.h"

namespace fathom::device {
namespace {

using Clock = std::chrono::steady_clock;

// What the loops return goes here, so that no compiler may drop them.
std::atomic<double> sink{0};

double seconds_of(ThreadPool& pool, const std::function<void(int)>& body) {
  const auto start = Clock::now();
  pool.run(body);
  return std::chrono::duration<double>(Clock::now() - start).count();
}

constexpr int64_t kChunk = 1024;

uint64_t read_plain(const uint8_t* data, int64_t bytes) {
  uint64_t sum[8] = {};
  for (int64_t i = 0; i < bytes; i += 64) {
    uint64_t line[8];
    std::memcpy(line, data + i, 64);
    for (int j = 0; j < 8; ++j) sum[j] += line[j];
  }
  uint64_t all = 0;
  for (const uint64_t s : sum) all += s;
  return all;
}

float spin_plain(int64_t rounds) {
  float sum[8] = {};
  for (int64_t round = 0; round < rounds; ++round) {
    for (float& s : sum) s = s * 0.5F + 0.25F;
  }
  float all = 0;
  for (const float s : sum) all += s;
  return all;
}

struct Spin {
  float (*loop)(int64_t rounds);
  int64_t flops;  // of one round
};

Spin spin_for([[maybe_unused]] Isa isa, [[maybe_unused]] bool bf16) {
#if defined(__x86_64__)
  if (bf16 && isa >= Isa::kAmx) return {spin_tile_amx, kFlopsTileAmx};
  if (bf16 && isa >= Isa::kAvx512Bf16) return {spin_dot_avx512, kFlopsDotAvx512};
  if (isa >= Isa::kAvx512) return {spin_fma_avx512, kFlopsFmaAvx512};
  if (isa >= Isa::kAvx2) return {spin_fma_avx2, kFlopsFmaAvx2};
#endif
  return {spin_plain, 8 * 2};
}

}  // namespace

Result<BandwidthProbe> BandwidthProbe::create(ThreadPool& pool, size_t bytes) {
  BandwidthProbe probe;
  FATHOM_ASSIGN(probe.buffer_, Buffer::allocate(round_up(bytes, size_t{2} << 20)));
  // Written, because pages that were never touched all share one page of zeros, which a cache holds.
  const size_t part = round_up(probe.buffer_.size() / static_cast<size_t>(pool.size()), size_t{kChunk});
  pool.run([&](int worker) {
    const size_t begin = std::min(part * static_cast<size_t>(worker), probe.buffer_.size());
    const size_t end = std::min(begin + part, probe.buffer_.size());
    std::memset(probe.buffer_.data() + begin, worker + 1, end - begin);
  });
  return probe;
}

double BandwidthProbe::measure(ThreadPool& pool, int passes, double share) const {
  const auto total = static_cast<int64_t>(static_cast<double>(buffer_.size()) * share) / kChunk * kChunk;
  const int64_t part = round_up(total / pool.size(), kChunk);
  auto* read = detect_isa() >= Isa::kAvx2 ? read_avx2 : read_plain;
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const double seconds = seconds_of(pool, [&](int worker) {
      const int64_t begin = std::min(part * worker, total);
      const int64_t end = std::min(begin + part, total);
      sink.store(
          static_cast<double>(read(reinterpret_cast<const uint8_t*>(buffer_.data()) + begin, end - begin)),
          std::memory_order_relaxed);
    });
    best = std::max(best, static_cast<double>(total) / seconds * 1e-9);
  }
  return best;
}

Result<double> measure_read_bandwidth(ThreadPool& pool, int passes) {
  FATHOM_ASSIGN(const BandwidthProbe probe, BandwidthProbe::create(pool));
  return probe.measure(pool, passes);
}

double measure_compute_peak(ThreadPool& pool, Isa isa, bool bf16, int passes) {
  const Spin spin = spin_for(isa, bf16);
  const int64_t rounds = std::max<int64_t>(int64_t{400'000'000} / spin.flops, 1);
  double best = 0;
  for (int pass = 0; pass < passes; ++pass) {
    const double seconds = seconds_of(pool, [&](int /*worker*/) {
      sink.store(static_cast<double>(spin.loop(rounds)), std::memory_order_relaxed);
    });
    const double flops = static_cast<double>(rounds * spin.flops) * pool.size();
    best = std::max(best, flops / seconds * 1e-9);
  }
  return best;
}

}  // namespace fathom::device
