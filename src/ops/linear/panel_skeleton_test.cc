// The loops that all kernels share, in the shapes that the AVX-512 kernels give them, on plain C++ in place
// of their vectors: what can be checked of them on a processor that lacks those instructions.
#include "ops/linear/panel_kernel.h"

#include <gtest/gtest.h>

#include <bit>
#include <cstring>
#include <memory>

#include "ops/linear/rows.h"
#include "ops/linear/testing.h"

namespace fathom::ops {
namespace {

#define FATHOM_UNROLL
#include "ops/linear/f8_to_bf16.h"
#include "ops/linear/panel_skeleton.h"

TEST(F8ToBf16, IsExactForEveryMagnitude) {
  for (const int power : {0, -8}) {
    const F8Tables tables = make_f8_tables(power);
    for (unsigned code = 0; code < 0x7f; ++code) {  // 0x7f is refused when weights are packed
      const auto looked_up = static_cast<uint16_t>(tables.upper[code] << 8 | tables.lower[code]);
      ASSERT_EQ(device::bf16_to_f32(looked_up),
                std::ldexp(device::f8e4m3_to_f32(static_cast<uint8_t>(code)), power))
          << code;
    }
  }
}

uint32_t bf16_of(uint32_t code) {
  return f8_to_bf16(code & 0x7fU) | (code & 0x80U) << 8;
}

// As panel_avx512bf16.cc: 16 sums, operands of 16 bf16 pairs.
struct PlainDot {
  struct Vec {
    float v[16];
  };
  struct Operand {
    uint32_t v[16];
  };
  using Raw = Operand;
  static constexpr int kUnitK = 2;
  static constexpr int kMaxRows = 12;
  static constexpr int kMaxPanels = 2;
  static constexpr bool kPanelByPanel = false;
  static constexpr int kStreamPanels[5] = {0, 4, 4, 4, 4};
  static constexpr int64_t kFetchAhead = 1024;

