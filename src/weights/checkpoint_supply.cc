#include <cstring>
#include <optional>
#include <vector>

#include "base/math.h"
#include "weights/read_ahead.h"
#include "weights/weight_reader.h"
#include "weights/weight_supply.h"

namespace fathom::weights {

namespace {

constexpr int64_t kBlock = 128;

// A slice of a tensor with `k` columns, at an address that its element type allows: the file's own, or a copy
// where the file's header has an odd length.
class Aligned {
 public:
  Aligned(const TensorView& tensor, const Slice& slice, int64_t k) : row_stride_(k) {
    const device::DType dtype = *tensor.dtype;
    const ByteRanges ranges = byte_ranges(slice, k, dtype);
    data_ = tensor.data + ranges.first;
    if (reinterpret_cast<uintptr_t>(data_) % static_cast<size_t>(device::size_of(dtype)) == 0) return;
    copy_.resize(static_cast<size_t>(ceil_div<int64_t>(ranges.total(), sizeof(uint64_t))));
    auto* to = reinterpret_cast<std::byte*>(copy_.data());
    for (int64_t i = 0; i < ranges.count; ++i) {
      std::memcpy(to + i * ranges.bytes, data_ + i * ranges.step, static_cast<size_t>(ranges.bytes));
    }
    data_ = to;
    row_stride_ = slice.cols;
  }
  const std::byte* data() const { return data_; }
  int64_t row_stride() const { return row_stride_; }

 private:
  const std::byte* data_;
  int64_t row_stride_;
  std::vector<uint64_t> copy_;
};

class CheckpointSupply final : public WeightSupply {
 public:
  CheckpointSupply(const Checkpoint& checkpoint, SupplyContext context)
      : checkpoint_(checkpoint), context_(std::move(context)) {
    if (context_.read_ahead) ahead_.emplace(checkpoint);
  }

  Result<ops::PackedLinear> linear(ops::Compute compute, std::span<const Part> parts) override {
    std::vector<ops::WeightSource> sources;
    std::vector<Aligned> held;
    held.reserve(2 * parts.size());
    int64_t bytes = 0;
    for (const Part& part : parts) {
      const TensorView& tensor = at(part.name);
      if (ahead_) ahead_->reading(tensor);
      held.emplace_back(tensor, part.slice(), part.k);
      ops::WeightSource source;
      source.data = held.back().data();
      source.dtype = *tensor.dtype;
      source.n = part.num_rows();
      source.k = part.num_cols();
      source.row_stride = held.back().row_stride();
      source.transposed = part.transposed;
      if (source.dtype == device::DType::kF8E4M3) {
        const Slice scales = scale_slice(part.slice(), kBlock);
        held.emplace_back(at(scale_name(part.name)), scales, ceil_div(part.k, kBlock));
        source.scale_inv = reinterpret_cast<const float*>(held.back().data());
        source.scale_stride = held.back().row_stride();
        source.first_row = part.first_row % kBlock;  // the slice begins in the first of its scales' blocks
        source.first_col = part.first_col % kBlock;
      }
      sources.push_back(source);
      bytes += part.num_rows() * part.num_cols() * device::size_of(source.dtype);
    }
    auto packed = ops::pack_linear(context_.target, compute, sources, *context_.arena, context_.pool);
    if (!packed.ok()) return packed.error().with_context(parts.front().name);
    FATHOM_TRY(checkpoint_.intact());
    if (context_.taken) context_.taken(bytes);
    return packed;
  }

  Result<const float*> vector(const std::string& name, int64_t count, float, float) override {
    const TensorView& tensor = at(name);
    FATHOM_ASSIGN(float* values, context_.arena->allocate_array<float>(count));
    for (int64_t i = 0; i < count; ++i) values[i] = device::load_as_f32(tensor.data, *tensor.dtype, i);
    FATHOM_TRY(checkpoint_.intact());
    if (context_.taken) context_.taken(static_cast<int64_t>(tensor.bytes));
    return static_cast<const float*>(values);
  }

  Result<device::Tensor> table(const Part& part) override {
    const TensorView& tensor = at(part.name);
    const ByteRanges range = byte_ranges(part.slice(), part.k, *tensor.dtype);
    FATHOM_CHECK(range.count == 1, "{}: a table of whole rows", part.name);
    const int64_t bytes = range.bytes;
    FATHOM_ASSIGN(std::byte * data, context_.arena->allocate(static_cast<size_t>(bytes)));
    constexpr int64_t kPiece = int64_t{1} << 20;
    const auto copy = [&](int64_t begin, int64_t end, int) {
      const auto count = static_cast<size_t>(std::min(end * kPiece, bytes) - begin * kPiece);
      std::memcpy(data + begin * kPiece, tensor.data + range.first + begin * kPiece, count);
    };
    context_.pool->parallel_for(ceil_div(bytes, kPiece), 1, copy);
    FATHOM_TRY(checkpoint_.intact());
    if (context_.taken) context_.taken(bytes);
    return device::Tensor(data, *tensor.dtype, {part.num_rows(), part.k});
  }

 private:
  const TensorView& at(std::string_view name) const {
    const TensorView* tensor = checkpoint_.find(name);
    FATHOM_CHECK(tensor != nullptr && tensor->dtype.has_value(), "tensor {} was not checked", name);
    return *tensor;
  }

  const Checkpoint& checkpoint_;
  SupplyContext context_;
  std::optional<ReadAhead> ahead_;
};

}  // namespace

std::unique_ptr<WeightSupply> make_checkpoint_supply(const Checkpoint& checkpoint, SupplyContext context) {
  return std::make_unique<CheckpointSupply>(checkpoint, std::move(context));
}

}  // namespace fathom::weights
