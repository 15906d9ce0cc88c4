// Dummy weights: made fast (billions of them at every start), the same on every machine and thread count.
#include <array>
#include <cmath>

#include "base/random.h"
#include "ops/linear/f8_encode.h"
#include "ops/linear/layout.h"
#include "ops/linear/linear.h"

namespace fathom::ops {
namespace {

using device::DType;

// The sum of four random bytes, 0 .. 1020: mean 510, variance 4 * (256^2 - 1) / 12.
constexpr int kLevels = 1021;
constexpr float kMean = 510.0F;
const float kSumDeviation = std::sqrt(4.0F * 65535.0F / 12.0F);

// One hash serves the two elements (row, 2 i) and (row, 2 i + 1).
uint32_t level(uint64_t bits, int64_t col) {
  const auto half = static_cast<uint32_t>((col & 1) != 0 ? bits >> 32 : bits);
  const uint32_t pairs = (half & 0x00ff00ffU) + ((half >> 8) & 0x00ff00ffU);
  return (pairs & 0xffffU) + (pairs >> 16);
}

template <class T>
struct Levels {
  std::array<T, kLevels> value{};
};

template <class T>
void fill_column(const Levels<T>& levels, DType dtype, uint64_t row_seed, int64_t k, T* out) {
  for (int64_t i = 0; i < k; i += 2) {
    const uint64_t bits = mix64(row_seed + static_cast<uint64_t>(i) * 0x9e3779b97f4a7c15ULL);
    out[panel_offset(dtype, i)] = levels.value[level(bits, 0)];
    if (i + 1 < k) out[panel_offset(dtype, i + 1)] = levels.value[level(bits, 1)];
  }
}

template <class T, class Convert>
void fill(const PackedLinear& packed, void* data, float stddev, uint64_t seed, ThreadPool* pool,
          Convert convert) {
  Levels<T> levels;
  for (int i = 0; i < kLevels; ++i) {
    levels.value[static_cast<size_t>(i)] =
        convert((static_cast<float>(i) - kMean) * (stddev / kSumDeviation));
  }
  const auto fill_panels = [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t row = begin * kPanelColumns; row < end * kPanelColumns && row < packed.n; ++row) {
      auto* out = static_cast<T*>(data) + row / kPanelColumns * kPanelColumns * packed.k_padded +
                  row % kPanelColumns * column_step(packed.dtype);
      fill_column(levels, packed.dtype, random_bits(seed, 0, static_cast<uint64_t>(row)), packed.k, out);
    }
  };
  const int64_t panels = packed.n_padded / kPanelColumns;
  if (pool != nullptr) {
    pool->parallel_for(panels, 4, fill_panels);
  } else {
    fill_panels(0, panels, 0);
  }
}

}  // namespace

Result<PackedLinear> random_linear(const device::Target& /*target*/, Compute compute, DType dtype, int64_t n,
                                   int64_t k, float stddev, uint64_t seed, device::Arena& arena,
                                   ThreadPool* pool) {
  FATHOM_CHECK(dtype == DType::kF32 || dtype == DType::kBF16 || dtype == DType::kF8E4M3, "random {} weights",
               device::to_string(dtype));
  PackedLinear packed;
  packed.n = n;
  packed.k = k;
  packed.dtype = dtype;
  packed.compute = compute;
  packed.n_padded = round_up(n, kPanelColumns);
  packed.k_padded = padded_k(k);
  FATHOM_ASSIGN(std::byte * data, arena.allocate(static_cast<size_t>(packed.bytes())));
  packed.data = data;
  if (dtype == DType::kF8E4M3) {
    // The largest level lands on the largest FP8 value.
    const float scale = stddev * (kMean / kSumDeviation) / 448.0F;
    const int64_t count = ceil_div(k, kScaleBlock) * packed.n_padded;
    FATHOM_ASSIGN(float* scales, arena.allocate_array<float>(count));
    for (int64_t i = 0; i < count; ++i) scales[i] = scale;
    packed.scales = scales;
    fill<uint8_t>(packed, data, stddev, seed, pool, [scale](float v) { return f32_to_f8e4m3(v / scale); });
  } else if (dtype == DType::kBF16) {
    fill<uint16_t>(packed, data, stddev, seed, pool, device::f32_to_bf16);
  } else {
    fill<float>(packed, data, stddev, seed, pool, [](float v) { return v; });
  }
  return packed;
}

}  // namespace fathom::ops
