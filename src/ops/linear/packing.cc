// From the checkpoint's rows to panels.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>

#include "base/check.h"
#include "ops/linear/layout.h"
#include "ops/linear/linear.h"

namespace fathom::ops {
namespace {

using device::DType;

// The source as the packed weight sees it: columns of the packed weight, each with k values.
int64_t columns_of(const WeightSource& s) {
  return s.transposed ? s.k : s.n;
}
int64_t depth_of(const WeightSource& s) {
  return s.transposed ? s.n : s.k;
}

// Whether each block of 128 packed k lies in one block of the stored scales.
bool keeps_blocks(const WeightSource& s) {
  const int64_t first = (s.transposed ? s.first_row : s.first_col) % kScaleBlock;
  return first == 0 || first + depth_of(s) <= kScaleBlock;
}

float scale_at(const WeightSource& s, int64_t column, int64_t k) {
  if (s.scale_inv == nullptr) return 1.0F;
  const int64_t row = s.first_row + (s.transposed ? k : column);
  const int64_t col = s.first_col + (s.transposed ? column : k);
  return s.scale_inv[row / kScaleBlock * s.scale_stride + col / kScaleBlock];
}

// The type of the packed values when this source stood alone.
DType packed_dtype(const WeightSource& s, Compute compute) {
  const DType dequantised = compute == Compute::kF32 ? DType::kF32 : DType::kBF16;
  switch (s.dtype) {
    case DType::kF8E4M3:
      return keeps_blocks(s) ? DType::kF8E4M3 : dequantised;
    case DType::kBF16:
      return DType::kBF16;
    case DType::kF16:
    case DType::kF32:
      return dequantised;
    case DType::kF8E5M2:
    case DType::kI32:
      break;
  }
  FATHOM_CHECK(false, "a weight of {}", device::to_string(s.dtype));
  return DType::kF32;
}

DType stacked_dtype(std::span<const WeightSource> sources, Compute compute) {
  const DType first = packed_dtype(sources[0], compute);
  bool mixed = false;
  for (const auto& s : sources) mixed |= packed_dtype(s, compute) != first;
  if (!mixed) return first;
  return compute == Compute::kF32 ? DType::kF32 : DType::kBF16;
}

// One column of one source, and where it goes.
struct Column {
  const WeightSource* source = nullptr;
  int64_t index = 0;  // among the source's columns
};

struct Walk {
  int64_t first = 0;  // element of the source's data
  int64_t step = 1;
};
Walk walk(const Column& column) {
  const WeightSource& s = *column.source;
  return s.transposed ? Walk{column.index, s.row_stride} : Walk{column.index * s.row_stride, 1};
}

// Reads the column as float32, FP8 dequantised.
void read_column(const Column& column, float* out) {
  const WeightSource& s = *column.source;
  const int64_t depth = depth_of(s);
  const auto [first, step] = walk(column);
  switch (s.dtype) {
    case DType::kF32: {
      const auto* in = static_cast<const float*>(s.data) + first;
      for (int64_t k = 0; k < depth; ++k) out[k] = in[k * step];
      return;
    }
    case DType::kBF16: {
      const auto* in = static_cast<const uint16_t*>(s.data) + first;
      for (int64_t k = 0; k < depth; ++k) out[k] = device::bf16_to_f32(in[k * step]);
      return;
    }
    case DType::kF16: {
      const auto* in = static_cast<const uint16_t*>(s.data) + first;
      for (int64_t k = 0; k < depth; ++k) out[k] = device::f16_to_f32(in[k * step]);
      return;
    }
    default: {
      const auto* in = static_cast<const uint8_t*>(s.data) + first;
      for (int64_t k = 0; k < depth; ++k) {
        out[k] = device::f8e4m3_to_f32(in[k * step]) * scale_at(s, column.index, k);
      }
      return;
    }
  }
}

bool is_nan(uint8_t f8) {
  return (f8 & 0x7fU) == 0x7fU;
}

// False when the column holds a NaN.
bool pack_f8_column(const Column& column, uint8_t* out) {
  const int64_t depth = depth_of(*column.source);
  const auto [first, step] = walk(column);
  const auto* in = static_cast<const uint8_t*>(column.source->data) + first;
  bool nan = false;
  for (int64_t k = 0; k < depth; ++k) {
    const uint8_t value = in[k * step];
    nan |= is_nan(value);
    out[panel_offset(DType::kF8E4M3, k)] = value;
  }
  return !nan;
}

bool has_nan(const Column& column) {
  if (column.source->dtype != DType::kF8E4M3) return false;
  const auto [first, step] = walk(column);
  const auto* in = static_cast<const uint8_t*>(column.source->data) + first;
  bool nan = false;
  for (int64_t k = 0; k < depth_of(*column.source); ++k) nan |= is_nan(in[k * step]);
  return nan;
}

void pack_bf16_column(const Column& column, float* wide, uint16_t* out) {
  const int64_t depth = depth_of(*column.source);
  if (column.source->dtype == DType::kBF16) {
    const auto [first, step] = walk(column);
    const auto* in = static_cast<const uint16_t*>(column.source->data) + first;
    for (int64_t k = 0; k < depth; ++k) out[panel_offset(DType::kBF16, k)] = in[k * step];
    return;
  }
  read_column(column, wide);
  for (int64_t k = 0; k < depth; ++k) out[panel_offset(DType::kBF16, k)] = device::f32_to_bf16(wide[k]);
}

Column find_column(std::span<const WeightSource> sources, int64_t column) {
  for (const auto& s : sources) {
    if (column < columns_of(s)) return {&s, column};
    column -= columns_of(s);
  }
  FATHOM_CHECK(false, "column past the stack");
  return {};
}

// Fills one column; false when it holds what cannot be a weight (NaN in FP8, a scale that is not finite).
bool pack_column(const PackedLinear& packed, void* data, float* scales, std::span<const WeightSource> sources,
                 int64_t index, float* wide) {
  const Column column = find_column(sources, index);
  const int64_t base = index / kPanelColumns * kPanelColumns * packed.k_padded +
                       index % kPanelColumns * column_step(packed.dtype);
  if (packed.dtype == DType::kF8E4M3) {
    bool sound = pack_f8_column(column, static_cast<uint8_t*>(data) + base);
    for (int64_t b = 0; b * kScaleBlock < packed.k; ++b) {
      const float scale = scale_at(*column.source, column.index, b * kScaleBlock);
      sound &= std::isfinite(scale);
      scales[scale_index(packed.k, index, b * kScaleBlock)] = scale;
    }
    return sound;
  }
  if (packed.dtype == DType::kBF16) {
    pack_bf16_column(column, wide, static_cast<uint16_t*>(data) + base);
  } else {
    read_column(column, wide);
    auto* out = static_cast<float*>(data) + base;
    for (int64_t k = 0; k < packed.k; ++k) out[panel_offset(DType::kF32, k)] = wide[k];
  }
  return !has_nan(column);
}

}  // namespace

namespace {

// Among 64 codes. Eight at once: 0x78 and an exponent that is not 0 carry into the byte's highest bit.
bool has_tiny(const uint8_t* line) {
  uint64_t all = ~uint64_t{0};
  for (int i = 0; i < 64; i += 8) {
    uint64_t codes;
    std::memcpy(&codes, line + i, sizeof(codes));
    all &= (codes & 0x7878787878787878U) + 0x7878787878787878U;
  }
  return (all & 0x8080808080808080U) != 0x8080808080808080U;
}

}  // namespace

void mark_tiny(const uint8_t* panel, int64_t k, int64_t k_padded, float* record) {
  for (int64_t b = 0; b < scale_blocks(k); ++b) {
    uint32_t rows = 0;
    for (int64_t r = 0; r < std::min(kScaleBlock, k_padded - b * kScaleBlock) / 4; ++r, panel += 64) {
      rows |= static_cast<uint32_t>(has_tiny(panel)) << r;
    }
    std::memcpy(record + scale_blocks(k) * kPanelColumns + b, &rows, sizeof(rows));
  }
}

int64_t PackedLinear::scale_bytes() const {
  if (scales == nullptr) return 0;
  return n_padded / kPanelColumns * panel_record(k) * static_cast<int64_t>(sizeof(float));
}

Result<PackedLinear> pack_linear(const device::Target& /*target*/, Compute compute,
                                 std::span<const WeightSource> sources, device::Arena& arena,
                                 ThreadPool* pool) {
  FATHOM_CHECK(!sources.empty(), "nothing to pack");
  PackedLinear packed;
  packed.k = depth_of(sources[0]);
  for (const auto& s : sources) {
    FATHOM_CHECK_EQ(depth_of(s), packed.k);
    packed.n += columns_of(s);
  }
  packed.dtype = stacked_dtype(sources, compute);
  packed.compute = compute;
  packed.n_padded = round_up(packed.n, kPanelColumns);
  packed.k_padded = padded_k(packed.k);
  FATHOM_ASSIGN(std::byte * data, arena.allocate(static_cast<size_t>(packed.bytes())));
  float* scales = nullptr;
  if (packed.dtype == DType::kF8E4M3) {
    FATHOM_ASSIGN(scales,
                  arena.allocate_array<float>(packed.n_padded / kPanelColumns * panel_record(packed.k)));
  }
  packed.data = data;
  packed.scales = scales;

  std::atomic<int64_t> unsound{-1};
  const auto pack_panels = [&](int64_t begin, int64_t end, int /*worker*/) {
    std::vector<float> wide(static_cast<size_t>(packed.k));
    for (int64_t i = begin * kPanelColumns; i < std::min(end * kPanelColumns, packed.n); ++i) {
      if (!pack_column(packed, data, scales, sources, i, wide.data())) unsound.store(i);
    }
    for (int64_t p = begin; scales != nullptr && p < end; ++p) {
      mark_tiny(reinterpret_cast<const uint8_t*>(data) + p * kPanelColumns * packed.k_padded, packed.k,
                packed.k_padded, scales + p * panel_record(packed.k));
    }
  };
  const int64_t panels = packed.n_padded / kPanelColumns;
  if (pool != nullptr) {
    pool->parallel_for(panels, 4, pack_panels);
  } else {
    pack_panels(0, panels, 0);
  }
  if (unsound.load() >= 0) {
    return error(ErrorCode::kDataLoss,
                 "FP8 weight [{}, {}]: output {} holds a NaN or a scale that is not finite", packed.n,
                 packed.k, unsound.load());
  }
  return packed;
}

}  // namespace fathom::ops
