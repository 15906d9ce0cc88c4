#include "engine/layout/kernel_times.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <numeric>

#include "base/math.h"

namespace fathom::engine {
namespace {

// Beside what its weights take, a launch takes about this (docs/benchmarks.md, "What limits batch 1").
constexpr double kLaunch = 4.0;

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

// FP8 products beside what their weights take: the next one brings its weights while this one ends.
constexpr double kProductStart = 1.3;
// GB/s of FP8 weights by stripes of 64 rows of them, each a multiprocessor's, and by rows of activations
// (2112 x 7168, 4096 x 7168, 7168 x 16384).
struct Stripes {
  double rows, few, some, many;
};
constexpr std::array kStripes = {
    Stripes{16, 2400, 2600, 2950},
    Stripes{64, 1670, 2750, 2950},
    Stripes{128, 1870, 2450, 2620},
};
// From 17 rows on a product costs as much as so many more of k (24576 x 1536).
constexpr double kShortSum = 200;
constexpr double kFewStripes = 33, kSomeStripes = 64, kManyStripes = 112;
// More rows: 512 and 4096 of all shapes; and nanoseconds for each of k, by 2112 x 7168 at 512 rows.
constexpr double kManyTflops = 1200;
constexpr double kChain = 2.1;
constexpr double kWidenedTflops = 542;  // activations as they are: 7168 x 16384 at 4096 rows
constexpr double kSortedRows = 512;     // from about so many on, tokens are gathered in the experts' order
constexpr double kGatedAtOnce = 16;     // rows whose gate's product, choice and sort are one launch
constexpr double kBf16Tflops = 505;     // 3648 x 2048 at 4096 rows
// GB/s of an expert's weights by its rows, H100, products of 7168; those of 2048 are 3 % slower.
constexpr std::array<Point, 4> kExperts = {{{4, 3000}, {16, 2945}, {64, 2845}, {128, 2700}}};
// A tile costs as much as so many more of k: 256 experts of 7168, 2048 and 1024, H200; and tiles of more rows
// than kWideTile, by products of 2048 and 7168 on an H100.
constexpr double kTileStart = 33, kWideTileStart = 90;
constexpr double kWideTile = 64;
constexpr double kMeasuredWidth = 7168;
// Tiles of up to kWideTile rows of tokens are of 64 of the weights. One by itself is read at this many GB/s
// (512 x 7168), and each of two CTAs of a multiprocessor takes so many us for one, however short its k (7168
// x 256; 256 experts, steps of one token, H200).
constexpr double kLoneTile = 47, kTileTurn = 1.5, kTilesAtOnce = 2 * 132;
// GB/s of the same weights for the further tiles of an expert's rows, which lie in the L2 cache.
constexpr double kTileAgain = 5000;

// Rows of a tile, by the rows of a group on average (ops/linear/wgmma_w8a8_sm90.cu).
double tile_rows(double average) {
  if (average > 192) return 256;
  if (average > 32) return 128;
  return std::max(8.0, std::exp2(std::ceil(std::log2(2 * average))));
}
// An H200 reads faster: 256 experts of 4096 x 7168 at 16 and 128 tokens, and 7168 x 16384 in a step of one
// (docs/benchmarks.md).
constexpr double kH200Experts = 1.42, kH200Products = 1.30;
// What a kernel of one token adds to a step, where it brings what it needs while the one before it runs: the
// norm of the queries' latent, and a rounding.
constexpr double kBrief = 1.7;
// Absorbed queries and values of 128 heads: us for each row beside the weights, and where rows are the most
// of it (512 x 128 and 128 x 512, 17 to 512 rows).
constexpr double kHeadsRow = 0.03, kHeadsManyRows = 0.066;
// What is before the layers and after the head: inputs and tokens brought and taken away, embedding, norms (a
// step of one token, H200).
constexpr double kEnds = 22;
constexpr double kH100Read = 3070;
// Of the read bandwidth, by products that only read (102400 x 2048).
constexpr double kReadShare = 0.95;

// mla_decode, us: at no context, and for each place; 16 heads and one sequence of 128 on an H100, more of
// 128, which the tensor cores bind, on an H200.
struct Attention {
  double batch, begin16, place16, begin128, place128;
};
constexpr std::array kAttention = {
    Attention{1, 6.4, 0.0007, 7.8, 0.0029},
    Attention{16, 12.3, 0.0065, 16.2, 0.0070},
    Attention{64, 15.6, 0.0239, 14.5, 0.0290},
    Attention{128, 13.2, 0.0475, 23.0, 0.0577},
};
// A tile of 64 entries takes 3.14 us with 16 heads where memory sets the pace and 2.2 where it does not.
constexpr double kNarrowOwnPace = 2.2 / 3.14;
// 128 heads, from so long a context on: us at once, and for each place of all sequences, which share the GPU.
constexpr double kLongContext = 16384, kLongStart = 27, kLongPlace = 0.00045;
// The same up to so many places of all, where none of its multiprocessors has more than one unit.
constexpr double kOneUnitEach = 131072, kOneUnitStart = 51, kOneUnitPlace = 0.00019;
constexpr double kExtendTflops = 621;  // 128 heads, 4096 tokens

}  // namespace

KernelTimes::KernelTimes(const GpuKind& gpu) : read_gbs_(gpu.read_gbs.value) {}

double KernelTimes::linear_fp8(int64_t n, int64_t k, double rows) const {
  const auto width = static_cast<double>(k);
  const double weights = static_cast<double>(n) * width;
  const auto stripes = static_cast<double>(ceil_div<int64_t>(n, 64));
  const auto pick = [&](double Stripes::*field) {
    std::array<Point, kStripes.size()> points;
    for (size_t i = 0; i < points.size(); ++i) points[i] = {kStripes[i].rows, kStripes[i].*field};
    return at(points, rows);
  };
  const std::array<Point, 3> rates = {{{kFewStripes, pick(&Stripes::few)},
                                       {kSomeStripes, pick(&Stripes::some)},
                                       {kManyStripes, pick(&Stripes::many)}}};
  // Fewer stripes than were measured: in proportion.
  const double faster = read_gbs_ > kH100Read ? kH200Products : 1.0;
  const double rate = at(rates, stripes) * std::min(1.0, stripes / kFewStripes) * faster;
  double us = weights / rate * 1e-3;
  if (rows > kStripes.front().rows) us *= 1 + kShortSum / width;
  if (rows > kStripes.back().rows) us = std::max(width * kChain * 1e-3, 2e-6 * weights * rows / kManyTflops);
  return kProductStart + us;
}

double KernelTimes::linear_fp8_widened(int64_t n, int64_t k, double rows) const {
  return kLaunch + 2e-6 * static_cast<double>(n * k) * rows / kWidenedTflops;
}

double KernelTimes::linear_bf16(int64_t n, int64_t k, double rows) const {
  const double weights = static_cast<double>(n) * static_cast<double>(k);
  return kLaunch + std::max(2e-3 * weights / (kReadShare * read_gbs_), 2e-6 * weights * rows / kBf16Tflops);
}

double KernelTimes::heads_fp8(int64_t heads, int64_t n, int64_t k, double rows) const {
  const double share = static_cast<double>(heads) / 128;
  const double read = 1e-3 * static_cast<double>(heads * n * k) / (kReadShare * read_gbs_);
  return kLaunch + std::max(read + kHeadsRow * share * rows, kHeadsManyRows * share * rows);
}

double KernelTimes::experts_fp8(std::span<const int32_t> rows, int64_t n, int64_t k) const {
  const double weights = static_cast<double>(n) * static_cast<double>(k);
  const double few = read_gbs_ > kH100Read ? kH200Experts : 1.0;
  const double total = std::accumulate(rows.begin(), rows.end(), 0.0);
  const double tile = tile_rows(std::ceil(total / static_cast<double>(rows.size())));
  const double start = tile > kWideTile ? kWideTileStart : kTileStart;
  const double narrow = (1 + start / kMeasuredWidth) / (1 + start / static_cast<double>(k));
  double us = 0.0, tiles = 0.0;
  for (const int32_t r : rows) {
    if (r == 0) continue;
    const double read = weights / (at(kExperts, std::min<double>(r, tile)) * few * narrow) * 1e-3;
    const double again = weights / kTileAgain * 1e-3;
    const double multiply = 2e-6 * weights * tile / kManyTflops;
    us += std::max(read, multiply) + (std::ceil(r / tile) - 1) * std::max(again, multiply);
    tiles += std::ceil(r / tile) * static_cast<double>(ceil_div<int64_t>(n, 64));
  }
  if (tiles > 0 && tile <= kWideTile) {
    us = std::max({us, 64e-3 * static_cast<double>(k) / kLoneTile, tiles * kTileTurn / kTilesAtOnce});
  }
  return us > 0 ? kProductStart + us : 0.0;
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
    return more * (pick(&Attention::begin16) + pick(&Attention::place16) * pace * tiles * context);
  }
  // Fewer than 128 heads gain nothing where few sequences leave multiprocessors idle.
  const double half = static_cast<double>(heads) / 128;
  if (context > kLongContext) {
    const double places = half * batch * context;
    return places > kOneUnitEach ? kLongStart + kLongPlace * places : kOneUnitStart + kOneUnitPlace * places;
  }
  const double share = at(std::array<Point, 2>{{{1, 1.0}, {64, half}}}, batch);
  return more * (pick(&Attention::begin128) + pick(&Attention::place128) * share * context);
}

