#include "ops/attention/cuda_testing.h"
#include "ops/extend_attention/cuda.h"
#include "ops/mha_attention/mha_attention.h"

namespace fathom::ops::cuda {
namespace {

using namespace testing;  // NOLINT: the fixture of these tests

struct Shape {
  int64_t heads, nope, rope, value;
  DType type;
};

// A sequence of `length` places whose tokens from `start` on are queries.
struct Prompt {
  int32_t start, length;
  int32_t count() const { return length - start; }
};

class Prompts {
 public:
  Prompts(const Shape& shape, const std::vector<Prompt>& prompts, uint32_t seed)
      : shape_(shape), prompts_(prompts) {
    std::mt19937 random(seed);
    for (const Prompt& prompt : prompts) {
      q_.emplace_back(shape.type, prompt.length * q_columns()).draw_all(random);
      kv_.emplace_back(shape.type, prompt.length * kv_columns()).draw_all(random);
      rope_.emplace_back(shape.type, prompt.length * shape.rope).draw_all(random);
    }
  }
  int64_t q_columns() const { return shape_.heads * (shape_.nope + shape_.rope); }
  int64_t kv_columns() const { return shape_.heads * (shape_.nope + shape_.value); }
  int64_t out_columns() const { return shape_.heads * shape_.value; }
  float scale() const { return 1.0F / std::sqrt(static_cast<float>(shape_.nope + shape_.rope)); }

  // One row's outputs after another, in passes of at most `pass` places each. Only tokens from `from` of each
  // prompt on, where that is given.
  std::vector<uint8_t> run(int32_t pass, int32_t from = 0) {
    const int64_t size = device::size_of(shape_.type);
    std::vector<uint8_t> q;
    std::vector<ExtendRow> queries;
    int32_t longest = 0;
    for (size_t i = 0; i < prompts_.size(); ++i) {
      const int32_t start = std::max(prompts_[i].start, from);
      ExtendRow row;
      row.first = static_cast<int32_t>(static_cast<int64_t>(q.size()) / (q_columns() * size));
      row.count = prompts_[i].length - start;
      row.start = start;
      queries.push_back(row);
      q.insert(q.end(), q_[i].bytes().begin() + start * q_columns() * size, q_[i].bytes().end());
      longest = std::max(longest, prompts_[i].length);
    }
    const int64_t tokens = queries.back().first + queries.back().count;
    const DeviceArray<uint8_t> device_q(q);
    const DeviceArray<uint8_t> out(tokens * out_columns() * size);
    const DeviceArray<float> partial(tokens * out_columns()), lse(tokens * shape_.heads);
    for (int32_t begin = 0; begin < longest; begin += pass) {
      std::vector<ExtendRow> rows;
      std::vector<uint8_t> kv, rope;
      for (size_t i = 0; i < prompts_.size(); ++i) {
        ExtendRow row = queries[i];
        row.key_begin = begin;
        row.key_end = std::min(begin + pass, prompts_[i].length);
        if (row.key_end <= row.key_begin) continue;
        row.merge = begin > 0 ? 1 : 0;
        row.key_row = static_cast<int32_t>(static_cast<int64_t>(kv.size()) / (kv_columns() * size));
        rows.push_back(row);
        const auto append = [&](std::vector<uint8_t>& to, Values& from_values, int64_t columns) {
          const auto bytes = from_values.bytes().begin();
          to.insert(to.end(), bytes + row.key_begin * columns * size, bytes + row.key_end * columns * size);
        };
        append(kv, kv_[i], kv_columns());
        append(rope, rope_[i], shape_.rope);
      }
      const auto keys = static_cast<int64_t>(kv.size()) / (kv_columns() * size);
      const DeviceArray<uint8_t> device_kv(kv), device_rope(rope);
      const DeviceArray<ExtendRow> device_rows(rows);
      ExtendAttentionArgs args;
      args.q = {device_q.data(), shape_.type, tokens, q_columns()};
      args.kv = {device_kv.data(), shape_.type, keys, kv_columns()};
      args.k_rope = {device_rope.data(), shape_.type, keys, shape_.rope};
      args.rows = device_rows.data();
      args.host_rows = rows.data();
      args.num_rows = static_cast<int64_t>(rows.size());
      args.heads = shape_.heads;
      args.nope = shape_.nope;
      args.value = shape_.value;
      args.scale = scale();
      args.out = {out.data(), shape_.type, tokens, out_columns()};
      args.partial = partial.data();
      args.lse = lse.data();
      extend_attention(*test_stream(), args);
      EXPECT_TRUE(test_stream()->synchronize().ok()) << test_stream()->status().error().message;
    }
    return out.get();
  }

