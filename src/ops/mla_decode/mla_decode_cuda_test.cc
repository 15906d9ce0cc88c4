#include "ops/attention/cuda_testing.h"
#include "ops/mla_decode/cuda.h"
#include "ops/mla_decode/mla_decode.h"

namespace fathom::ops::cuda {
namespace {

using namespace testing;  // NOLINT: the fixture of these tests

struct Shape {
  int64_t heads, latent, rope, page_size;
  DType cache, activations;
};

// Token t is the last of sequence t; length 0 stands for padding.
class Decode {
 public:
  Decode(const Shape& shape, const std::vector<int32_t>& lengths, uint32_t seed)
      : shape_(shape),
        lengths_(lengths),
        sequences_(lengths, shape.page_size, shape.latent + shape.rope, shape.cache, seed),
        q_(shape.activations, static_cast<int64_t>(lengths.size()) * q_stride()) {
    q_.draw_all(sequences_.random());
  }

  GpuSequences& sequences() { return sequences_; }

  int64_t q_columns() const { return shape_.heads * (shape_.latent + shape_.rope); }
  int64_t q_stride() const { return q_columns() + 16; }
  int64_t out_columns() const { return shape_.heads * shape_.latent; }
  int64_t out_stride() const { return out_columns() + 8; }
  float scale() const { return sharpness_ / std::sqrt(static_cast<float>(shape_.latent + shape_.rope)); }
  // The scores' deviation, which is about 1.
  void sharpen(float deviation) { sharpness_ = deviation; }

  // A branch: the entries of its last places lie elsewhere.
  using Tail = std::vector<int64_t>;
  // Of sequence s, the entries of `count` places before `end`.
  Tail entries(int32_t s, int32_t end, int32_t count) const {
    Tail tail;
    for (int64_t p = end - count; p < end; ++p) {
      const int64_t page = sequences_.table(static_cast<size_t>(s))[p / shape_.page_size];
      tail.push_back(page * shape_.page_size + p % shape_.page_size);
    }
    return tail;
  }

  // The outputs of sequences `which` (-1: a padding token), as a batch; with branches, beside them.
  std::vector<uint8_t> run(const std::vector<int32_t>& which, int64_t max_context,
                           const std::vector<Tail>& branches = {}) {
    const auto tokens = static_cast<int64_t>(which.size());
    std::vector<int32_t> positions, slots;
    Values q(shape_.activations, tokens * q_stride());
    for (int64_t t = 0; t < tokens; ++t) {
      const int32_t s = which[static_cast<size_t>(t)];
      positions.push_back(s < 0 ? -1 : lengths_[static_cast<size_t>(s)] - 1);
      slots.push_back(s < 0 ? 0x7fffffff : s);
      if (s < 0) continue;
      const int64_t bytes = q_stride() * device::size_of(shape_.activations);
      std::copy_n(q_.bytes().begin() + s * bytes, bytes, q.bytes().begin() + t * bytes);
    }
    const DeviceArray<int32_t> device_positions(positions), device_slots(slots);
    const DeviceArray<uint8_t> device_q(q.bytes());
    const DeviceArray<uint8_t> out(tokens * out_stride() * device::size_of(shape_.activations));
    const DeviceArray<uint8_t> workspace(
        mla_decode_workspace(test_stream()->gpu(), tokens, shape_.heads, shape_.latent, max_context));
    MlaDecodeArgs args;
    args.q = {device_q.data(), shape_.activations, tokens, q_columns(), q_stride()};
    args.cache = sequences_.view();
    args.batch.tokens = tokens;
    args.batch.positions = device_positions.data();
    args.batch.slots = device_slots.data();
    args.batch.block_tables = sequences_.device_tables();
    args.batch.table_stride = sequences_.table_stride();
    constexpr size_t kStride = 100;
    std::vector<int32_t> starts(which.size(), 0x7fffffff);
    std::vector<int64_t> tails(which.size() * kStride, -1);
    for (size_t t = 0; t < branches.size(); ++t) {
      const Tail& tail = branches[t];
      if (tail.empty()) continue;
      starts[t] = positions[t] + 1 - static_cast<int32_t>(tail.size());
      std::copy(tail.begin(), tail.end(), tails.begin() + static_cast<ptrdiff_t>(t * kStride));
    }
    const DeviceArray<int32_t> device_starts(starts);
    const DeviceArray<int64_t> device_tails(tails);
    if (!branches.empty()) args.branches = {device_starts.data(), device_tails.data(), kStride};
    args.heads = shape_.heads;
    args.latent = shape_.latent;
    args.scale = scale();
    args.settled = true;
    args.max_context = max_context;
    args.workspace = workspace.data();
    args.out = {out.data(), shape_.activations, tokens, out_columns(), out_stride()};
    mla_decode(*test_stream(), args);
    EXPECT_TRUE(test_stream()->synchronize().ok()) << test_stream()->status().error().message;
    return out.get();
  }

