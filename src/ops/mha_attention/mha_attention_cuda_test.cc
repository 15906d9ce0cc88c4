#include "ops/attention/cuda_testing.h"
#include "ops/mha_attention/cuda.h"
#include "ops/mha_attention/mha_attention.h"

namespace fathom::ops::cuda {
namespace {

using namespace testing;  // NOLINT: the fixture of these tests

struct Shape {
  int64_t heads, key, value, page_size;
  DType cache, activations;
};

// Prompt and output tokens and padding in one batch, against the CPU's reference.
void check(const Shape& shape) {
  const std::vector<int32_t> lengths = {1, 64, 130, 333};
  const int64_t width = shape.heads * (shape.key + shape.value);
  GpuSequences sequences(lengths, shape.page_size, width, shape.cache, 3);
  std::vector<int32_t> positions = {0, -1, 63, 128, 129}, slots = {0, 0x7fffffff, 1, 2, 2};
  for (int32_t p = 300; p < 333; ++p) positions.push_back(p), slots.push_back(3);
  const auto tokens = static_cast<int64_t>(positions.size());
  const int64_t q_columns = shape.heads * shape.key, out_columns = shape.heads * shape.value;
  Values q(shape.activations, tokens * q_columns);
  q.draw_all(sequences.random());

  // The last token sees another sequence's entries from place 320 on.
  constexpr int32_t kTail = 320, kStride = 20;
  std::vector<int32_t> starts(positions.size(), 0x7fffffff);
  std::vector<int64_t> tails(positions.size() * kStride, -1), tail;
  for (int32_t p = kTail; p < 333; ++p) {
    const int64_t other = p - kTail + 50;
    tail.push_back(int64_t{sequences.table(2)[other / shape.page_size]} * shape.page_size +
                   other % shape.page_size);
  }
  starts.back() = kTail;
  std::copy(tail.begin(), tail.end(), tails.end() - kStride);
  const DeviceArray<int32_t> device_starts(starts);
  const DeviceArray<int64_t> device_tails(tails);

  const DeviceArray<int32_t> device_positions(positions), device_slots(slots);
  const DeviceArray<uint8_t> device_q(q.bytes());
  const DeviceArray<uint8_t> out(tokens * out_columns * device::size_of(shape.activations));
  MhaAttentionArgs args;
  args.q = {device_q.data(), shape.activations, tokens, q_columns};
  args.cache = sequences.view();
  args.batch.tokens = tokens;
  args.batch.positions = device_positions.data();
  args.batch.slots = device_slots.data();
  args.batch.block_tables = sequences.device_tables();
  args.batch.table_stride = sequences.table_stride();
  args.branches = {device_starts.data(), device_tails.data(), kStride};
  args.heads = shape.heads;
  args.key = shape.key;
  args.value = shape.value;
  args.scale = 1.0F / std::sqrt(static_cast<float>(shape.key));
  args.out = {out.data(), shape.activations, tokens, out_columns};
  mha_attention(*test_stream(), args);
  ASSERT_TRUE(test_stream()->synchronize().ok()) << test_stream()->status().error().message;
  const std::vector<uint8_t> got = out.get();

  std::vector<float> all = q.floats();
  const int64_t row_bytes = out_columns * device::size_of(shape.activations);
  for (int64_t t = 0; t < tokens; ++t) {
    const auto i = static_cast<size_t>(t);
    const std::vector<uint8_t> row(got.begin() + t * row_bytes, got.begin() + (t + 1) * row_bytes);
    if (positions[i] < 0) {
      EXPECT_TRUE(std::all_of(row.begin(), row.end(), [](uint8_t byte) { return byte == 0xff; }));
      continue;
    }
    std::vector<float> want(static_cast<size_t>(out_columns));
    AttentionRow attention{0, 1, positions[i], sequences.table(static_cast<size_t>(slots[i]))};
    if (t + 1 == tokens) {
      attention.tail = tail.data();
      attention.tail_start = kTail;
    }
    ops::MhaAttentionArgs reference;
    reference.q = device::Tensor(all.data() + t * q_columns, DType::kF32, {1, shape.heads, shape.key});
    reference.cache = sequences.cache();
    reference.rows = std::span(&attention, 1);
    reference.value = shape.value;
    reference.scale = args.scale;
    reference.out = device::Tensor(want.data(), DType::kF32, {1, shape.heads, shape.value});
    ThreadPool pool(1);
    device::Launch launch(pool);
    mha_attention_reference(launch, reference);
    expect_near_rows(
        row, shape.activations, out_columns, want, out_columns,
        shape.activations == DType::kF32 ? kFloat32 : kRounded,
        fmt::format("heads {} key {} value {} token {}", shape.heads, shape.key, shape.value, t));
  }
}

TEST(MhaAttentionCuda, AgreesWithTheReference) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  check({4, 24, 16, 16, DType::kF32, DType::kF32});
  check({4, 24, 16, 1, DType::kBF16, DType::kBF16});
  check({3, 40, 8, 7, DType::kF8E4M3, DType::kF32});
  check({16, 192, 128, 64, DType::kBF16, DType::kBF16});
  check({16, 192, 128, 64, DType::kF8E5M2, DType::kBF16});
}

}  // namespace
}  // namespace fathom::ops::cuda