  static Vec zero() { return {}; }
  static Vec load_sum(const float* p) {
    Vec v;
    std::memcpy(v.v, p, 64);
    return v;
  }
  static void store_sum(float* p, const Vec& v) { std::memcpy(p, v.v, 64); }
  static Raw load(const uint8_t* p) { return load_operand(p); }
  static Operand load_operand(const uint8_t* p) {
    Operand o;
    std::memcpy(o.v, p, 64);
    return o;
  }
  static void store_operand(uint8_t* p, const Operand& o) { std::memcpy(p, o.v, 64); }
  static uint32_t broadcast(const float* p) { return std::bit_cast<uint32_t>(*p); }
  [[gnu::noinline]] static Vec multiply_add(const Vec& sum, uint32_t unit, const Operand& w) {
    Vec out = sum;
    for (int i = 0; i < 16; ++i) {
      for (const int half : {0, 16}) {
        out.v[i] += device::bf16_to_f32(static_cast<uint16_t>(unit >> half)) *
                    device::bf16_to_f32(static_cast<uint16_t>(w.v[i] >> half));
      }
    }
    return out;
  }
};
struct PlainBf16 : PlainDot {
  static constexpr bool kScaled = false;
  static constexpr bool kUnpacks = false;
  static constexpr int kSteps = 1;
  static constexpr int64_t kSliceK = kAllK;
  template <int S>
  static Operand step(const Raw& raw) {
    return raw;
  }
};
struct PlainF8Exact {
  using Raw = PlainDot::Operand;
  static constexpr int kSteps = 2;
  static Raw load(const uint8_t* p) { return PlainDot::load_operand(p); }
  template <int S>
  static PlainDot::Operand step(const Raw& quads) {
    PlainDot::Operand pairs;
    for (int i = 0; i < 16; ++i) {
      pairs.v[i] = bf16_of(quads.v[i] >> 8 * S) | bf16_of(quads.v[i] >> (8 * S + 16)) << 16;
    }
    return pairs;
  }
};
// Wrong for tiny codes.
uint32_t quick_bf16_of(uint32_t code) {
  return ((code & 0x7fU) << 4) + (120U << 7) + ((code & 0x80U) << 8);
}
struct PlainF8 : PlainDot {
  using Exact = PlainF8Exact;
  static constexpr bool kScaled = true;
  static constexpr bool kUnpacks = true;
  static constexpr int kSteps = 2;
  static constexpr int64_t kSliceK = kAllK;
  static constexpr int64_t kUnpackBlocks = 2;
  static constexpr int64_t kAsideK = 512;
  template <int S>
  static Operand step(const Raw& quads) {
    Operand pairs;
    for (int i = 0; i < 16; ++i) {
      pairs.v[i] = quick_bf16_of(quads.v[i] >> 8 * S) | quick_bf16_of(quads.v[i] >> (8 * S + 16)) << 16;
    }
    return pairs;
  }
  static Vec scale_add(const Vec& y, const Vec& sum, const float* scales) {
    Vec out = y;
    for (int i = 0; i < 16; ++i) out.v[i] += sum.v[i] * scales[i];
    return out;
  }
};

void round_row(const float* x, int64_t k, int64_t k_padded, float* out, int64_t line_step) {
  for (int64_t i = 0; i < k_padded; i += 2) {
    const uint32_t low = i < k ? device::f32_to_bf16(x[i]) : 0;
    const uint32_t high = i + 1 < k ? device::f32_to_bf16(x[i + 1]) : 0;
    out[i / 32 * line_step + i % 32 / 2] = std::bit_cast<float>(low | high << 16);
  }
}

const PanelKernel kPlainBf16{"plain", device::Isa::kReference, multiply_panels<PlainBf16>, round_row, 2, 12,
                             false};
const PanelKernel kPlainF8{"plain", device::Isa::kReference, multiply_panels<PlainF8>, round_row, 2, 12,
                           false};

void multiply(const PanelKernel& kernel, const PackedLinear& w, const float* x, int64_t rows, float* y,
              int64_t y_stride, bool accumulate) {
  const int64_t block_rows = kernel.block_rows(rows);
  std::vector<float> prepared(prepared_bytes(kernel, rows, w.k) / sizeof(float));
  for (int64_t r = 0; r < rows; ++r) prepare_row(kernel, x + r * w.k, w.k, r, block_rows, prepared.data());
  PanelProduct p = product_of(kernel, w, {prepared.data(), block_rows}, rows, y, y_stride, accumulate);
  std::vector<std::byte> scratch(kPanelScratchBytes + 64);
  void* aligned = scratch.data();
  size_t space = scratch.size();
  p.scratch = static_cast<std::byte*>(std::align(64, kPanelScratchBytes, aligned, space));
  kernel.multiply(p);
}

TEST(PanelSkeleton, TilesOfTheWideKernelsAgreeWithTheOracleAndWithEachOther) {
  for (const device::DType dtype : {device::DType::kBF16, device::DType::kF8E4M3}) {
    const PanelKernel& kernel = dtype == device::DType::kBF16 ? kPlainBf16 : kPlainF8;
    for (const auto& [n, k] :
         {std::pair<int64_t, int64_t>{150, 200}, {16, 1100}, {33, 31}, {64, 640}, {5, 128}}) {
      const testing::StoredWeight stored(dtype, n, k, static_cast<uint64_t>(n));
      device::Arena arena;
      const PackedLinear w =
          pack_linear(device::Target{}, Compute::kBF16, {&stored.source(), 1}, arena).value();
      constexpr int64_t kRows = 210;
      // Values that bf16 holds exactly: then only the order of the additions may differ from the oracle.
      std::vector<float> x = testing::random_values(7, kRows * k, 1.0F);
      for (float& v : x) v = device::bf16_to_f32(device::f32_to_bf16(v));
      std::vector<float> alone(static_cast<size_t>(kRows * n));
      for (int64_t r = 0; r < kRows; ++r)
        multiply(kernel, w, x.data() + r * k, 1, alone.data() + r * n, n, false);
      for (const int64_t r : {int64_t{0}, kRows - 1}) {
        for (int64_t c = 0; c < n; ++c) {
          double sum = 0;
          double magnitude = 0;
          for (int64_t i = 0; i < k; ++i) {
            const double product = static_cast<double>(x[static_cast<size_t>(r * k + i)]) *
                                   static_cast<double>(packed_value(w, c, i));
            sum += product;
            magnitude += std::fabs(product);
          }
          ASSERT_NEAR(alone[static_cast<size_t>(r * n + c)], sum,
                      static_cast<double>(k + 8) * 0x1p-23 * magnitude);
        }
      }
      for (const int64_t rows : {2, 3, 4, 5, 11, 12, 13, 25, 32, 33, 100, 210}) {
        std::vector<float> y(static_cast<size_t>(rows * (n + 1)), testing::kPoison);
        multiply(kernel, w, x.data(), rows, y.data(), n + 1, false);
        for (int64_t r = 0; r < rows; ++r) {
          ASSERT_EQ(std::memcmp(&y[static_cast<size_t>(r * (n + 1))], &alone[static_cast<size_t>(r * n)],
                                static_cast<size_t>(n) * sizeof(float)),
                    0)
              << "rows " << rows << " row " << r << " n " << n << " k " << k;
          ASSERT_TRUE(std::isnan(y[static_cast<size_t>(r * (n + 1) + n)]));
        }
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops
