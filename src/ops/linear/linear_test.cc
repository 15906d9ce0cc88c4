// Every level of instructions against the oracle, and against itself: the bits of a row must not depend on
// the other rows, the number of threads or the way the outputs are stored.
#include <gtest/gtest.h>

#include <cstring>

#include "ops/linear/rows.h"
#include "ops/linear/testing.h"
#include "ops/test_size.h"

namespace fathom::ops {
namespace {

using device::Arena;
using device::DType;
using device::Launch;
using device::Target;
using device::Tensor;
using testing::available_targets;
using testing::kPoison;
using testing::random_values;
using testing::StoredWeight;

struct Case {
  DType dtype;
  Compute compute;
};

std::string name_of(const ::testing::TestParamInfo<Case>& info) {
  return std::string(device::to_string(info.param.dtype)) +
         (info.param.compute == Compute::kBF16 ? "_bf16_compute" : "_f32_compute");
}

// Rows of `k` (or n) values inside wider ones filled with NaN: what strays out of a row is seen.
struct Rows {
  Rows(int64_t rows, int64_t width, int64_t gap)
      : stride(width + gap),
        values(static_cast<size_t>(rows * stride + 1), kPoison),
        tensor(view(rows, width)) {}
  Rows(uint64_t seed, int64_t rows, int64_t width, int64_t gap) : Rows(rows, width, gap) {
    const std::vector<float> random = random_values(seed, rows * width, 1.0F);
    for (int64_t r = 0; r < rows; ++r) {
      std::memcpy(row(r), random.data() + r * width, static_cast<size_t>(width) * sizeof(float));
    }
  }
  float* row(int64_t r) { return values.data() + r * stride; }
  Tensor view(int64_t rows, int64_t width) {
    Tensor t(values.data(), DType::kF32, {rows, width});
    t.stride[0] = stride;
    return t;
  }
  bool gaps_untouched(int64_t rows, int64_t width) {
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = width; i < stride; ++i) {
        if (!std::isnan(row(r)[i])) return false;
      }
    }
    return std::isnan(values.back());
  }

  int64_t stride;
  std::vector<float> values;
  Tensor tensor;
};

// |error| of one output is at most `relative` times the sum of |x w| (and of |y| before), where float32
// chains of k additions give k 2^-24 at the very worst, and rounding the activations to bf16 (8 significant
// bits, to nearest) gives 2^-8 for each product.
double tolerance(const PanelKernel* kernel, int64_t k) {
  if (kernel == nullptr) return 0x1p-23;
  const double chain = static_cast<double>(k + 8) * 0x1p-24;
  return kernel->unit_k == 2 ? chain + 0x1p-8 : chain;
}

void expect_close(const PackedLinear& w, Rows& x, Rows& y, const std::vector<float>& before, int64_t rows,
                  const PanelKernel* kernel) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < w.n; ++c) {
      double sum = before.empty() ? 0.0 : before[static_cast<size_t>(r * w.n + c)];
      double magnitude = std::fabs(sum);
      for (int64_t k = 0; k < w.k; ++k) {
        const double product = static_cast<double>(x.row(r)[k]) * static_cast<double>(packed_value(w, c, k));
        sum += product;
        magnitude += std::fabs(product);
      }
      ASSERT_NEAR(y.row(r)[c], sum, tolerance(kernel, w.k) * magnitude + 1e-30)
          << "row " << r << " column " << c;
    }
  }
}

class Linear : public ::testing::TestWithParam<Case> {
 protected:
  PackedLinear pack(const Target& target, int64_t n, int64_t k, uint64_t seed) {
    stored_.push_back(std::make_unique<StoredWeight>(GetParam().dtype, n, k, seed));
    return pack_linear(target, GetParam().compute, {&stored_.back()->source(), 1}, arena_).value();
  }
  static LinearFunction choose(const Target& target, const PackedLinear& w) {
    return choose_linear(target, w.dtype, w.compute);
  }

