#include "weights/cuda/device_supply.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <optional>

#include "base/math.h"
#include "ops/linear/cuda_packing.h"
#include "weights/read_ahead.h"
#include "weights/weight_reader.h"

namespace fathom::weights::cuda {

using device::DType;
using ops::cuda::PackPlan;
using ops::cuda::StoredRows;
using ops::cuda::Weight;

namespace {

constexpr int64_t kBlock = 128;
constexpr int64_t kSlotBytes = int64_t{64} << 20;
constexpr int64_t kScaleBytes = int64_t{4} << 20;
constexpr size_t kSlots = 4;
constexpr float kLargestF8 = 448.0F;

uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ULL;
  return hash;
}

}  // namespace

struct DeviceSupply::State {
  // A stretch of a tensor on its way: read into `pinned`, copied to `staged`, packed from there.
  struct Slot {
    device::cuda::PinnedBuffer pinned;
    device::cuda::DeviceBuffer staged;
    device::cuda::Event free;  // recorded when the last use of both is queued
    bool used = false;
  };

  explicit State(SupplyContext context_in) : context(std::move(context_in)) {
    if (context.checkpoint != nullptr && context.read_ahead) ahead.emplace(*context.checkpoint);
  }

  SupplyContext context;
  std::optional<ReadAhead> ahead;
  std::array<Slot, kSlots> slots;
  size_t next = 0;
  device::cuda::DeviceBuffer unsound;  // int32

  device::cuda::Stream& stream() { return *context.stream; }
  bool random() const { return context.checkpoint == nullptr; }

  DType stored(std::string_view name) const {
    if (!random()) return *at(name).dtype;
    const DType dtype = context.dtype_of(name);
    return dtype == DType::kF16 ? DType::kBF16 : dtype;  // random float16 weights are bfloat16 ones
  }

  const TensorView& at(std::string_view name) const {
    const TensorView* tensor = context.checkpoint->find(name);
    FATHOM_CHECK(tensor != nullptr && tensor->dtype.has_value(), "tensor {} was not checked", name);
    return *tensor;
  }

  Result<Slot*> take_slot() {
    Slot& slot = slots[next++ % kSlots];
    if (slot.used) FATHOM_TRY(slot.free.wait());
    slot.used = true;
    return &slot;
  }

  // Pieces of a tensor to the device, one behind the other, through the slot.
  void bring(Slot& slot, const TensorView& tensor, const ByteRanges& pieces, void* to) {
    constexpr int64_t kPiece = int64_t{1} << 20;
    auto* pinned = static_cast<std::byte*>(slot.pinned.data());
    if (pieces.count == 1) {
      context.pool->parallel_for(ceil_div(pieces.bytes, kPiece), 1, [&](int64_t from, int64_t end, int) {
        const auto count = static_cast<size_t>(std::min(end * kPiece, pieces.bytes) - from * kPiece);
        std::memcpy(pinned + from * kPiece, tensor.data + pieces.first + from * kPiece, count);
      });
    } else {
      context.pool->parallel_for(pieces.count, 64, [&](int64_t from, int64_t end, int) {
        for (int64_t i = from; i < end; ++i) {
          std::memcpy(pinned + i * pieces.bytes, tensor.data + pieces.first + i * pieces.step,
                      static_cast<size_t>(pieces.bytes));
        }
      });
    }
    stream().copy(to, pinned, static_cast<size_t>(pieces.total()));
  }

  // The block scales of an FP8 tensor, behind the slot's stretch.
  const float* bring_scales(Slot& slot, const Part& part) {
    const int64_t count = ceil_div(part.n, kBlock) * ceil_div(part.k, kBlock);
    auto* data = reinterpret_cast<float*>(static_cast<std::byte*>(slot.staged.data()) + kSlotBytes);
    if (random()) {
      ops::cuda::random_vector(stream(), data, count, 0, random_scale(part), 0.0F);
    } else {
      auto* pinned = static_cast<std::byte*>(slot.pinned.data()) + kSlotBytes;
      const auto bytes = static_cast<size_t>(count) * sizeof(float);
      std::memcpy(pinned, at(scale_name(part.name)).data, bytes);
      stream().copy(data, pinned, bytes);
    }
    return data;
  }

