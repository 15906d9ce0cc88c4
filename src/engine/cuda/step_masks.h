// The masks that a step brings to the GPU, in pinned memory until they are there.
#pragma once

#include <cstdint>
#include <span>

#include "base/result.h"
#include "device/cuda/memory.h"
#include "device/cuda/stream.h"

namespace fathom::engine::cuda {

// As sample::cuda::SampleArgs reads them.
struct DeviceMasks {
  uint32_t* allowed = nullptr;  // [rows, ceil(V / 32)]
  int32_t* rows = nullptr;      // [rows] a choice's mask, or -1

  static Result<DeviceMasks> allocate(int64_t rows, int64_t vocab, device::cuda::DeviceArena& arena);
};

// Filled again for each step; not before the step that used it last has ended.
class StepMasks {
 public:
  static Result<StepMasks> allocate(int64_t rows, int64_t vocab);

  void clear();
  // The next choice of the step: any token may come, or those of TokenMask::fill's bits.
  void add_free_row();
  void add_row(std::span<const uint64_t> allowed);
  int64_t rows() const { return rows_; }
  // Queues the copies. Rows that were not added, a graph's padding, have no mask.
  void send(device::cuda::Stream& stream, const DeviceMasks& to);

 private:
  device::cuda::PinnedBuffer memory_;
  int64_t most_ = 0, words_ = 0;  // rows at most, words of a mask
  int64_t rows_ = 0, masks_ = 0;
  int32_t* row_masks_ = nullptr;
  uint32_t* allowed_ = nullptr;
};

}  // namespace fathom::engine::cuda