double KernelTimes::extend_attention(double tokens, double length, int64_t heads, int64_t query_dim,
                                     int64_t value_dim) const {
  const double pairs = tokens * length / 2;
  return kLaunch + 2e-6 * pairs * static_cast<double>(heads * (query_dim + value_dim)) / kExtendTflops;
}

// add_rms_norm takes 4.9 us for 128 rows, combining 8.1, sorting 256 rows 5.1, the gate 5.6; for one row
// about a launch each. For 4096 rows (us, a prefill step's ledger): norm and rounding 150, rounding
// attention's output 170 and a dense MLP's 170, the experts' 150, rotation 56, the gate and its product 110,
// gathering 145, combining 267.
double KernelTimes::norm(double rows) const {
  return kLaunch + 0.036 * rows;
}
double KernelTimes::attention_small(double rows) const {
  // One token's norm is in the launch of the product before it, and up to 16 rows' rounding in the values'.
  const double launches = rows <= 1 ? 0 : rows <= kGatedAtOnce ? 1 : 2;
  return launches * kBrief + 0.06 * rows;
}
double KernelTimes::moe_small(double rows) const {
  const double launches = rows <= kGatedAtOnce ? 4 : 5;
  return launches * kLaunch + 2 * kProductStart + 0.075 * rows + 0.13 * std::max(0.0, rows - kSortedRows);
}
double KernelTimes::dense_small(double rows) const {
  return kLaunch + kProductStart + 0.08 * rows;
}
double KernelTimes::sample(double rows) const {
  return kLaunch + 0.2 * rows;
}
double KernelTimes::ends() const {
  return kEnds;
}

}  // namespace fathom::engine
