#include <cstring>
#include <vector>

#include "base/math.h"
#include "weights/read_ahead.h"
#include "weights/weight_reader.h"
#include "weights/weight_supply.h"

namespace fathom::weights {

namespace {

constexpr int64_t kBlock = 128;

// A tensor's bytes at an address that its element type allows: the file's own, or a copy where the file's
// header has an odd length.
class Aligned {
 public:
  Aligned(const TensorView& tensor, size_t alignment) : data_(tensor.data) {
    if (reinterpret_cast<uintptr_t>(tensor.data) % alignment == 0) return;
    copy_.resize(ceil_div(tensor.bytes, sizeof(uint64_t)));
    std::memcpy(copy_.data(), tensor.data, tensor.bytes);
    data_ = reinterpret_cast<const std::byte*>(copy_.data());
  }
  const std::byte* data() const { return data_; }

 private:
  const std::byte* data_;
  std::vector<uint64_t> copy_;
};

class CheckpointSupply final : public WeightSupply {
 public:
  CheckpointSupply(const Checkpoint& checkpoint, SupplyContext context)
      : checkpoint_(checkpoint), context_(std::move(context)), ahead_(checkpoint) {}

  Result<ops::PackedLinear> linear(ops::Compute compute, std::span<const Part> parts) override {
    std::vector<ops::WeightSource> sources;
    std::vector<Aligned> held;
    held.reserve(2 * parts.size());
    int64_t bytes = 0;
    for (const Part& part : parts) {
      const TensorView& tensor = at(part.name);
      ahead_.reading(tensor);
      const int64_t element = device::size_of(*tensor.dtype);
      held.emplace_back(tensor, static_cast<size_t>(element));
      ops::WeightSource source;
      source.data = held.back().data() + part.first_row * part.k * element;
      source.dtype = *tensor.dtype;
      source.n = part.num_rows();
      source.k = part.k;
      source.row_stride = part.k;
      source.transposed = part.transposed;
      if (source.dtype == device::DType::kF8E4M3) {
        held.emplace_back(at(scale_name(part.name)), sizeof(float));
        source.scale_inv = reinterpret_cast<const float*>(held.back().data());
        source.scale_stride = ceil_div(part.k, kBlock);
        source.first_row = part.first_row;
      }
      sources.push_back(source);
      bytes += part.num_rows() * part.k * element;
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

  Result<device::Tensor> table(const std::string& name, int64_t n, int64_t k, float) override {
    const TensorView& tensor = at(name);
    FATHOM_ASSIGN(std::byte * data, context_.arena->allocate(tensor.bytes));
    constexpr int64_t kPiece = int64_t{1} << 20;
    const auto bytes = static_cast<int64_t>(tensor.bytes);
    const auto copy = [&](int64_t begin, int64_t end, int) {
      const auto count = static_cast<size_t>(std::min(end * kPiece, bytes) - begin * kPiece);
      std::memcpy(data + begin * kPiece, tensor.data + begin * kPiece, count);
    };
    context_.pool->parallel_for(ceil_div(bytes, kPiece), 1, copy);
    FATHOM_TRY(checkpoint_.intact());
    if (context_.taken) context_.taken(bytes);
    return device::Tensor(data, *tensor.dtype, {n, k});
  }

 private:
  const TensorView& at(std::string_view name) const {
    const TensorView* tensor = checkpoint_.find(name);
    FATHOM_CHECK(tensor != nullptr && tensor->dtype.has_value(), "tensor {} was not checked", name);
    return *tensor;
  }

  const Checkpoint& checkpoint_;
  SupplyContext context_;
  ReadAhead ahead_;
};

}  // namespace

std::unique_ptr<WeightSupply> make_checkpoint_supply(const Checkpoint& checkpoint, SupplyContext context) {
  return std::make_unique<CheckpointSupply>(checkpoint, std::move(context));
}

}  // namespace fathom::weights