  std::vector<float> reference(int32_t s, const Tail& tail = {}) {
    const std::vector<float> all = q_.floats();
    std::vector<float> q(all.begin() + s * q_stride(), all.begin() + s * q_stride() + q_columns());
    std::vector<float> out(static_cast<size_t>(out_columns()));
    AttentionRow row{0, 1, lengths_[static_cast<size_t>(s)] - 1, sequences_.table(static_cast<size_t>(s))};
    if (!tail.empty()) {
      row.tail = tail.data();
      row.tail_start = row.start + 1 - static_cast<int32_t>(tail.size());
    }
    ops::MlaDecodeArgs args;
    args.q = device::Tensor(q.data(), DType::kF32, {1, shape_.heads, shape_.latent + shape_.rope});
    args.cache = sequences_.cache();
    args.rows = std::span(&row, 1);
    args.latent = shape_.latent;
    args.scale = scale();
    args.out = device::Tensor(out.data(), DType::kF32, {1, shape_.heads, shape_.latent});
    ThreadPool pool(1);
    device::Launch launch(pool);
    mla_decode_reference(launch, args);
    return out;
  }

  std::vector<uint8_t> row(const std::vector<uint8_t>& out, int64_t t) const {
    const int64_t size = device::size_of(shape_.activations);
    const auto begin = out.begin() + t * out_stride() * size;
    return {begin, begin + out_columns() * size};
  }
  // Nothing was written between the rows' columns and the next row.
  bool gap_untouched(const std::vector<uint8_t>& out, int64_t t) const {
    const int64_t size = device::size_of(shape_.activations);
    const auto begin = out.begin() + t * out_stride() * size;
    return std::all_of(begin + out_columns() * size, begin + out_stride() * size,
                       [](uint8_t byte) { return byte == 0xff; });
  }

 private:
  Shape shape_;
  std::vector<int32_t> lengths_;
  GpuSequences sequences_;
  Values q_;
  float sharpness_ = 1;
};

Tolerance tolerance_of(const Shape& shape) {
  if (shape.activations == DType::kF32) return kFloat32;
  return kTensorCores;
}

std::string describe(const Shape& shape) {
  return fmt::format("heads {} latent {} rope {} page {} cache {} activations {}", shape.heads, shape.latent,
                     shape.rope, shape.page_size, device::to_string(shape.cache),
                     device::to_string(shape.activations));
}

const std::vector<Shape>& shapes() {
  static const std::vector<Shape> list = {
      {4, 32, 8, 16, DType::kF32, DType::kF32},         {4, 32, 8, 1, DType::kBF16, DType::kBF16},
      {1, 8, 8, 7, DType::kBF16, DType::kF32},          {11, 64, 16, 5, DType::kF8E4M3, DType::kF32},
      {3, 40, 24, 64, DType::kF8E5M2, DType::kBF16},    {16, 512, 64, 64, DType::kF32, DType::kF32},
      {16, 512, 64, 64, DType::kBF16, DType::kBF16},    {16, 512, 64, 1, DType::kBF16, DType::kBF16},
      {8, 512, 64, 48, DType::kBF16, DType::kBF16},     {16, 512, 64, 16, DType::kF8E4M3, DType::kBF16},
      {16, 512, 64, 64, DType::kF8E5M2, DType::kBF16},  {128, 512, 64, 64, DType::kBF16, DType::kBF16},
      {64, 512, 64, 32, DType::kBF16, DType::kBF16},    {128, 512, 64, 64, DType::kF8E4M3, DType::kBF16},
      {20, 512, 64, 64, DType::kBF16, DType::kBF16},    {56, 512, 64, 64, DType::kBF16, DType::kBF16},
      {72, 512, 64, 8, DType::kBF16, DType::kBF16},     {72, 512, 64, 8, DType::kF8E4M3, DType::kBF16},
      {64, 512, 64, 128, DType::kF8E5M2, DType::kBF16}, {56, 512, 64, 16, DType::kF8E4M3, DType::kBF16},
      {128, 512, 64, 5, DType::kF8E4M3, DType::kBF16},  {32, 512, 64, 64, DType::kF8E4M3, DType::kBF16},
      {20, 512, 64, 64, DType::kF8E5M2, DType::kBF16},
  };
  return list;
}

TEST(MlaDecodeCuda, AgreesWithTheReference) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  uint32_t seed = 1;
  for (const Shape& shape : shapes()) {
    const bool small = shape.heads * shape.latent < 8192;
    const std::vector<int32_t> lengths = small ? std::vector<int32_t>{1, 63, 64, 65, 300, 2, 4097, 700}
                                               : std::vector<int32_t>{1, 64, 300, 1025, 129, 3000};
    Decode decode(shape, lengths, ++seed);
    std::vector<int32_t> which = {-1};
    for (size_t s = 0; s < lengths.size(); ++s) which.push_back(static_cast<int32_t>(s));
    which.push_back(-1);
    const auto out = decode.run(which, 8192);
    for (size_t t = 0; t < which.size(); ++t) {
      const auto row = decode.row(out, static_cast<int64_t>(t));
      EXPECT_TRUE(decode.gap_untouched(out, static_cast<int64_t>(t))) << describe(shape) << " token " << t;
      if (which[t] < 0) {
        EXPECT_TRUE(std::all_of(row.begin(), row.end(), [](uint8_t byte) { return byte == 0xff; }))
            << describe(shape) << ": padding token " << t << " was written";
        continue;
      }
      expect_near_rows(row, shape.activations, decode.out_columns(), decode.reference(which[t]),
                       decode.out_columns(), tolerance_of(shape),
                       fmt::format("{} length {}", describe(shape), lengths[static_cast<size_t>(which[t])]));
    }
  }
}

// Scores of a wide range: what weights count from changes many times in a query, and an output is little more
// than one entry's values.
TEST(MlaDecodeCuda, FollowsScoresOfAWideRange) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  for (const Shape& shape : {Shape{16, 512, 64, 64, DType::kBF16, DType::kBF16},
                             Shape{128, 512, 64, 64, DType::kBF16, DType::kBF16},
                             Shape{128, 512, 64, 64, DType::kF8E4M3, DType::kBF16}}) {
    const std::vector<int32_t> lengths = {3000, 65, 700, 5000};
    Decode decode(shape, lengths, 41);
    decode.sharpen(16);
    std::vector<int32_t> which;
    for (int i = 0; i < 40; ++i) which.push_back(i % 4);
    const auto together = decode.run(which, 8192);
    for (int32_t s = 0; s < 4; ++s) {
      const auto row = decode.row(decode.run({s}, 8192), 0);
      expect_near_rows(row, shape.activations, decode.out_columns(), decode.reference(s),
                       decode.out_columns(), tolerance_of(shape),
                       fmt::format("{} sequence {}", describe(shape), s));
      ASSERT_EQ(decode.row(together, s), row) << describe(shape) << " sequence " << s;
    }
  }
}

// A batch of its own, among a few and among many, where the work is cut differently.
void expect_same_bits(const Shape& shape, const std::vector<int32_t>& lengths, int64_t max_context,
                      std::initializer_list<int> copies_of_all) {
  Decode decode(shape, lengths, 77);
  std::vector<std::vector<uint8_t>> alone;
  std::vector<int32_t> all = {-1};
  for (int32_t s = 0; s < static_cast<int32_t>(lengths.size()); ++s) {
    alone.push_back(decode.row(decode.run({s}, max_context), 0));
    all.push_back((s + 3) % static_cast<int32_t>(lengths.size()));
  }
  for (const int copies : copies_of_all) {
    std::vector<int32_t> which;
    for (int i = 0; i < copies; ++i) which.insert(which.end(), all.begin(), all.end());
    const auto out = decode.run(which, copies == 3 ? 163840 : max_context);
    for (size_t t = 0; t < which.size(); ++t) {
      if (which[t] < 0) continue;
      ASSERT_EQ(decode.row(out, static_cast<int64_t>(t)), alone[static_cast<size_t>(which[t])])
          << describe(shape) << ": token " << t << " of " << which.size() << ", length "
          << lengths[static_cast<size_t>(which[t])];
    }
  }
}

