// Where a model's packed weights come from: a checkpoint, or deterministic random numbers that keep a real
// model's magnitudes. The model names what it needs; the supply finds, fuses and packs it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/result.h"
#include "base/thread_pool.h"
#include "device/arena.h"
#include "device/launch.h"
#include "device/tensor.h"
#include "ops/linear/linear.h"
#include "weights/checkpoint.h"
#include "weights/slice.h"

namespace fathom::weights {

// Rows [first_row, first_row + rows) and columns [first_col, first_col + cols) of a [n, k] matrix, or their
// transpose.
struct Part {
  std::string name;
  int64_t n = 0, k = 0;  // of the whole tensor
  int64_t first_row = 0;
  int64_t rows = 0;  // 0: all
  int64_t first_col = 0;
  int64_t cols = 0;  // 0: all
  bool transposed = false;
  bool shared = false;  // packed in several ways, which must agree
  // Random weights have the standard deviation gain / sqrt(k).
  float gain = 1.0F;

  int64_t num_rows() const { return rows != 0 ? rows : n; }
  int64_t num_cols() const { return cols != 0 ? cols : k; }
  Slice slice() const { return {first_row, num_rows(), first_col, num_cols()}; }
  bool whole() const { return slice().is_whole(n, k); }
};

// Not thread safe. Everything it returns lies in the arena that it was made with.
class WeightSupply {
 public:
  virtual ~WeightSupply() = default;

  // The parts stacked along n and packed. Parts of one tensor that are taken one after another are cheapest.
  virtual Result<ops::PackedLinear> linear(ops::Compute compute, std::span<const Part> parts) = 0;
  // [count] as float32. Random: mean + deviation * normal.
  virtual Result<const float*> vector(const std::string& name, int64_t count, float mean,
                                      float deviation) = 0;
  // Whole rows as they are stored: F32, BF16 or F16. Random: standard deviation gain.
  virtual Result<device::Tensor> table(const Part& part) = 0;
};

struct SupplyContext {
  device::Target target;
  device::Arena* arena = nullptr;
  ThreadPool* pool = nullptr;
  std::function<void(int64_t bytes)>
      taken;  // called with the bytes of each tensor that was read; may be null
  // Of a checkpoint: ask the disk for what lies behind the tensor that is read. Not where others read it.
  bool read_ahead = true;
};

// The checkpoint's tensors must have passed a WeightReader. It must outlive the supply. Of a part, its own
// bytes are read (Part::slice) and the scales of the blocks that it lies in.
std::unique_ptr<WeightSupply> make_checkpoint_supply(const Checkpoint& checkpoint, SupplyContext context);

// A cut matrix has other numbers than the whole one, but its parts are of one matrix.
//
// What a tensor of random weights is stored as: the model's dtype, or FP8 where its config says so.
using DtypeOf = std::function<device::DType(std::string_view name)>;
std::unique_ptr<WeightSupply> make_random_supply(uint64_t seed, DtypeOf dtype_of, SupplyContext context);

}  // namespace fathom::weights