  // With the draws bounded by 3.5 deviations, one scale serves every block.
  static float random_scale(const Part& part) {
    return part.gain / std::sqrt(static_cast<float>(part.k)) * 3.5F / kLargestF8;
  }

  // Stretches of rows of the part's columns, each packed by `pack` once it is on the device.
  Result<void> stage(const Part& part, int64_t first, int64_t rows, int64_t unit,
                     const std::function<void(const StoredRows&)>& pack) {
    StoredRows stretch;
    stretch.dtype = stored(part.name);
    stretch.k = part.num_cols();
    stretch.first_col = part.first_col;
    stretch.scale_columns = ceil_div(part.k, kBlock);
    const int64_t row_bytes = stretch.k * device::size_of(stretch.dtype);
    const bool fp8 = stretch.dtype == DType::kF8E4M3;
    const int64_t scale_bytes = ceil_div(part.n, kBlock) * stretch.scale_columns * 4;
    if (unit * row_bytes > kSlotBytes || (fp8 && scale_bytes > kScaleBytes)) {
      return error(ErrorCode::kUnsupported, "{}: {} rows of {} bytes are more than the loader takes at once",
                   part.name, unit, row_bytes);
    }
    const int64_t step = kSlotBytes / row_bytes / unit * unit;
    for (int64_t row = first; row < first + rows; row += step) {
      stretch.row_begin = row;
      stretch.row_end = std::min(row + step, first + rows);
      FATHOM_ASSIGN(Slot * slot, take_slot());
      stretch.data = slot->staged.data();
      const Slice slice{stretch.row_begin, stretch.row_end - stretch.row_begin, part.first_col, stretch.k};
      if (random()) {
        ops::cuda::random_rows(stream(), slot->staged.data(), stretch.dtype,
                               {stretch.row_begin, stretch.row_end, part.first_col, stretch.k, part.k},
                               context.seed ^ hash_name(part.name),
                               part.gain / std::sqrt(static_cast<float>(part.k)), random_scale(part));
      } else {
        if (ahead) ahead->reading(at(part.name));
        bring(*slot, at(part.name), byte_ranges(slice, part.k, stretch.dtype), slot->staged.data());
      }
      if (fp8) stretch.scales = bring_scales(*slot, part);
      pack(stretch);
      stream().record(slot->free);
    }
    if (context.taken) context.taken(rows * row_bytes);
    return {};
  }

  // What the weight's values are kept as: F16 and F32 become BF16 under Compute::kBF16 and F32 under kF32.
  DType kept(const Part& part, ops::Compute compute) const {
    const DType dequantised = compute == ops::Compute::kBF16 ? DType::kBF16 : DType::kF32;
    const DType type = stored(part.name);
    if (type == DType::kBF16) return type;
    if (type != DType::kF8E4M3) return dequantised;
    // Eight rows and 128 columns of the weight must lie in one stored block.
    const auto in_blocks = [](int64_t first, int64_t count) {
      return first % kBlock == 0 || first % kBlock + count <= kBlock;
    };
    const int64_t rows = part.num_rows();
    const bool blocks = part.transposed ? in_blocks(part.first_row, rows)
                                        : part.first_row % 8 == 0 && rows % 8 == 0 &&
                                              in_blocks(part.first_col, part.num_cols());
    return blocks ? type : dequantised;
  }

  Result<Weight> make(DType dtype, int64_t groups, int64_t n, int64_t k) {
    Weight weight;
    weight.dtype = dtype;
    weight.n = n;
    weight.k = k;
    weight.k_stride = round_up<int64_t>(k, 16);
    weight.groups = groups;
    const auto bytes = static_cast<size_t>(groups * weight.group_bytes());
    FATHOM_ASSIGN(void* data, context.arena->allocate(bytes));
    if (weight.k_stride != k) stream().fill(data, 0, bytes);
    weight.data = data;
    if (dtype == DType::kF8E4M3) {
      FATHOM_ASSIGN(weight.scales, context.arena->allocate_array<float>(groups * weight.scales_per_group()));
    }
    return weight;
  }
};