TEST(MlaDecodeCuda, ATokensBitsDependOnItsOwnSequenceAlone) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  for (const Shape& shape :
       {Shape{4, 32, 8, 16, DType::kF32, DType::kF32}, Shape{16, 512, 64, 64, DType::kBF16, DType::kBF16},
        Shape{16, 512, 64, 64, DType::kF8E4M3, DType::kBF16},
        Shape{128, 512, 64, 64, DType::kBF16, DType::kBF16}}) {
    expect_same_bits(shape, {5000, 1300, 64, 257, 1, 4096}, 8192, {1, 3, 12, 100});
  }
}

// With many heads: one unit and four, of few tiles and of many, whole and cut.
TEST(MlaDecodeCuda, ATokensBitsDependOnItsOwnSequenceAloneWithManyHeads) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  for (const DType cache : {DType::kBF16, DType::kF8E4M3}) {
    const Shape shape{128, 512, 64, 64, cache, DType::kBF16};
    expect_same_bits(shape, {20000, 512, 513, 1025, 128, 2048, 2049, 9000, 38000}, 40960, {1, 2, 5, 31});
    expect_same_bits(shape, {512, 100}, 1024, {1, 3, 20, 128});
  }
  // Few queries alone are another kernel's: groups of 64 heads that are not full, every size of page.
  for (const Shape& other :
       {Shape{64, 512, 64, 32, DType::kBF16, DType::kBF16}, Shape{72, 512, 64, 8, DType::kBF16, DType::kBF16},
        Shape{56, 512, 64, 16, DType::kBF16, DType::kBF16},
        Shape{128, 512, 64, 128, DType::kBF16, DType::kBF16},
        Shape{72, 512, 64, 8, DType::kF8E4M3, DType::kBF16},
        Shape{64, 512, 64, 32, DType::kF8E5M2, DType::kBF16}}) {
    expect_same_bits(other, {3000, 1, 65, 513, 130, 4100}, 8192, {1, 6});
  }
}

// The output of a sequence of one place is its values. One that has no number has none anywhere, and is alone
// with it.
TEST(MlaDecodeCuda, EveryFp8CodeIsItsValue) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  for (const DType cache : {DType::kF8E4M3, DType::kF8E5M2}) {
    const uint32_t numbers = cache == DType::kF8E4M3 ? 0x7f : 0x7c;  // of either sign
    for (const int64_t heads : {16, 128}) {
      const Shape shape{heads, 512, 64, 16, cache, DType::kBF16};
      Decode decode(shape, {1, 1, 700}, 9);
      std::vector<uint16_t> codes(512);
      for (uint32_t c = 0; c < 512; ++c) {
        const auto code = static_cast<uint8_t>((c / numbers % 2) << 7 | c % numbers);
        decode.sequences().set_bits(0, 0, c, code);
        codes[c] = static_cast<uint16_t>(device::f32_to_bf16(device::load_as_f32(&code, cache, 0)));
      }
      decode.sequences().set_bits(1, 0, 500, 0x7f);
      decode.sequences().upload();
      for (const int copies : {0, 40}) {
        std::vector<int32_t> which = {0};
        for (int i = 0; i < copies; ++i) which.insert(which.end(), {1, 2, 0});
        const auto out = decode.run(which, 1024);
        const auto values_of = [&](size_t t) {
          const auto row = decode.row(out, static_cast<int64_t>(t));
          std::vector<uint16_t> values(row.size() / 2);
          std::memcpy(values.data(), row.data(), row.size());
          return values;
        };
        for (size_t t = 0; t < which.size(); ++t) {
          const auto values = values_of(t);
          for (size_t i = 0; i < values.size(); ++i) {
            const float value = device::bf16_to_f32(values[i]);
            if (which[t] == 0)
              ASSERT_EQ(value, device::bf16_to_f32(codes[i % 512]))
                  << describe(shape) << " token " << t << " at " << i;
            else
              ASSERT_EQ(std::isnan(value), which[t] == 1) << describe(shape) << " token " << t << " at " << i;
          }
        }
      }
    }
  }
}