  // Through the plain cache's reference: its entries are all heads' keys, then all heads' values.
  std::vector<float> reference() {
    std::vector<float> out;
    const int64_t key = shape_.nope + shape_.rope, width = shape_.heads * (key + shape_.value);
    for (size_t i = 0; i < prompts_.size(); ++i) {
      const Prompt& prompt = prompts_[i];
      std::vector<float> entries(static_cast<size_t>(prompt.length * width));
      for (int64_t p = 0; p < prompt.length; ++p) {
        for (int64_t h = 0; h < shape_.heads; ++h) {
          for (int64_t d = 0; d < key + shape_.value; ++d) {
            const int64_t kv = p * kv_columns() + h * (shape_.nope + shape_.value);
            const int64_t to = d < key ? h * key + d : shape_.heads * key + h * shape_.value + (d - key);
            entries[static_cast<size_t>(p * width + to)] =
                d < shape_.nope ? kv_[i].get(kv + d)
                : d < key       ? rope_[i].get(p * shape_.rope + (d - shape_.nope))
                                : kv_[i].get(kv + d - shape_.rope);
          }
        }
      }
      std::vector<float> q = q_[i].floats();
      const size_t before = out.size();
      out.resize(before + static_cast<size_t>(prompt.count() * out_columns()));
      const int32_t page = 0;
      const AttentionRow row{0, prompt.count(), prompt.start, &page};
      ops::MhaAttentionArgs args;
      args.q = device::Tensor(q.data() + prompt.start * q_columns(), DType::kF32,
                              {prompt.count(), shape_.heads, key});
      args.cache = {entries.data(), DType::kF32, 1, prompt.length, width};
      args.rows = std::span(&row, 1);
      args.value = shape_.value;
      args.scale = scale();
      args.out =
          device::Tensor(out.data() + before, DType::kF32, {prompt.count(), shape_.heads, shape_.value});
      ThreadPool pool(1);
      device::Launch launch(pool);
      mha_attention_reference(launch, args);
    }
    return out;
  }

 private:
  Shape shape_;
  std::vector<Prompt> prompts_;
  std::vector<Values> q_, kv_, rope_;
};

TEST(ExtendAttentionCuda, AgreesWithTheReference) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  for (const Shape& shape : {Shape{4, 16, 8, 16, DType::kF32}, Shape{4, 16, 8, 16, DType::kBF16},
                             Shape{2, 40, 24, 136, DType::kF32}, Shape{2, 128, 64, 128, DType::kF32},
                             Shape{3, 128, 64, 128, DType::kBF16}}) {
    Prompts prompts(shape, {{0, 1}, {0, 300}, {299, 300}, {64, 129}, {200, 457}}, 11);
    const std::vector<float> want = prompts.reference();
    for (const int32_t pass : {1024, 128}) {
      expect_near_rows(prompts.run(pass), shape.type, prompts.out_columns(), want, prompts.out_columns(),
                       shape.type == DType::kF32 ? kFloat32 : kTensorCores,
                       fmt::format("heads {} nope {} rope {} value {} {} passes of {}", shape.heads,
                                   shape.nope, shape.rope, shape.value, device::to_string(shape.type), pass));
    }
  }
}

// A prompt's tail alone, in a batch of its own: the same bits as within the whole prompt.
TEST(ExtendAttentionCuda, ATokensBitsDoNotDependOnHowItsPromptWasCut) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  for (const Shape& shape : {Shape{4, 16, 8, 16, DType::kF32}, Shape{3, 128, 64, 128, DType::kBF16}}) {
    Prompts whole(shape, {{0, 700}}, 4);
    Prompts among(shape, {{0, 700}, {0, 50}, {10, 300}}, 4);
    for (const int32_t pass : {1024, 256}) {
      const auto want = whole.run(pass);
      const auto together = among.run(pass);
      ASSERT_TRUE(std::equal(want.begin(), want.end(), together.begin())) << "in a batch, passes of " << pass;
      for (const int32_t from : {1, 255, 333, 699}) {
        const auto tail = whole.run(pass, from);
        ASSERT_TRUE(std::equal(tail.begin(), tail.end(), want.end() - static_cast<int64_t>(tail.size())))
            << "tokens from " << from << ", passes of " << pass;
      }
    }
  }
}

