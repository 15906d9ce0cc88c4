#include "ops/extend_attention/extend_attention.h"

#include <array>

#include "ops/attention/head_testing.h"
#include "ops/extend_attention/blocked.h"

namespace fathom::ops {
namespace {

// kv_b as plain [n, k] float32, so that this test needs no packing. Like the real linear ops it uses the
// launch's shared and worker scratch, which the attention must not rely on across the call.
int64_t projected_rows = 0;
void plain_linear(device::Launch& launch, const LinearArgs& args) {
  projected_rows += args.x.dim(0);
  const auto* weight = static_cast<const float*>(args.weight->data);
  std::memset(launch.shared_scratch(1 << 20), 0xff, 1 << 20);
  for (int i = 0; i < launch.pool().size(); ++i) std::memset(launch.scratch(i, 1 << 16), 0xff, 1 << 16);
  for (int64_t t = 0; t < args.x.dim(0); ++t) {
    const float* x = args.x.row<float>(t);
    for (int64_t n = 0; n < args.weight->n; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < args.weight->k; ++k)
        sum += static_cast<double>(x[k]) * weight[n * args.weight->k + k];
      args.y.row<float>(t)[n] = static_cast<float>(sum);
    }
  }
}

struct Shape {
  int64_t heads, latent, rope, nope, value, page_size;
  device::DType dtype;
};

struct Batch {
  Batch(const Shape& shape, const std::vector<Row>& rows, uint32_t seed)
      : shape(shape),
        sequences(lengths_of(rows), shape.page_size, shape.latent + shape.rope, shape.dtype, seed),
        attention(attention_rows(rows, sequences)) {
    const int64_t tokens = attention.back().first + attention.back().count;
    q = random_values(static_cast<size_t>(tokens * shape.heads * (shape.nope + shape.rope)),
                      sequences.random());
    weight = random_values(static_cast<size_t>(shape.heads * (shape.nope + shape.value) * shape.latent),
                           sequences.random(), 1.0F / std::sqrt(static_cast<float>(shape.latent)));
    kv_b.n = shape.heads * (shape.nope + shape.value);
    kv_b.k = shape.latent;
    kv_b.data = weight.data();
  }

  // Over rows whose tokens are q's [part.front().first, ...).
  template <class Function>
  std::vector<float> run(const Function& function, int threads, int64_t chunk, std::vector<AttentionRow> part,
                         KeptKeys* kept = nullptr) {
    const int64_t width = shape.nope + shape.rope;
    const int32_t first = part.front().first;
    for (AttentionRow& row : part) row.first -= first;
    const int64_t tokens = part.back().first + part.back().count;
    std::vector<float> out(static_cast<size_t>(tokens * shape.heads * shape.value), kPoison);
    ExtendAttentionArgs args;
    args.q = device::Tensor(q.data() + first * shape.heads * width, device::DType::kF32,
                            {tokens, shape.heads, width});
    args.cache = sequences.cache();
    args.rows = part;
    args.kv_b = &kv_b;
    args.linear = plain_linear;
    args.latent = shape.latent;
    args.nope = shape.nope;
    args.value = shape.value;
    args.scale = 2.0F / std::sqrt(static_cast<float>(width));
    args.chunk = chunk;
    args.kept = {kept, 1};
    args.out = device::Tensor(out.data(), device::DType::kF32, {tokens, shape.heads, shape.value});
    ThreadPool pool(threads);
    device::Launch launch(pool);
    function(launch, args);
    return out;
  }

  Shape shape;
  PagedSequences sequences;
  std::vector<AttentionRow> attention;
  std::vector<float> q, weight;
  PackedLinear kv_b;
};

auto blocked(const FlashKernels* kernels) {
  return [kernels](device::Launch& launch, const ExtendAttentionArgs& args) {
    extend_attention_blocked(launch, args, *kernels);
  };
}

TEST(ExtendAttention, EveryImplementationAgreesWithTheReference) {
  std::mt19937 random(3);
  const auto pick = [&](std::initializer_list<int64_t> list) {
    return *(list.begin() + static_cast<ptrdiff_t>(random() % list.size()));
  };
  for (uint32_t round = 0; round < 12; ++round) {
    const Shape shape{pick({1, 2, 5}),
                      pick({32, 40, 64}),
                      pick({8, 16}),
                      pick({8, 20, 128}),
                      pick({8, 16, 36, 128}),
                      pick({1, 7, 16, 64}),
                      round % 2 == 0 ? device::DType::kBF16 : device::DType::kF32};
    Batch batch(shape, random_rows(random, longest_row(round)), round);
    const int64_t chunk = pick({64, 128, 512});
    const auto want = batch.run(extend_attention_reference, 1, chunk, batch.attention);
    const std::string what =
        fmt::format("round {} heads {} latent {} rope {} nope {} value {} chunk {}", round, shape.heads,
                    shape.latent, shape.rope, shape.nope, shape.value, chunk);
    for (const auto& [name, kernels] : flash_kernels_here()) {
      const auto function = blocked(kernels);
      expect_close(batch.run(function, 2, chunk, batch.attention), want,
                   kernels->pairs ? kPairTolerance : kFloatTolerance, what + " " + name);
    }
    for (const device::Isa isa : levels_here()) {
      device::Target target;
      target.isa = isa;
      for (const Compute compute : {Compute::kF32, Compute::kBF16}) {
        batch.kv_b.compute = compute;
        const bool pairs = isa >= device::Isa::kAvx512Bf16 && compute == Compute::kBF16;
        expect_close(batch.run(choose_extend_attention(target), 3, chunk, batch.attention), want,
                     pairs ? kPairTolerance : kFloatTolerance, what + " " + to_string(isa));
      }
    }
  }
}

TEST(ExtendAttention, ATokensBitsDependOnItsOwnSequenceAlone) {
  for (const auto& [name, kernels] : flash_kernels_here()) {
    const auto function = blocked(kernels);
    const Shape shape{3, 32, 8, 16, 24, 16, device::DType::kBF16};
    Batch batch(shape, {{300, 300}, {1, 77}, {50, 200}, {2, 2}, {130, 500}}, 5);
    const auto together = batch.run(function, 1, 512, batch.attention);
    for (const int threads : {2, 3, 8}) {
      for (const int64_t chunk : {64, 192, 512, 4096}) {
        const auto again = batch.run(function, threads, chunk, batch.attention);
        expect_same_bits(again.data(), together.data(), together.size(),
                         fmt::format("{} {} threads chunk {}", name, threads, chunk));
      }
    }
    // Each row cut into chunks at random places.
    for (const AttentionRow& row : batch.attention) {
      for (int32_t done = 0; done < row.count;) {
        const int32_t count =
            std::min(row.count - done, 1 + static_cast<int32_t>(batch.sequences.random()() % 90));
        const AttentionRow piece{row.first + done, count, row.start + done, row.block_table};
        const auto out = batch.run(function, 2, 128, {piece});
        expect_same_bits(out.data(), together.data() + piece.first * shape.heads * shape.value, out.size(),
                         fmt::format("{} tokens {} to {}", name, piece.start, piece.start + count));
        done += count;
      }
    }
  }
}

// A prompt's chunks project each place once, where there is room, with the bits of the whole.
TEST(ExtendAttention, WhatIsKeptIsNotProjectedAgain) {
  const auto kernels = flash_kernels_here();
  const auto function = blocked(kernels.back().kernels);
  for (const int64_t page_size : {7, 16, 64}) {
    const Shape shape{3, 32, 8, 16, 24, page_size, device::DType::kBF16};
    constexpr int32_t kLength = 500;
    Batch batch(shape, {{kLength, kLength}}, 9);
    const auto whole = batch.run(function, 2, 512, batch.attention);
    const int64_t width = shape.heads * (shape.nope + shape.value);
    const int64_t all = ceil_div<int64_t>(kLength, page_size);
    for (const int64_t pages : {all, all / 2}) {
      auto kept = KeptKeys::create(2, pages, page_size, width).value();
      projected_rows = 0;
      int64_t without = 0;
      for (int32_t done = 0; done < kLength;) {
        const int32_t count =
            std::min(kLength - done, 1 + static_cast<int32_t>(batch.sequences.random()() % 90));
        kept.begin_pass();
        const int32_t* table = batch.attention[0].block_table;
        for (int32_t p = done; p < done + count; ++p)
          kept.written(table[p / page_size] * page_size + p % page_size);
        AttentionRow piece{done, count, done, table};
        piece.goes_on = true;
        const auto out = batch.run(function, 2, 128, {piece}, &kept);
        expect_same_bits(out.data(), whole.data() + done * shape.heads * shape.value, out.size(),
                         fmt::format("pages of {}, {} kept, tokens from {}", page_size, pages, done));
        done += count;
        without += done;
      }
      if (pages == all) {
        EXPECT_EQ(projected_rows, kLength);
      } else {
        EXPECT_LT(projected_rows, without);
        EXPECT_GT(projected_rows, kLength);
      }
    }
  }
}

// Pages give way one by one, so what is kept may begin again behind what is not: also where a piece of a row
// ends, and its next piece must still wait for what this one leaves.
TEST(ExtendAttention, WhatIsKeptMayHaveHoles) {
  std::mt19937 random(11);
  const auto kernels = flash_kernels_here();
  const auto function = blocked(kernels.back().kernels);
  for (uint32_t round = 0; round < 60; ++round) {
    const int64_t page_size = std::array{7, 16, 64}[round % 3];
    const Shape shape{2, 32, 8, 16, 24, page_size, device::DType::kBF16};
    Batch batch(shape, random_rows(random, 700), round);
    const int64_t chunk = std::array{64, 128, 512}[random() % 3];
    const auto want = batch.run(function, 1, chunk, batch.attention);
    int64_t pages = 0;
    for (AttentionRow& row : batch.attention) {
      row.goes_on = true;
      pages += ceil_div<int64_t>(row.start + row.count, page_size);
    }
    auto kept = KeptKeys::create(2, pages, page_size, shape.heads * (shape.nope + shape.value)).value();
    batch.run(function, 1, chunk, batch.attention, &kept);
    for (AttentionRow& row : batch.attention) {
      row.goes_on = random() % 2 == 0;
      for (int64_t page = 0; page * page_size < row.start + row.count; ++page) {
        if (random() % 4 == 0)
          kept.written(row.block_table[page] * page_size + static_cast<int64_t>(random()) % page_size);
      }
    }
    kept.begin_pass();
    const int threads = 1 + static_cast<int>(random() % 3);
    const auto out = batch.run(function, threads, chunk, batch.attention, &kept);
    expect_same_bits(out.data(), want.data(), out.size(),
                     fmt::format("round {}, pages of {}, chunk {}", round, page_size, chunk));
  }
}

}  // namespace
}  // namespace fathom::ops
