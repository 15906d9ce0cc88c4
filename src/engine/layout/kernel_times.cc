#include "engine/layout/kernel_times.h"

#include <algorithm>
#include <array>
#include <cmath>

#include "base/math.h"

namespace fathom::engine {
namespace {

// Beside what its weights take, a launch takes about this (docs/benchmarks.md, "What falls short").
constexpr double kLaunch = 4.0;
constexpr double kProcessors = 132;  // multiprocessors of an H100 and of an H200

struct Point {
  double rows, value;
};

// Between the points by the logarithm of rows, beyond them the nearest.
template <size_t N>
double at(const std::array<Point, N>& points, double rows) {
  if (rows <= points.front().rows) return points.front().value;
  for (size_t i = 1; i < N; ++i) {
    if (rows > points[i].rows) continue;
    const double share = std::log(rows / points[i - 1].rows) / std::log(points[i].rows / points[i - 1].rows);
    return points[i - 1].value + share * (points[i].value - points[i - 1].value);
  }
  return points.back().value;
}

// FP8 products with up to 16 rows: GB/s of weights where there are many (7168 x 16384, 36864 x 7168), and
// nanoseconds for each of k where there are few, since its products are a chain (2112 x 7168).
constexpr std::array<Point, 2> kFewRate = {{{1, 2480}, {16, 1760}}};
constexpr std::array<Point, 2> kFewChain = {{{1, 1.16}, {16, 1.74}}};
// 17 to 128 rows: nanoseconds for each of k that a multiprocessor takes for 64 rows of weights and all rows
// (7168 x 16384, 2112 x 7168, 24576 x 1536).
constexpr std::array<Point, 4> kTile = {{{16, 3.2}, {32, 3.85}, {64, 4.9}, {128, 5.8}}};
// Many rows: 7168 x 16384 at 4096.
constexpr double kManyTflops = 542;
constexpr double kBf16Tflops = 505;  // 3648 x 2048 at 4096 rows
// GB/s of an expert's weights by its rows, H100, products of 7168; those of 2048 are 4 % slower. One row
// reads as fast as four (ops/linear/README.md: 8 experts of one token, H200).
constexpr std::array<Point, 4> kExperts = {{{4, 2656}, {32, 1930}, {64, 1403}, {128, 1189}}};
// A tile costs as much as so many more of k: what makes products of 2048 take 4 % longer than those of 7168.
constexpr double kTileStart = 121;
constexpr double kMeasuredWidth = 7168;
constexpr double kH200Experts = 1.09;  // 2.9 TB/s instead of 2.66 with four rows an expert
constexpr double kH100Read = 3070;
// Of the read bandwidth, by products that only read (102400 x 2048).
constexpr double kReadShare = 0.95;

// mla_decode on an H100, us: at no context, and for each place; 16 and 128 heads.
struct Attention {
  double batch, begin16, place16, begin128, place128;
};
constexpr std::array kAttention = {
    Attention{1, 9.2, 0.0010, 19.7, 0.0050},
    Attention{16, 11.2, 0.0084, 33.9, 0.0086},
    Attention{64, 25.1, 0.0256, 29.5, 0.0356},
    Attention{128, 26.0, 0.0480, 54.0, 0.0679},
};
// A tile of 64 entries takes 3.14 us with 16 heads where memory sets the pace and 2.2 where it does not.
constexpr double kNarrowOwnPace = 2.2 / 3.14;
constexpr double kExtendTflops = 621;  // 128 heads, 4096 tokens

}  // namespace

KernelTimes::KernelTimes(const GpuKind& gpu) : read_gbs_(gpu.read_gbs.value) {}

double KernelTimes::linear_fp8(int64_t n, int64_t k, double rows) const {
  const auto width = static_cast<double>(k);
  const double weights = static_cast<double>(n) * width;
  if (rows <= 16) return kLaunch + std::max(weights / at(kFewRate, rows), width * at(kFewChain, rows)) * 1e-3;
  const double stripes = static_cast<double>(ceil_div<int64_t>(n, 64));
  if (rows <= 128) {
    const double waves = std::ceil(stripes / kProcessors);
    return kLaunch + std::max(waves * width * at(kTile, rows), weights / kFewRate.front().value) * 1e-3;
  }
  const double chain = width * kTile.back().value * 1e-3;
  return kLaunch + std::max(chain, 2e-6 * weights * rows / kManyTflops);
}

double KernelTimes::linear_bf16(int64_t n, int64_t k, double rows) const {
  const double weights = static_cast<double>(n) * static_cast<double>(k);
  return kLaunch + std::max(2e-3 * weights / (kReadShare * read_gbs_), 2e-6 * weights * rows / kBf16Tflops);
}

double KernelTimes::experts_fp8(std::span<const int32_t> rows, int64_t n, int64_t k) const {
  const double weights = static_cast<double>(n) * static_cast<double>(k);
  const double few = read_gbs_ > kH100Read ? kH200Experts : 1.0;
  const double narrow = (1 + kTileStart / kMeasuredWidth) / (1 + kTileStart / static_cast<double>(k));
  double us = 0.0;
  for (const int32_t r : rows) {
    if (r == 0) continue;
    // Tiles are at most 128 rows wide; an H200 reads faster while few rows leave time for it.
    const double tiles = std::max(1.0, r / kExperts.back().rows);
    const double gain = r <= 4 ? few : 1.0;
    us += tiles * weights / (at(kExperts, r) * gain * narrow) * 1e-3;
  }
  return us > 0 ? kLaunch + us : 0.0;
}

double KernelTimes::mla_decode(double batch, double context, int64_t heads) const {
  const auto pick = [&](double Attention::*field) {
    std::array<Point, kAttention.size()> points;
    for (size_t i = 0; i < points.size(); ++i) points[i] = {kAttention[i].batch, kAttention[i].*field};
    return at(points, batch);
  };
  const double more = std::max(1.0, batch / kAttention.back().batch);
  const double pace = std::max(kNarrowOwnPace, kH100Read / read_gbs_);
  // Up to 48 heads: tiles of 16, each of which reads the cache.
  if (heads <= 48) {
    const auto tiles = static_cast<double>(ceil_div<int64_t>(heads, 16));
    return pick(&Attention::begin16) + pick(&Attention::place16) * more * pace * tiles * context;
  }
  // Fewer than 128 heads gain nothing where few sequences leave multiprocessors idle.
  const double half = static_cast<double>(heads) / 128;
  const double share = at(std::array<Point, 2>{{{1, 1.0}, {64, half}}}, batch);
  return pick(&Attention::begin128) + pick(&Attention::place128) * more * share * context;
}

double KernelTimes::extend_attention(double tokens, double length, int64_t heads, int64_t query_dim,
                                     int64_t value_dim) const {
  const double pairs = tokens * length / 2;
  return kLaunch + 2e-6 * pairs * static_cast<double>(heads * (query_dim + value_dim)) / kExtendTflops;
}

// add_rms_norm takes 4.9 us for 128 rows, combining 8.1, sorting 256 rows 5.1, the gate 5.6; for one row
// about a launch each. For thousands of rows they read and write at the bandwidth.
double KernelTimes::norm(double rows) const {
  return kLaunch + 0.01 * rows;
}
double KernelTimes::attention_small(double rows) const {
  return 2 * kLaunch + 0.02 * rows;
}
double KernelTimes::moe_small(double rows) const {
  return 5 * kLaunch + 0.075 * rows;
}
double KernelTimes::dense_small(double rows) const {
  return kLaunch + 0.01 * rows;
}
double KernelTimes::sample(double rows) const {
  return kLaunch + 0.2 * rows;
}

}  // namespace fathom::engine