  Arena arena_;
  std::vector<std::unique_ptr<StoredWeight>> stored_;
};

TEST_P(Linear, AgreesWithTheOracleOnRaggedShapes) {
  ThreadPool pool(2);
  Launch launch(pool);
  uint64_t seed = 1;
  for (const Target& target : available_targets()) {
    for (const auto& [rows, n, k] : std::vector<std::array<int64_t, 3>>{{1, 1, 1},
                                                                        {1, 16, 4},
                                                                        {2, 17, 5},
                                                                        {3, 70, 33},
                                                                        {4, 33, 129},
                                                                        {5, 130, 64},
                                                                        {6, 96, 300},
                                                                        {7, 1, 257},
                                                                        {11, 65, 31},
                                                                        {13, 48, 128},
                                                                        {16, 80, 160},
                                                                        {17, 15, 260},
                                                                        {31, 64, 96},
                                                                        {33, 40, 513},
                                                                        {47, 31, 384},
                                                                        {70, 100, 70},
                                                                        {200, 50, 131},
                                                                        {1, 200, 640},
                                                                        {2, 65, 384}}) {
      const PackedLinear w = pack(target, n, k, ++seed);
      SCOPED_TRACE(fmt::format("{} rows {} n {} k {}", to_string(target.isa), rows, n, k));
      Rows x(++seed, rows, k, 3);
      Rows y(rows, n, 5);
      choose(target, w)(launch, {x.tensor, y.tensor, &w, false});
      expect_close(w, x, y, {}, rows, choose_panel_kernel(target, w.dtype, w.compute));
      ASSERT_TRUE(y.gaps_untouched(rows, n));
    }
  }
}

TEST_P(Linear, AddsToWhatIsThere) {
  ThreadPool pool(2);
  Launch launch(pool);
  for (const Target& target : available_targets()) {
    for (const int64_t rows : {1, 3, 9, 40}) {
      SCOPED_TRACE(fmt::format("{} rows {}", to_string(target.isa), rows));
      const PackedLinear w = pack(target, 75, 280, 5);
      Rows x(6, rows, 280, 0);
      Rows y(7, rows, 75, 2);
      std::vector<float> before;
      for (int64_t r = 0; r < rows; ++r) before.insert(before.end(), y.row(r), y.row(r) + 75);
      choose(target, w)(launch, {x.tensor, y.tensor, &w, true});
      expect_close(w, x, y, before, rows, choose_panel_kernel(target, w.dtype, w.compute));
      ASSERT_TRUE(y.gaps_untouched(rows, 75));
    }
  }
}

TEST_P(Linear, EveryRowHasTheBitsItHasAlone) {
  constexpr int64_t kRows = 209;
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{150, 700}, {64, 512}, {33, 1030}}) {
    Rows x(11, kRows, k, 0);
    for (const Target& target : available_targets()) {
      if (target.isa == device::Isa::kReference) continue;  // takes row by row, and its time
      const PackedLinear w = pack(target, n, k, 12);
      const LinearFunction linear = choose(target, w);
      ThreadPool one(1);
      Launch alone(one);
      Rows expected(kRows, n, 0);
      for (int64_t r = 0; r < kRows; ++r) {
        linear(alone, {x.tensor.rows(r, r + 1), expected.tensor.rows(r, r + 1), &w, false});
      }
      for (const int threads : {1, 3}) {
        ThreadPool pool(threads);
        Launch launch(pool);
        for (const int64_t rows : {2, 3, 4, 5, 6, 7, 12, 13, 16, 17, 32, 33, 40, 65, 128, 209}) {
          Rows y(rows, n, 7);
          const int64_t first = kRows - rows;
          linear(launch, {x.tensor.rows(first, kRows), y.tensor, &w, false});
          for (int64_t r = 0; r < rows; ++r) {
            ASSERT_EQ(std::memcmp(y.row(r), expected.row(first + r), static_cast<size_t>(n) * sizeof(float)),
                      0)
                << to_string(target.isa) << " threads " << threads << " rows " << rows << " row " << r;
          }
        }
      }
    }
  }
}