TEST(LatentGatherCuda, CopiesPlacesOutOfPages) {
  if (test_stream() == nullptr) GTEST_SKIP() << "no GPU";
  for (const DType from : {DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2}) {
    for (const DType to : {DType::kF32, DType::kBF16}) {
      constexpr int64_t kLatent = 40, kRope = 24, kWidth = kLatent + kRope;
      const std::vector<int32_t> lengths = {100, 1, 333};
      GpuSequences sequences(lengths, 7, kWidth, from, 9);
      std::vector<ExtendRow> rows(3);
      rows[0].slot = 2, rows[0].key_begin = 64, rows[0].key_end = 333, rows[0].key_row = 0;
      rows[1].slot = 1, rows[1].key_begin = 0, rows[1].key_end = 1, rows[1].key_row = 269;
      rows[2].slot = 0, rows[2].key_begin = 10, rows[2].key_end = 100, rows[2].key_row = 270;
      constexpr int64_t kKeys = 360;
      const DeviceArray<ExtendRow> device_rows(rows);
      const int64_t size = device::size_of(to);
      const DeviceArray<uint8_t> latent(kKeys * (kLatent + 8) * size), rope(kKeys * kRope * size);
      LatentGatherArgs args;
      args.cache = sequences.view();
      args.batch.block_tables = sequences.device_tables();
      args.batch.table_stride = sequences.table_stride();
      args.rows = device_rows.data();
      args.num_rows = 3;
      args.keys = kKeys;
      args.latent_width = kLatent;
      args.latent = {latent.data(), to, kKeys, kLatent, kLatent + 8};
      args.rope = {rope.data(), to, kKeys, kRope};
      latent_gather(*test_stream(), args);
      ASSERT_TRUE(test_stream()->synchronize().ok()) << test_stream()->status().error().message;
      std::vector<float> want_latent, want_rope;
      for (const ExtendRow& row : rows) {
        for (int32_t p = row.key_begin; p < row.key_end; ++p) {
          const void* entry =
              sequences.cache().entry(sequences.table(static_cast<size_t>(row.slot))[p / 7], p % 7);
          for (int64_t d = 0; d < kWidth; ++d) {
            float value = device::load_as_f32(entry, from, d);
            if (to == DType::kBF16) value = device::bf16_to_f32(device::f32_to_bf16(value));
            (d < kLatent ? want_latent : want_rope).push_back(value);
          }
        }
      }
      constexpr Tolerance kExact = {0, 1e-30};
      const std::string what = fmt::format("{} to {}", device::to_string(from), device::to_string(to));
      expect_near_rows(latent.get(), to, kLatent + 8, want_latent, kLatent, kExact, what + " latent");
      expect_near_rows(rope.get(), to, kRope, want_rope, kRope, kExact, what + " rope");
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda
