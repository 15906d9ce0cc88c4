// Dummy weights: made fast (billions of them at every start), the same on every machine and thread count.
#include <algorithm>
#include <cmath>
#include <vector>

#include "base/random.h"
#include "ops/linear/layout.h"
#include "ops/linear/linear.h"
#include "ops/linear/random_panel_kernel.h"

namespace fathom::ops {
namespace {

using device::DType;

#include "ops/linear/random_panel.h"

// The sum of four random bytes: at most 510 from its mean, variance 4 * (256^2 - 1) / 12.
constexpr float kMost = 510.0F;
const float kSumDeviation = std::sqrt(4.0F * 65535.0F / 12.0F);

using FillPanel = void (*)(const RandomColumns&, DType, int64_t, uint8_t*);

FillPanel choose_fill([[maybe_unused]] const device::Target& target) {
#if defined(__x86_64__)
  if (target.isa >= device::Isa::kAvx2) return fill_random_panel_avx2;
#endif
  return fill_rows;
}

void clear_element(const PackedLinear& packed, uint8_t* panel, int64_t column, int64_t k) {
  const int64_t size = device::size_of(packed.dtype);
  uint8_t* element = panel + (panel_offset(packed.dtype, k) + column * column_step(packed.dtype)) * size;
  std::fill(element, element + size, uint8_t{0});
}

void clear_padding(const PackedLinear& packed, uint8_t* panel, int64_t columns) {
  for (int64_t c = 0; c < kPanelColumns; ++c) {
    for (int64_t k = c < columns ? packed.k : 0; k < packed.k_padded; ++k) clear_element(packed, panel, c, k);
  }
}

RandomColumns columns_of(uint64_t seed, int64_t first, float unit) {
  RandomColumns columns{};
  columns.unit = unit;
  for (int64_t c = 0; c < kPanelColumns; ++c) {
    const uint64_t key = random_bits(seed, 0, static_cast<uint64_t>(first + c));
    columns.first[c] = static_cast<uint32_t>(key);
    columns.second[c] = static_cast<uint32_t>(key >> 32);
  }
  return columns;
}

void fill(const PackedLinear& packed, std::byte* data, float* scales, float unit, uint64_t seed,
          FillPanel fill_panel, ThreadPool* pool) {
  const int64_t panel_bytes = kPanelColumns * packed.k_padded * device::size_of(packed.dtype);
  const auto fill_panels = [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t p = begin; p < end; ++p) {
      auto* panel = reinterpret_cast<uint8_t*>(data) + p * panel_bytes;
      fill_panel(columns_of(seed, p * kPanelColumns, unit), packed.dtype, panel_bytes / 64, panel);
      clear_padding(packed, panel, packed.n - p * kPanelColumns);
      if (scales != nullptr) mark_tiny(panel, packed.k, packed.k_padded, scales + p * panel_record(packed.k));
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

Result<PackedLinear> random_linear(const device::Target& target, Compute compute, DType dtype, int64_t n,
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
  float* scales = nullptr;
  if (dtype == DType::kF8E4M3) {
    const float scale = random_scale(stddev);
    const int64_t panels = packed.n_padded / kPanelColumns;
    FATHOM_ASSIGN(scales, arena.allocate_array<float>(panels * panel_record(k)));
    for (int64_t p = 0; p < panels; ++p) {
      std::fill_n(scales + p * panel_record(k), scale_blocks(k) * kPanelColumns, scale);
    }
    packed.scales = scales;
  }
  fill(packed, data, scales, stddev / kSumDeviation, seed, choose_fill(target), pool);
  return packed;
}

void random_row(const device::Target& target, DType dtype, int64_t k, float stddev, uint64_t seed,
                int64_t row, std::byte* out) {
  // As it were a panel: each of 16 columns gives 4 bytes of every 64.
  const RandomColumns columns = columns_of(seed, row * kPanelColumns, stddev / kSumDeviation);
  const FillPanel fill_panel = choose_fill(target);
  const int64_t bytes = k * device::size_of(dtype);
  auto* begin = reinterpret_cast<uint8_t*>(out);
  fill_panel(columns, dtype, bytes / 64, begin);
  if (bytes % 64 == 0) return;
  std::vector<uint8_t> whole(static_cast<size_t>(round_up(bytes, int64_t{64})));
  fill_panel(columns, dtype, static_cast<int64_t>(whole.size()) / 64, whole.data());
  std::copy(whole.begin() + bytes / 64 * 64, whole.begin() + bytes, begin + bytes / 64 * 64);
}

// The largest level lands on the largest FP8 value.
float random_scale(float stddev) {
  return stddev / kSumDeviation * (kMost / 448.0F);
}

}  // namespace fathom::ops
