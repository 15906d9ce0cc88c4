// The masks that a step brings to the GPU, in pinned memory until they are there.
#pragma once

#include <cstdint>
#include <future>
#include <span>
#include <vector>

#include "base/result.h"
#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "engine/plan_wire.h"

namespace fathom::engine::cuda {

// As sample::cuda::SampleArgs reads them.
struct DeviceMasks {
  uint32_t* allowed = nullptr;  // [rows, ceil(V / 32)]
  int32_t* rows = nullptr;      // [rows] a choice's mask, or -1

  static Result<DeviceMasks> allocate(int64_t rows, int64_t vocab, device::cuda::DeviceArena& arena);
};

// A step's masks as rank 0 found them, for the ranks that keep none. Given once, perhaps empty: the step
// failed. Taken by other threads, who wait for it.
class FoundMasks {
 public:
  using Row = MaskRow;

  void give(std::vector<Row> rows);
  bool given() const { return given_; }  // rank 0's thread alone
  const std::vector<Row>& take() const { return rows_.get(); }

 private:
  bool given_ = false;
  std::promise<std::vector<Row>> promise_;
  std::shared_future<std::vector<Row>> rows_{promise_.get_future()};
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
