#include "ops/mla_decode/mla_decode.h"

#include <gtest/gtest.h>

#include "ops/attention/testing.h"
#include "ops/mla_decode/blocked.h"
#include "ops/mla_decode/plan.h"

namespace fathom::ops {
namespace {

struct Shape {
  int64_t heads, latent, rope, page_size;
  device::DType dtype;
};

struct Row {
  int32_t count, length;  // the last `count` of `length` places are the row's tokens
};

// One batch over its own cache.
struct Batch {
  Batch(const Shape& shape, std::vector<Row> rows_in, uint32_t seed)
      : shape(shape),
        rows(std::move(rows_in)),
        sequences(lengths(), shape.page_size, width(), shape.dtype, seed) {
    int32_t tokens = 0;
    for (size_t i = 0; i < rows.size(); ++i) {
      attention.push_back({tokens, rows[i].count, rows[i].length - rows[i].count, sequences.table(i)});
      tokens += rows[i].count;
    }
    q = random_values(static_cast<size_t>(tokens * shape.heads * width()), sequences.random());
  }

  int64_t width() const { return shape.latent + shape.rope; }
  std::vector<int32_t> lengths() const {
    std::vector<int32_t> list;
    for (const Row& row : rows) list.push_back(row.length);
    return list;
  }

  // Runs over `part` of the rows, whose tokens are q's [first, first + tokens).
  template <class Function>
  std::vector<float> run(const Function& function, int threads, std::vector<AttentionRow> part) {
    const int32_t first = part.front().first;
    int64_t tokens = 0;
    for (AttentionRow& row : part) {
      row.first = static_cast<int32_t>(tokens);
      tokens += row.count;
    }
    std::vector<float> out(static_cast<size_t>(tokens * shape.heads * shape.latent), kPoison);
    MlaDecodeArgs args;
    args.q = device::Tensor(q.data() + first * shape.heads * width(), device::DType::kF32,
                            {tokens, shape.heads, width()});
    args.cache = sequences.cache();
    args.rows = part;
    args.latent = shape.latent;
    args.scale = 2.0F / std::sqrt(static_cast<float>(width()));
    args.out = device::Tensor(out.data(), device::DType::kF32, {tokens, shape.heads, shape.latent});
    ThreadPool pool(threads);
    device::Launch launch(pool);
    function(launch, args);
    return out;
  }
  template <class Function>
  std::vector<float> run(const Function& function, int threads) {
    return run(function, threads, attention);
  }

