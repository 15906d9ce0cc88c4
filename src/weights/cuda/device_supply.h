// Where a model's weights on the GPU come from: a checkpoint, read through pinned memory while the GPU packs
// what came before, or random numbers made on the GPU.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "base/thread_pool.h"
#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "ops/linear/cuda.h"
#include "ops/linear/linear.h"
#include "weights/checkpoint.h"
#include "weights/weight_supply.h"

namespace fathom::weights::cuda {

// Rows [first, first + rows) of a table as it is stored: the embedding.
struct Table {
  const void* data = nullptr;
  device::DType dtype = device::DType::kBF16;
  int64_t first = 0, rows = 0;
};

struct SupplyContext {
  const Checkpoint* checkpoint = nullptr;  // checked by a WeightReader; null: random numbers
  uint64_t seed = 0;
  DtypeOf dtype_of;  // of random weights
  device::cuda::Stream* stream = nullptr;
  device::cuda::DeviceArena* arena = nullptr;
  ThreadPool* pool = nullptr;
  std::function<void(int64_t bytes)> taken;  // may be null
  // Of a checkpoint: ask the disk for what lies behind the tensor that is read. Not where others read it.
  bool read_ahead = true;
};

// Not thread safe. What it returns lies in the arena; it is there once the stream has come so far.
class DeviceSupply {
 public:
  static Result<std::unique_ptr<DeviceSupply>> create(SupplyContext context);
  ~DeviceSupply();

  // One weight of `groups.size()` groups, each the stack of its parts; all groups have the same shape.
  // `turns`: the two parts of a group take turns of eight rows (gate and up). `fp8_x`: where the weight stays
  // FP8, it is for products with FP8 activations.
  Result<ops::cuda::Weight> linear(ops::Compute compute, std::span<const std::vector<Part>> groups,
                                   bool turns = false, bool fp8_x = false);
  // Group h is rows [first_row + h * step, + part.rows) of one tensor, or their transpose. A head's rows
  // begin at a multiple of `step`.
  Result<ops::cuda::Weight> heads(ops::Compute compute, const Part& part, int64_t heads, int64_t step);
  // A weight of one group and bfloat16 values once more, in FP8 (ops/linear/cuda_packing.h).
  Result<ops::cuda::Weight> fp8_copy(const ops::cuda::Weight& weight);
  Result<const float*> vector(const std::string& name, int64_t count, float mean, float deviation);
  // Numbers that are not the checkpoint's.
  Result<const int32_t*> upload(std::span<const int32_t> numbers);
  // Whole rows.
  Result<Table> table(const Part& part);

  // Waits for everything; kDataLoss when an FP8 weight was NaN or a scale not finite.
  Result<void> finish();

 private:
  struct State;
  explicit DeviceSupply(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace fathom::weights::cuda