DeviceSupply::DeviceSupply(std::unique_ptr<State> state) : state_(std::move(state)) {}
DeviceSupply::~DeviceSupply() = default;

Result<std::unique_ptr<DeviceSupply>> DeviceSupply::create(SupplyContext context) {
  auto state = std::make_unique<State>(std::move(context));
  for (auto& slot : state->slots) {
    if (!state->random()) {
      FATHOM_ASSIGN(slot.pinned, device::cuda::PinnedBuffer::allocate(kSlotBytes + kScaleBytes));
    }
    FATHOM_ASSIGN(slot.staged, device::cuda::DeviceBuffer::allocate(kSlotBytes + kScaleBytes));
    FATHOM_ASSIGN(slot.free, device::cuda::Event::create());
  }
  FATHOM_ASSIGN(state->unsound, device::cuda::DeviceBuffer::allocate(sizeof(int32_t)));
  state->stream().fill(state->unsound.data(), 0, sizeof(int32_t));
  return std::unique_ptr<DeviceSupply>(new DeviceSupply(std::move(state)));
}

Result<Weight> DeviceSupply::linear(ops::Compute compute, std::span<const std::vector<Part>> groups,
                                    bool turns, bool fp8_x) {
  State& s = *state_;
  const std::vector<Part>& shape = groups.front();
  int64_t n = 0;
  DType dtype = s.kept(shape.front(), compute);
  for (const Part& part : shape) n += part.num_rows();
  for (const auto& group : groups) {
    for (const Part& part : group) {
      if (s.kept(part, compute) != dtype) dtype = compute == ops::Compute::kBF16 ? DType::kBF16 : DType::kF32;
    }
  }
  FATHOM_ASSIGN(Weight weight,
                s.make(dtype, static_cast<int64_t>(groups.size()), n, shape.front().num_cols()));
  weight.fp8_x = fp8_x && dtype == DType::kF8E4M3;
  // Whether 128 rows of the weight (64 of each part, in turns) come from one row of stored blocks.
  weight.paired_scales = weight.fp8_x;
  for (const auto& group : groups) {
    int64_t offset = 0;
    for (const Part& part : group) {
      if (part.first_row % (turns ? kBlock / 2 : kBlock) != 0 || offset % kBlock != 0)
        weight.paired_scales = false;
      if (!turns) offset += part.num_rows();
    }
  }
  for (size_t g = 0; g < groups.size(); ++g) {
    PackPlan plan;
    plan.weight = weight;
    plan.first_group = static_cast<int64_t>(g);
    for (size_t i = 0; i < groups[g].size(); ++i) {
      const Part& part = groups[g][i];
      FATHOM_CHECK(!part.transposed && part.num_cols() == weight.k && part.num_rows() == shape[i].num_rows(),
                   "{}: groups of different shapes", part.name);
      plan.first_row = part.first_row;
      plan.rows = part.num_rows();
      plan.turn = turns ? static_cast<int>(i) : -1;
      FATHOM_TRY(s.stage(part, part.first_row, plan.rows, 8, [&](const StoredRows& rows) {
        ops::cuda::pack_rows(s.stream(), rows, plan, static_cast<int32_t*>(s.unsound.data()));
      }));
      if (!turns) plan.offset += plan.rows;
    }
  }
  return weight;
}

Result<Weight> DeviceSupply::heads(ops::Compute compute, const Part& part, int64_t heads, int64_t step) {
  State& s = *state_;
  DType dtype = s.kept(part, compute);
  // Every head must keep its blocks.
  for (int64_t h = 1; h < heads; ++h) {
    Part head = part;
    head.first_row += h * step;
    if (s.kept(head, compute) != dtype) dtype = compute == ops::Compute::kBF16 ? DType::kBF16 : DType::kF32;
  }
  const int64_t rows = part.num_rows();
  FATHOM_ASSIGN(const Weight weight,
                part.transposed ? s.make(dtype, heads, part.k, rows) : s.make(dtype, heads, rows, part.k));
  PackPlan plan;
  plan.weight = weight;
  plan.first_row = part.first_row;
  plan.rows = rows;
  plan.group_step = step;
  plan.groups = heads;
  plan.transposed = part.transposed;
  // Whole heads, from the first one's first row on.
  const int64_t first = part.first_row / step * step;
  FATHOM_TRY(s.stage(part, first, heads * step, step, [&](const StoredRows& stored) {
    ops::cuda::pack_rows(s.stream(), stored, plan, static_cast<int32_t*>(s.unsound.data()));
  }));
  return weight;
}