  Shape shape;
  std::vector<Row> rows;
  PagedSequences sequences;
  std::vector<AttentionRow> attention;
  std::vector<float> q;
};

auto blocked(const FlashKernels* kernels) {
  return [kernels](device::Launch& launch, const MlaDecodeArgs& args) {
    mla_decode_blocked(launch, args, *kernels);
  };
}

TEST(MlaDecode, EveryImplementationAgreesWithTheReference) {
  std::mt19937 random(1);
  const auto pick = [&](std::initializer_list<int64_t> list) {
    return *(list.begin() + static_cast<ptrdiff_t>(random() % list.size()));
  };
  for (uint32_t round = 0; round < 24; ++round) {
    const Shape shape{pick({1, 2, 3, 5, 8, 16, 17, 20}), pick({32, 40, 100, 128, 512}), pick({8, 16, 64}),
                      pick({1, 7, 16, 64}), random() % 2 == 0 ? device::DType::kBF16 : device::DType::kF32};
    std::vector<Row> rows;
    for (int64_t i = pick({1, 1, 2, 4}); i > 0; --i) {
      const auto length = static_cast<int32_t>(1 + random() % longest_row(round));
      rows.push_back(
          {static_cast<int32_t>(random() % 2 == 0 ? 1 : std::min<uint32_t>(1 + random() % 9, length)),
           length});
    }
    Batch batch(shape, rows, round);
    const auto want = batch.run(mla_decode_reference, 1);
    const std::string what = fmt::format("round {} heads {} latent {} rope {} page {} {}", round, shape.heads,
                                         shape.latent, shape.rope, shape.page_size, to_string(shape.dtype));
    for (const auto& [name, kernels] : flash_kernels_here()) {
      if (kernels->pairs && shape.dtype != device::DType::kBF16) continue;
      expect_close(batch.run(blocked(kernels), 2), want, kernels->pairs ? kPairTolerance : kFloatTolerance,
                   what + " " + name);
    }
    for (const device::Isa isa : levels_here()) {
      device::Target target;
      target.isa = isa;
      for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
        const bool pairs = compute == Compute::kBF16 && isa >= device::Isa::kAvx512Bf16 &&
                           shape.dtype == device::DType::kBF16;
        expect_close(batch.run(choose_mla_decode(target, compute), 2), want,
                     pairs ? kPairTolerance : kFloatTolerance, what + " " + to_string(isa));
      }
    }
  }
}

TEST(MlaDecode, ATokensBitsDependOnItsOwnSequenceAlone) {
  const int32_t step = small_tests() ? 9 : 2;  // from one token to try alone to the next
  for (const auto& [name, kernels] : flash_kernels_here()) {
    const auto function = blocked(kernels);
    for (const int64_t heads : {4, 16, 20}) {
      Batch batch({heads, 64, 16, 16, device::DType::kBF16},
                  {{1, 1000}, {6, 300}, {1, 1}, {3, 64}, {1, 257}, {40, 513}}, 7);
      const auto together = batch.run(function, 1);
      const std::string what = fmt::format("{} heads {}", name, heads);
      for (const int threads : {2, 3, 8}) {
        const auto again = batch.run(function, threads);
        expect_same_bits(again.data(), together.data(), together.size(),
                         what + fmt::format(" {} threads", threads));
      }
      // Each token alone: a row of one token with the same sequence.
      for (const AttentionRow& row : batch.attention) {
        for (int32_t i = 0; i < row.count; i += step) {
          const AttentionRow alone{row.first + i, 1, row.start + i, row.block_table};
          const auto out = batch.run(function, 3, {alone});
          expect_same_bits(out.data(), together.data() + (row.first + i) * heads * 64, out.size(),
                           what + fmt::format(" token {} of a row at {}", i, row.first));
        }
      }
    }
  }
}

// Waves end anywhere: more items than a wave, and single units longer than several waves.
TEST(MlaDecode, LongContextsAndManyRowsCrossWaves) {
  const auto kernels = flash_kernels_here().back();
  Batch batch({2, 32, 8, 64, device::DType::kBF16},
              {{1, 40000}, {1, 3}, {1, 9000}, {2, 700}, {1, 100}, {1, 20000}, {1, 256}}, 3);
  const auto want = batch.run(mla_decode_reference, 1);
  const auto got = batch.run(blocked(kernels.kernels), 2);
  expect_close(got, want, kernels.kernels->pairs ? kPairTolerance : kFloatTolerance, "waves");
  const auto plan = plan_mla_decode(batch.attention, 2, 32, kernels.kernels->lanes, kMlaSplit, 2);
  EXPECT_LT(plan.wave * 2, ceil_div<int64_t>(40000, kMlaSplit));
}

TEST(MlaDecodePlan, FindsWorkForEveryThread) {
  const AttentionRow decode{0, 1, 1023, nullptr};
  const auto small = plan_mla_decode(std::span(&decode, 1), 16, 512, 8, 256, 2);
  EXPECT_EQ(small.columns, 16);
  EXPECT_EQ(small.items, 4);
  const auto wide = plan_mla_decode(std::span(&decode, 1), 128, 512, 8, 256, 16);
  EXPECT_GE(wide.items, 32);
  const AttentionRow start{0, 1, 10, nullptr};
  EXPECT_EQ(plan_mla_decode(std::span(&start, 1), 16, 512, 8, 256, 2).items, 2);
  EXPECT_EQ(plan_mla_decode(std::span(&start, 1), 4, 512, 8, 256, 2).items, 1);
}

// Branches of guessed tokens: a row whose last entries lie elsewhere gives the bits of one whose entries are
// in its pages, and the reference sees the same.
TEST(MlaDecode, ABranchSeesItsOwnTail) {
  std::mt19937 random(9);
  for (uint32_t round = 0; round < 12; ++round) {
    const auto page = int64_t{1} << (round % 7);
    const auto length = static_cast<int32_t>(20 + random() % 600);
    const auto tail = static_cast<int32_t>(1 + random() % 16);
    const auto count = static_cast<int32_t>(1 + random() % static_cast<unsigned>(tail));
    const device::DType dtype = round % 2 == 0 ? device::DType::kBF16 : device::DType::kF32;
    Batch batch({static_cast<int64_t>(1 + random() % 20), 64, 16, page, dtype}, {{count, length}}, round);
    std::vector<int64_t> places;
    AttentionRow branch = batch.attention[0];
    branch.tail_start = length - tail;
    const auto want_reference = batch.run(mla_decode_reference, 1, batch.attention);
    std::vector<std::vector<float>> want;
    for (const auto& [name, kernels] : flash_kernels_here()) {
      if (kernels->pairs && dtype != device::DType::kBF16) continue;
      want.push_back(batch.run(blocked(kernels), 2, batch.attention));
    }
    for (int32_t p = length - tail; p < length; ++p) places.push_back(batch.sequences.copy_of(0, p));
    for (int32_t p = length - tail; p < length; ++p) batch.sequences.poison(0, p);
    branch.tail = places.data();
    const auto got_reference = batch.run(mla_decode_reference, 1, {branch});
    expect_same_bits(got_reference.data(), want_reference.data(), want_reference.size(), "reference");
    size_t next = 0;
    for (const auto& [name, kernels] : flash_kernels_here()) {
      if (kernels->pairs && dtype != device::DType::kBF16) continue;
      const auto got = batch.run(blocked(kernels), 3, {branch});
      expect_same_bits(got.data(), want[next].data(), got.size(), fmt::format("{} round {}", name, round));
      ++next;
    }
  }
}

}  // namespace
}  // namespace fathom::ops
