#include "ops/mha_attention/mha_attention.h"

#include "ops/attention/head_testing.h"
#include "ops/mha_attention/blocked.h"

namespace fathom::ops {
namespace {

struct Batch {
  Batch(int64_t heads, int64_t key, int64_t value, int64_t page_size, device::DType dtype,
        const std::vector<Row>& rows, uint32_t seed)
      : heads(heads),
        key(key),
        value(value),
        sequences(lengths_of(rows), page_size, heads * (key + value), dtype, seed),
        attention(attention_rows(rows, sequences)) {
    const int64_t tokens = attention.back().first + attention.back().count;
    q = random_values(static_cast<size_t>(tokens * heads * key), sequences.random());
  }

  // Over rows whose tokens are q's [part.front().first, ...).
  template <class Function>
  std::vector<float> run(const Function& function, int threads, std::vector<AttentionRow> part) {
    const int32_t first = part.front().first;
    for (AttentionRow& row : part) row.first -= first;
    const int64_t tokens = part.back().first + part.back().count;
    std::vector<float> out(static_cast<size_t>(tokens * heads * value), kPoison);
    MhaAttentionArgs args;
    args.q = device::Tensor(q.data() + first * heads * key, device::DType::kF32, {tokens, heads, key});
    args.cache = sequences.cache();
    args.rows = part;
    args.value = value;
    args.scale = 2.0F / std::sqrt(static_cast<float>(key));
    args.out = device::Tensor(out.data(), device::DType::kF32, {tokens, heads, value});
    ThreadPool pool(threads);
    device::Launch launch(pool);
    function(launch, args);
    return out;
  }

  int64_t heads, key, value;
  PagedSequences sequences;
  std::vector<AttentionRow> attention;
  std::vector<float> q;
};

auto blocked(const FlashKernels* kernels) {
  return [kernels](device::Launch& launch, const MhaAttentionArgs& args) {
    mha_attention_blocked(launch, args, *kernels);
  };
}

TEST(MhaAttention, EveryImplementationAgreesWithTheReference) {
  std::mt19937 random(2);
  const auto pick = [&](std::initializer_list<int64_t> list) {
    return *(list.begin() + static_cast<ptrdiff_t>(random() % list.size()));
  };
  for (uint32_t round = 0; round < 12; ++round) {
    const int64_t heads = pick({1, 2, 5}), key = pick({12, 40, 192}), value = pick({8, 20, 128});
    const int64_t page = pick({1, 7, 16, 64});
    const device::DType dtype = round % 2 == 0 ? device::DType::kBF16 : device::DType::kF32;
    Batch batch(heads, key, value, page, dtype, random_rows(random, longest_row(round)), round);
    const auto want = batch.run(mha_attention_reference, 1, batch.attention);
    const std::string what = fmt::format("round {} heads {} key {} value {}", round, heads, key, value);
    for (const auto& [name, kernels] : flash_kernels_here()) {
      const auto function = blocked(kernels);
      if (kernels->pairs && dtype != device::DType::kBF16) continue;
      expect_close(batch.run(function, 2, batch.attention), want,
                   kernels->pairs ? kPairTolerance : kFloatTolerance, what + " " + name);
    }
    for (const device::Isa isa : levels_here()) {
      device::Target target;
      target.isa = isa;
      const bool pairs = isa >= device::Isa::kAvx512Bf16 && dtype == device::DType::kBF16;
      expect_close(batch.run(choose_mha_attention(target), 3, batch.attention), want,
                   pairs ? kPairTolerance : kFloatTolerance, what + " " + to_string(isa));
    }
  }
}

TEST(MhaAttention, ATokensBitsDependOnItsOwnSequenceAlone) {
  for (const auto& [name, kernels] : flash_kernels_here()) {
    const auto function = blocked(kernels);
    Batch batch(3, 24, 16, 16, device::DType::kBF16, {{300, 300}, {1, 77}, {50, 200}, {2, 2}}, 5);
    const auto together = batch.run(function, 1, batch.attention);
    for (const int threads : {2, 3, 8}) {
      const auto again = batch.run(function, threads, batch.attention);
      expect_same_bits(again.data(), together.data(), together.size(),
                       fmt::format("{} {} threads", name, threads));
    }
    // Each row cut into chunks at random places.
    for (const AttentionRow& row : batch.attention) {
      for (int32_t done = 0; done < row.count;) {
        const int32_t count =
            std::min(row.count - done, 1 + static_cast<int32_t>(batch.sequences.random()() % 90));
        const AttentionRow piece{row.first + done, count, row.start + done, row.block_table};
        const auto out = batch.run(function, 2, {piece});
        expect_same_bits(out.data(), together.data() + piece.first * 3 * 16, out.size(),
                         fmt::format("{} tokens {} to {}", name, piece.start, piece.start + count));
        done += count;
      }
    }
  }
}

// Branches of guessed tokens: a row whose last entries lie elsewhere gives the bits of one whose entries are
// in its pages, and the reference sees the same.
TEST(MhaAttention, ABranchSeesItsOwnTail) {
  std::mt19937 random(9);
  for (uint32_t round = 0; round < 12; ++round) {
    const auto page = int64_t{1} << (round % 7);
    const auto length = static_cast<int32_t>(20 + random() % 600);
    const auto tail = static_cast<int32_t>(1 + random() % 16);
    const auto count = static_cast<int32_t>(1 + random() % static_cast<unsigned>(tail));
    const device::DType dtype = round % 2 == 0 ? device::DType::kBF16 : device::DType::kF32;
    Batch batch(3, 24, 16, page, dtype, {{count, length}}, round);
    std::vector<int64_t> places;
    AttentionRow branch = batch.attention[0];
    branch.tail_start = length - tail;
    const auto want_reference = batch.run(mha_attention_reference, 1, batch.attention);
    std::vector<std::vector<float>> want;
    for (const auto& [name, kernels] : flash_kernels_here()) {
      if (kernels->pairs && dtype != device::DType::kBF16) continue;
      want.push_back(batch.run(blocked(kernels), 2, batch.attention));
    }
    for (int32_t p = length - tail; p < length; ++p) places.push_back(batch.sequences.copy_of(0, p));
    for (int32_t p = length - tail; p < length; ++p) batch.sequences.poison(0, p);
    branch.tail = places.data();
    const auto got_reference = batch.run(mha_attention_reference, 1, {branch});
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