// A NaN or an infinity reaches the outputs of its own row, all of them, and no other.
TEST_P(Linear, WhatIsNotFiniteStaysInItsRow) {
  ThreadPool pool(2);
  Launch launch(pool);
  for (const Target& target : available_targets()) {
    const PackedLinear w = pack(target, 50, 190, 21);
    for (const int64_t rows : {2, 8, 35}) {
      Rows x(22, rows, 190, 0);
      x.row(1)[189] = kPoison;
      Rows y(rows, 50, 0);
      choose(target, w)(launch, {x.tensor, y.tensor, &w, false});
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t c = 0; c < 50; ++c) ASSERT_EQ(std::isnan(y.row(r)[c]), r == 1) << to_string(target.isa);
      }
    }
  }
}

TEST_P(Linear, NoRowsIsNoWork) {
  ThreadPool pool(2);
  Launch launch(pool);
  for (const Target& target : available_targets()) {
    const PackedLinear w = pack(target, 20, 30, 31);
    float nothing = kPoison;
    choose(target, w)(
        launch, {Tensor(&nothing, DType::kF32, {0, 30}), Tensor(&nothing, DType::kF32, {0, 20}), &w, false});
    EXPECT_TRUE(std::isnan(nothing));
  }
}

TEST_P(Linear, HeadsOfABatchAreIndependent) {
  constexpr int64_t kHeads = 5;
  for (const auto& [n, k] : {std::pair<int64_t, int64_t>{64, 33}, {20, 128}, {130, 256}}) {
    for (const Target& target : available_targets()) {
      std::vector<PackedLinear> weights;
      for (int64_t h = 0; h < kHeads; ++h)
        weights.push_back(pack(target, n, k, static_cast<uint64_t>(40 + h)));
      const auto batched = choose_batched_linear(target, weights[0].dtype, weights[0].compute);
      for (const int threads : {1, 4}) {
        ThreadPool pool(threads);
        Launch launch(pool);
        for (const int64_t rows : {1, 2, 7, 40, 200}) {
          if (small_tests() && target.isa == device::Isa::kReference && rows > 7) continue;  // row by row
          SCOPED_TRACE(fmt::format("{} rows {} n {} k {}", to_string(target.isa), rows, n, k));
          Rows x(51, rows, kHeads * (k + 4), 1);  // heads k + 4 apart
          Rows y(rows, kHeads * (n + 2), 3);
          const auto heads_of = [&](Rows& r, int64_t width, int64_t step) {
            Tensor t(r.values.data(), DType::kF32, {rows, kHeads, width});
            t.stride[0] = r.stride;
            t.stride[1] = step;
            return t;
          };
          batched(launch, {heads_of(x, k, k + 4), heads_of(y, n, n + 2), weights});
          Rows one(rows, n, 0);
          for (int64_t h = 0; h < kHeads; ++h) {
            Tensor xh = x.tensor.columns(h * (k + 4), h * (k + 4) + k);
            const PackedLinear& w = weights[static_cast<size_t>(h)];
            choose(target, w)(launch, {xh, one.tensor, &w, false});
            for (int64_t r = 0; r < rows; ++r) {
              const float* got = y.row(r) + h * (n + 2);
              ASSERT_EQ(std::memcmp(got, one.row(r), static_cast<size_t>(n) * sizeof(float)), 0)
                  << "head " << h;
              ASSERT_TRUE(std::isnan(got[n]));
            }
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Weights, Linear,
                         ::testing::Values(Case{DType::kF32, Compute::kF32},
                                           Case{DType::kBF16, Compute::kF32},
                                           Case{DType::kF8E4M3, Compute::kF32},
                                           Case{DType::kBF16, Compute::kBF16},
                                           Case{DType::kF8E4M3, Compute::kBF16}),
                         name_of);

// FP8 values of every size, activations from tiny to huge: scaling by powers of two on the way must lose
// nothing.
// kBF16Weights keeps float32 activations wherever that is not out of all proportion.
TEST(LinearKernels, Bf16WeightsTakeWideActivationsButOnAmx) {
  for (const device::Isa isa : {device::Isa::kAvx2, device::Isa::kAvx512, device::Isa::kAvx512Bf16}) {
    const Target target{device::DeviceKind::kCpu, isa};
    for (const DType dtype : {DType::kBF16, DType::kF8E4M3}) {
      const PanelKernel* kernel = choose_panel_kernel(target, dtype, Compute::kBF16Weights);
      ASSERT_NE(kernel, nullptr);
      EXPECT_EQ(kernel->unit_k, 1) << kernel->name;
    }
  }
  const Target amx{device::DeviceKind::kCpu, device::Isa::kAmx};
  EXPECT_EQ(choose_panel_kernel(amx, DType::kBF16, Compute::kBF16Weights), &kAmxBf16);
}

TEST(LinearF8, KeepsPrecisionOverTheRangeOfActivations) {
  constexpr int64_t kDepth = 256;
  std::vector<uint8_t> codes(kDepth);
  for (int64_t i = 0; i < kDepth; ++i) codes[static_cast<size_t>(i)] = (i & 0x7f) == 0x7f ? 0 : i & 0xff;
  const float scales[] = {0.001F, 3.0F};
  WeightSource source{codes.data(), DType::kF8E4M3, 1, kDepth, kDepth, scales, 2, 0, 0, false};
  ThreadPool pool(1);
  Launch launch(pool);
  for (const Target& target : available_targets()) {
    for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
      Arena arena;
      const PackedLinear w = pack_linear(target, compute, {&source, 1}, arena).value();
      const PanelKernel* kernel = choose_panel_kernel(target, w.dtype, compute);
      for (int64_t k = 0; k < kDepth; ++k) {
        for (const float size : {1e-12F, 1e-5F, 1.0F, 1e4F, 1e12F}) {
          Rows x(1, kDepth, 0);
          for (int64_t i = 0; i < kDepth; ++i) x.row(0)[i] = i == k ? size : 0.0F;
          Rows y(1, 1, 0);
          choose_linear(target, w.dtype, compute)(launch, {x.tensor, y.tensor, &w, false});
          const double expected = static_cast<double>(size) * static_cast<double>(packed_value(w, 0, k));
          ASSERT_NEAR(y.row(0)[0], expected, tolerance(kernel, 1) * std::fabs(expected))
              << to_string(target.isa) << " code " << static_cast<int>(codes[static_cast<size_t>(k)])
              << " times " << size;
        }
      }
    }
  }
}

TEST(PanelPieces, CoverAllPanelsOnceLongestFirst) {
  for (const int64_t threads : {1, 2, 3, 16, 64}) {
    for (const int64_t panels : {1, 2, 5, 16, 36, 37, 128, 192, 1000, 6400}) {
      const PanelPieces pieces(panels, threads);
      ASSERT_EQ(pieces.first(0), 0);
      ASSERT_EQ(pieces.first(pieces.count()), panels);
      int64_t before = panels;
      for (int64_t i = 0; i < pieces.count(); ++i) {
        const int64_t size = pieces.first(i + 1) - pieces.first(i);
        ASSERT_GE(size, 1) << panels << " panels, " << threads << " threads, piece " << i;
        ASSERT_LE(size, before);
        const bool whole_groups = panels >= 8 * threads && i + 1 < pieces.count();
        ASSERT_EQ(whole_groups ? size % 4 : 0, 0);
        before = size;
      }
      ASSERT_LE(pieces.first(1), std::max(panels / (2 * threads), int64_t{1}));
    }
  }
}

}  // namespace
}  // namespace fathom::ops