Result<Weight> DeviceSupply::fp8_copy(const Weight& weight) {
  FATHOM_ASSIGN(const Weight copy, state_->make(DType::kF8E4M3, 1, weight.n, weight.k));
  ops::cuda::fp8_copy(state_->stream(), weight, copy);
  return copy;
}

Result<const float*> DeviceSupply::vector(const std::string& name, int64_t count, float mean,
                                          float deviation) {
  State& s = *state_;
  FATHOM_ASSIGN(float* data, s.context.arena->allocate_array<float>(count));
  if (s.random()) {
    ops::cuda::random_vector(s.stream(), data, count, s.context.seed ^ hash_name(name), mean, deviation);
  } else {
    const TensorView& tensor = s.at(name);
    FATHOM_ASSIGN(State::Slot * slot, s.take_slot());
    const auto bytes = static_cast<int64_t>(tensor.bytes);
    s.bring(*slot, tensor, {0, bytes, bytes, 1}, slot->staged.data());
    ops::cuda::widen_vector(s.stream(), slot->staged.data(), *tensor.dtype, count, data);
    s.stream().record(slot->free);
  }
  if (s.context.taken) s.context.taken(count * static_cast<int64_t>(sizeof(float)));
  return static_cast<const float*>(data);
}

Result<const int32_t*> DeviceSupply::upload(std::span<const int32_t> numbers) {
  FATHOM_ASSIGN(int32_t * data,
                state_->context.arena->allocate_array<int32_t>(static_cast<int64_t>(numbers.size())));
  FATHOM_TRY(device::cuda::check(
      cudaMemcpy(data, numbers.data(), numbers.size_bytes(), cudaMemcpyHostToDevice), "upload"));
  return static_cast<const int32_t*>(data);
}

Result<Table> DeviceSupply::table(const Part& part) {
  State& s = *state_;
  Table table;
  table.dtype = s.stored(part.name);
  table.first = part.first_row;
  table.rows = part.num_rows();
  const int64_t row_bytes = part.k * device::size_of(table.dtype);
  const int64_t bytes = table.rows * row_bytes;
  FATHOM_ASSIGN(void* data, s.context.arena->allocate(static_cast<size_t>(bytes)));
  if (s.random()) {
    ops::cuda::random_rows(s.stream(), data, table.dtype,
                           {table.first, table.first + table.rows, 0, part.k, part.k},
                           s.context.seed ^ hash_name(part.name), part.gain, 1.0F);
  } else {
    for (int64_t begin = 0; begin < bytes; begin += kSlotBytes) {
      FATHOM_ASSIGN(State::Slot * slot, s.take_slot());
      const int64_t piece = std::min(kSlotBytes, bytes - begin);
      s.bring(*slot, s.at(part.name), {table.first * row_bytes + begin, piece, piece, 1},
              static_cast<std::byte*>(data) + begin);
      s.stream().record(slot->free);
    }
  }
  if (s.context.taken) s.context.taken(bytes);
  table.data = data;
  return table;
}

Result<void> DeviceSupply::finish() {
  State& s = *state_;
  int32_t unsound = 0;
  FATHOM_TRY(s.stream().synchronize());
  FATHOM_TRY(device::cuda::check(
      cudaMemcpy(&unsound, s.unsound.data(), sizeof(unsound), cudaMemcpyDeviceToHost), "download"));
  if (unsound != 0)
    return error(ErrorCode::kDataLoss, "an FP8 weight holds a NaN or a scale that is not finite");
  return {};
}

}  // namespace fathom::weights::cuda
