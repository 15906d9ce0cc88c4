#include <cmath>
#include <vector>

#include "base/math.h"
#include "base/random.h"
#include "weights/weight_reader.h"
#include "weights/weight_supply.h"

namespace fathom::weights {

namespace {

using device::DType;

constexpr int64_t kBlock = 128;

uint64_t hash_name(std::string_view name) {
  uint64_t hash = 0xcbf29ce484222325ULL;  // FNV-1a
  for (const char c : name) hash = (hash ^ static_cast<uint8_t>(c)) * 0x100000001b3ULL;
  return hash;
}

// Near enough to a normal number of deviation 1 for weights, from one draw: the sum of four uniforms, so
// bounded by 3.46.
float cheap_normal(uint64_t bits) {
  const auto sum = static_cast<int64_t>((bits & 0xffff) + ((bits >> 16) & 0xffff) + ((bits >> 32) & 0xffff) +
                                        (bits >> 48)) -
                   2 * 0xffff;
  constexpr float kUnit = 1.7320508F / 65536.0F;
  return static_cast<float>(sum) * kUnit;
}

// A whole matrix as a checkpoint would hold it.
struct RawMatrix {
  std::string name;
  DType dtype = DType::kBF16;
  std::vector<uint8_t> bytes;
  std::vector<float> scales;  // FP8: [ceil(n / 128), ceil(k / 128)]
};

class RandomSupply final : public WeightSupply {
 public:
  RandomSupply(uint64_t seed, DtypeOf dtype_of, SupplyContext context)
      : seed_(seed), dtype_of_(std::move(dtype_of)), context_(std::move(context)) {}

  Result<ops::PackedLinear> linear(ops::Compute compute, std::span<const Part> parts) override {
    const Part& first = parts.front();
    int64_t rows = 0;
    bool whole = true;
    bool alike = true;
    for (const Part& part : parts) {
      rows += part.num_rows();
      whole = whole && part.whole() && !part.transposed;
      alike = alike && stored(part.name) == stored(first.name) && part.gain == first.gain && !part.shared;
    }
    Result<ops::PackedLinear> packed = error(ErrorCode::kInternal, "not packed");
    if (whole && alike) {
      // Nobody looks at this matrix in another way: straight into the packed layout.
      DType dtype = stored(first.name);
      if (dtype == DType::kF32 && compute != ops::Compute::kF32) dtype = DType::kBF16;
      const float deviation = first.gain / std::sqrt(static_cast<float>(first.k));
      packed = ops::random_linear(context_.target, compute, dtype, rows, first.k, deviation,
                                  seed_ ^ hash_name(first.name), *context_.arena, context_.pool);
    } else {
      packed = pack_raw(compute, parts);
    }
    if (packed.ok() && context_.taken) {
      context_.taken(rows * first.num_cols() * device::size_of(stored(first.name)));
    }
    return packed;
  }

  Result<const float*> vector(const std::string& name, int64_t count, float mean, float deviation) override {
    FATHOM_ASSIGN(float* values, context_.arena->allocate_array<float>(count));
    const uint64_t stream = hash_name(name);
    for (int64_t i = 0; i < count; ++i) {
      values[i] = mean + deviation * cheap_normal(random_bits(seed_, stream, static_cast<uint64_t>(i)));
    }
    if (context_.taken) context_.taken(count * static_cast<int64_t>(sizeof(float)));
    return static_cast<const float*>(values);
  }

  Result<device::Tensor> table(const Part& part) override {
    const DType dtype = stored(part.name);
    const int64_t bytes = part.num_rows() * part.k * size_of(dtype);
    FATHOM_CHECK(part.num_cols() == part.k, "{}: a table of whole rows", part.name);
    FATHOM_ASSIGN(std::byte * data, context_.arena->allocate(static_cast<size_t>(bytes)));
    fill(part.name, dtype, part.first_row, part.num_rows(), part.k, part.gain, data);
    if (context_.taken) context_.taken(bytes);
    return device::Tensor(data, dtype, {part.num_rows(), part.k});
  }

 private:
  // Random float16 weights are bfloat16 ones.
  DType stored(std::string_view name) const {
    const DType dtype = dtype_of_(name);
    return dtype == DType::kF16 ? DType::kBF16 : dtype;
  }

  // Matrices that are packed in several ways (kv_b whole and by heads) must hold the same numbers each time.
  Result<ops::PackedLinear> pack_raw(ops::Compute compute, std::span<const Part> parts) {
    std::vector<RawMatrix> held;
    held.reserve(parts.size());
    std::vector<ops::WeightSource> sources;
    for (const Part& part : parts) {
      const RawMatrix* raw = nullptr;
      if (part.name == last_.name) {
        raw = &last_;
      } else if (parts.size() == 1) {
        last_ = make_raw(part);
        raw = &last_;
      } else {
        held.push_back(make_raw(part));
        raw = &held.back();
      }
      ops::WeightSource source;
      source.data = raw->bytes.data() + (part.first_row * part.k + part.first_col) * size_of(raw->dtype);
      source.dtype = raw->dtype;
      source.n = part.num_rows();
      source.k = part.num_cols();
      source.row_stride = part.k;
      source.transposed = part.transposed;
      if (!raw->scales.empty()) {
        source.scale_inv = raw->scales.data();
        source.scale_stride = ceil_div(part.k, kBlock);
        source.first_row = part.first_row;
        source.first_col = part.first_col;
      }
      sources.push_back(source);
    }
    return ops::pack_linear(context_.target, compute, sources, *context_.arena, context_.pool);
  }

  RawMatrix make_raw(const Part& part) {
    RawMatrix raw;
    raw.name = part.name;
    raw.dtype = stored(part.name);
    raw.bytes.resize(static_cast<size_t>(part.n * part.k * size_of(raw.dtype)));
    const float deviation = part.gain / std::sqrt(static_cast<float>(part.k));
    if (raw.dtype == DType::kF8E4M3) {
      raw.scales.assign(static_cast<size_t>(ceil_div(part.n, kBlock) * ceil_div(part.k, kBlock)),
                        ops::random_scale(deviation));
    }
    fill(part.name, raw.dtype, 0, part.n, part.k, deviation, reinterpret_cast<std::byte*>(raw.bytes.data()));
    return raw;
  }

  // Rows [first, first + n). Element (row, col) is a function of (seed, name, row, col) and its dtype only.
  void fill(std::string_view name, DType dtype, int64_t first, int64_t n, int64_t k, float deviation,
            std::byte* data) {
    const uint64_t seed = seed_ ^ hash_name(name);
    const auto row_block = [&](int64_t begin, int64_t end, int) {
      for (int64_t i = begin; i < end; ++i) {
        ops::random_row(context_.target, dtype, k, deviation, seed, first + i, data + i * k * size_of(dtype));
      }
    };
    context_.pool->parallel_for(n, std::max<int64_t>(1, (int64_t{1} << 16) / k), row_block);
  }

  uint64_t seed_;
  DtypeOf dtype_of_;
  SupplyContext context_;
  RawMatrix last_;  // the last one made by pack_raw
};

}  // namespace

std::unique_ptr<WeightSupply> make_random_supply(uint64_t seed, DtypeOf dtype_of, SupplyContext context) {
  return std::make_unique<RandomSupply>(seed, std::move(dtype_of), std::move(context));
}

}  // namespace fathom::weights
