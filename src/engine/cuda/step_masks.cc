#include "engine/cuda/step_masks.h"

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "base/math.h"

namespace fathom::engine::cuda {

Result<DeviceMasks> DeviceMasks::allocate(int64_t rows, int64_t vocab, device::cuda::DeviceArena& arena) {
  DeviceMasks masks;
  FATHOM_ASSIGN(masks.allowed, arena.allocate_array<uint32_t>(rows * ceil_div<int64_t>(vocab, 32)));
  FATHOM_ASSIGN(masks.rows, arena.allocate_array<int32_t>(rows));
  return masks;
}

void FoundMasks::give(std::vector<Row> rows) {
  given_ = true;
  promise_.set_value(std::move(rows));
}

Result<StepMasks> StepMasks::allocate(int64_t rows, int64_t vocab) {
  StepMasks masks;
  masks.most_ = rows;
  masks.words_ = ceil_div<int64_t>(vocab, 32);
  FATHOM_ASSIGN(masks.memory_,
                device::cuda::PinnedBuffer::allocate(static_cast<size_t>(rows * (masks.words_ + 1)) * 4));
  masks.row_masks_ = static_cast<int32_t*>(masks.memory_.data());
  masks.allowed_ = reinterpret_cast<uint32_t*>(masks.row_masks_ + rows);
  return masks;
}

void StepMasks::clear() {
  rows_ = masks_ = 0;
}

void StepMasks::add_free_row() {
  FATHOM_CHECK_LT(rows_, most_);
  row_masks_[rows_++] = -1;
}

void StepMasks::add_row(std::span<const uint64_t> allowed) {
  FATHOM_CHECK_LT(rows_, most_);
  // The lower half of a word comes first, so 64 bits are two words of 32.
  static_assert(std::endian::native == std::endian::little);
  FATHOM_CHECK_GE(static_cast<int64_t>(allowed.size()) * 2, words_);
  std::memcpy(allowed_ + masks_ * words_, allowed.data(), static_cast<size_t>(words_) * 4);
  row_masks_[rows_++] = static_cast<int32_t>(masks_++);
}

void StepMasks::send(device::cuda::Stream& stream, const DeviceMasks& to) {
  std::fill(row_masks_ + rows_, row_masks_ + most_, -1);
  stream.copy(to.rows, row_masks_, static_cast<size_t>(most_) * 4);
  stream.copy(to.allowed, allowed_, static_cast<size_t>(masks_ * words_) * 4);
}

}  // namespace fathom::engine::cuda