// Long sequences have other units; that none has is another kernel's for few queries.
TEST(MlaDecodeCuda, TakesLongSequencesOfManyHeads) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  for (const DType cache : {DType::kBF16, DType::kF8E4M3}) {
    const Shape shape{64, 512, 64, 64, cache, DType::kBF16};
    Decode decode(shape, {18000, 16384, 3000, 16385}, 3);
    const auto out = decode.run({0, 1, 2, 3}, 65536);
    expect_near_rows(decode.row(out, 0), shape.activations, decode.out_columns(), decode.reference(0),
                     decode.out_columns(), kTensorCores, describe(shape));
    for (const int32_t s : {1, 2}) {
      for (const int64_t bound : {16384, 65536})
        ASSERT_EQ(decode.row(decode.run({s}, bound), 0), decode.row(out, s))
            << describe(shape) << " sequence " << s << ", at most " << bound << " places";
    }
  }
}

// The bits of a branch are those of the sequence it stands for, wherever its entries lie.
TEST(MlaDecodeCuda, ABranchSeesItsOwnEntries) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  for (const Shape& shape :
       {Shape{4, 32, 8, 16, DType::kF32, DType::kF32}, Shape{16, 512, 64, 64, DType::kBF16, DType::kBF16},
        Shape{16, 512, 64, 16, DType::kF8E4M3, DType::kBF16},
        Shape{128, 512, 64, 8, DType::kBF16, DType::kBF16},
        Shape{128, 512, 64, 64, DType::kBF16, DType::kBF16},
        Shape{128, 512, 64, 32, DType::kF8E4M3, DType::kBF16}}) {
    const std::vector<int32_t> lengths = {1300, 64, 257, 2, 600};
    Decode decode(shape, lengths, 31);
    std::vector<int32_t> which = {0, 0, 0, 1, 1, 2, 2, 3, -1, 4};
    const std::vector<int32_t> counts = {1, 16, 70, 64, 3, 4, 66, 2, 0, 0};
    std::vector<Decode::Tail> own, other;
    for (size_t t = 0; t < which.size(); ++t) {
      const int32_t s = which[t];
      own.push_back(s < 0 ? Decode::Tail{} : decode.entries(s, lengths[static_cast<size_t>(s)], counts[t]));
      other.push_back(s < 0 ? Decode::Tail{} : decode.entries(4, 500 + static_cast<int32_t>(t), counts[t]));
    }
    const auto plain = decode.run(which, 8192), same = decode.run(which, 8192, own);
    const auto elsewhere = decode.run(which, 8192, other);
    for (size_t t = 0; t < which.size(); ++t) {
      if (which[t] < 0) continue;
      ASSERT_EQ(decode.row(decode.run({which[t]}, 8192, {other[t]}), 0),
                decode.row(elsewhere, static_cast<int64_t>(t)))
          << describe(shape) << " token " << t << " alone";
    }
    for (size_t t = 0; t < which.size(); ++t) {
      const auto at = static_cast<int64_t>(t);
      ASSERT_EQ(decode.row(same, at), decode.row(plain, at)) << describe(shape) << " token " << t;
      if (which[t] < 0) continue;
      expect_near_rows(decode.row(elsewhere, at), shape.activations, decode.out_columns(),
                       decode.reference(which[t], other[t]), decode.out_columns(), tolerance_of(shape),
                       fmt::format("{} token {}", describe(shape), t));
    }
  }
}

TEST(MlaDecodeCuda, TakesLongContextsAndManyTokens) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  const Shape shape{4, 32, 8, 64, DType::kF32, DType::kF32};
  const std::vector<int32_t> lengths = {70000, 40};
  Decode decode(shape, lengths, 5);
  std::vector<int32_t> which(1500, 1);
  which[1100] = 0;
  const auto out = decode.run(which, 70000);
  for (const int64_t t : {0, 1023, 1024, 1100, 1499}) {
    expect_near_rows(decode.row(out, t), shape.activations, decode.out_columns(),
                     decode.reference(which[static_cast<size_t>(t)]), decode.out_columns(), kFloat32,
                     fmt::format("token {}", t));
  }
}

}  // namespace
}  // namespace fathom::ops::cuda
