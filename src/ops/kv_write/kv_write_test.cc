#include "ops/kv_write/kv_write.h"

#include <gtest/gtest.h>

#include <cstring>
#include <numeric>

#include "ops/attention/testing.h"
#include "ops/rope/rope.h"

namespace fathom::ops {
namespace {

// Values of order 1 to 10, each the result of a few float32 roundings and, in the norm, of one mean.
constexpr float kTolerance = 2e-5F;

RopeTable table_of(int64_t positions, int64_t half) {
  RopeTable table;
  table.positions = positions;
  table.half = half;
  for (int64_t p = 0; p < positions; ++p) {
    for (int64_t i = 0; i < half; ++i) {
      const double angle =
          static_cast<double>(p) * std::pow(10000.0, -static_cast<double>(i) / static_cast<double>(half));
      table.cos.push_back(static_cast<float>(std::cos(angle) * 1.1));
      table.sin.push_back(static_cast<float>(std::sin(angle) * 1.1));
    }
  }
  return table;
}

// A poisoned cache and places for `tokens`, shuffled over its pages.
struct Target {
  Target(int64_t tokens, int64_t page_size, int64_t width, device::DType dtype, std::mt19937& random) {
    const int64_t pages = ceil_div(tokens, page_size) + 2;
    data.resize(static_cast<size_t>(pages * page_size * width * device::size_of(dtype)), std::byte{0xff});
    cache = {data.data(), dtype, pages, page_size, width};
    places.resize(static_cast<size_t>(pages * page_size));
    std::iota(places.begin(), places.end(), 0);
    std::shuffle(places.begin(), places.end(), random);
    places.resize(static_cast<size_t>(tokens));
  }
  std::vector<float> values() const {
    std::vector<float> list;
    for (int64_t i = 0; i < cache.num_pages * cache.page_size * cache.width; ++i) {
      list.push_back(device::load_as_f32(data.data(), cache.dtype, i));
    }
    return list;
  }
  std::vector<std::byte> data;
  KvCache cache;
  std::vector<int64_t> places;
};

TEST(Rope, EveryLevelAgreesWithTheReference) {
  std::mt19937 random(6);
  for (const int64_t half : {1, 4, 7, 16, 32}) {
    for (const int64_t tokens : {1, 5, 300}) {
      const int64_t heads = 3, skip = 5, width = skip + 2 * half;
      const RopeTable table = table_of(400, half);
      const auto x = random_values(static_cast<size_t>(tokens * heads * width), random);
      std::vector<int32_t> positions;
      for (int64_t t = 0; t < tokens; ++t) positions.push_back(static_cast<int32_t>(random() % 400));
      const auto run = [&](RopeFunction function) {
        std::vector<float> y = x;
        RopeArgs args;
        args.x = device::Tensor(y.data(), device::DType::kF32, {tokens, heads, width});
        args.positions = positions.data();
        args.table = &table;
        ThreadPool pool(2);
        device::Launch launch(pool);
        function(launch, args);
        return y;
      };
      const auto want = run(rope_reference);
      for (const device::Isa isa : levels_here()) {
        device::Target target;
        target.isa = isa;
        const auto got = run(choose_rope(target));
        expect_close(got, want, kTolerance, fmt::format("{} half {}", to_string(isa), half));
        for (size_t i = 0; i < x.size(); ++i) {
          if (static_cast<int64_t>(i) % width < skip) {
            ASSERT_EQ(got[i], x[i]);
          }
        }
      }
    }
  }
}

TEST(KvWrite, LatentEntriesAgreeWithTheReference) {
  std::mt19937 random(7);
  for (const device::DType dtype : {device::DType::kF32, device::DType::kBF16}) {
    for (const auto& [latent, half] : {std::pair<int64_t, int64_t>{512, 32}, {32, 4}, {100, 8}, {13, 3}}) {
      const int64_t tokens = 70, width = latent + 2 * half;
      const RopeTable table = table_of(200, half);
      auto kv_a = random_values(static_cast<size_t>(tokens * width), random, 2.0F);
      const auto weight = random_values(static_cast<size_t>(latent), random);
      std::vector<int32_t> positions;
      for (int64_t t = 0; t < tokens; ++t) positions.push_back(static_cast<int32_t>(random() % 200));
      const Target layout(tokens, 7, width, dtype, random);
      const auto run = [&](LatentWriteFunction function, bool copied) {
        Target target = layout;
        target.cache.data = target.data.data();
        std::vector<float> copy(kv_a.size(), kPoison);
        device::Tensor copy_tensor(copy.data(), device::DType::kF32, {tokens, width});
        LatentWriteArgs args;
        args.kv_a = device::Tensor(kv_a.data(), device::DType::kF32, {tokens, width});
        args.norm_weight = weight.data();
        args.rope = &table;
        args.positions = positions.data();
        args.places = target.places.data();
        args.cache = target.cache;
        if (copied) args.copy = &copy_tensor;
        ThreadPool pool(2);
        device::Launch launch(pool);
        function(launch, args);
        return std::pair(target.values(), copy);
      };
      const auto want = run(latent_write_reference, true);
      for (const device::Isa isa : levels_here()) {
        device::Target target;
        target.isa = isa;
        const std::string what = fmt::format("{} {} latent {}", to_string(isa), to_string(dtype), latent);
        const auto got = run(choose_latent_write(target), true);
        expect_close(got.second, want.second, kTolerance, what);
        // The two differ by a float32 rounding or so; its own rounding to the cache is judged below.
        for (size_t i = 0; i < got.first.size(); ++i) {
          ASSERT_EQ(std::isnan(got.first[i]), std::isnan(want.first[i])) << what << " at " << i;
          if (std::isnan(got.first[i])) continue;
          const float unit = dtype == device::DType::kBF16 ? 0x1p-7F * std::fabs(want.first[i]) : 0.0F;
          ASSERT_NEAR(got.first[i], want.first[i], unit + kTolerance) << what << " at " << i;
        }
        const auto without_copy = run(choose_latent_write(target), false);
        for (size_t i = 0; i < got.first.size(); ++i) {
          ASSERT_EQ(std::isnan(without_copy.first[i]), std::isnan(got.first[i]));
          if (std::isnan(got.first[i])) continue;
          ASSERT_EQ(without_copy.first[i], got.first[i]);
        }
        // The cache holds the copy, rounded to nearest even.
        for (int64_t t = 0; t < tokens; ++t) {
          for (int64_t d = 0; d < width; ++d) {
            const float exact = got.second[static_cast<size_t>(t * width + d)];
            const float stored =
                got.first[static_cast<size_t>(layout.places[static_cast<size_t>(t)] * width + d)];
            ASSERT_EQ(stored,
                      dtype == device::DType::kF32 ? exact : device::bf16_to_f32(device::f32_to_bf16(exact)));
          }
        }
      }
    }
  }
}

TEST(KvWrite, PlainEntriesAreCopies) {
  std::mt19937 random(8);
  for (const device::DType dtype : {device::DType::kF32, device::DType::kBF16}) {
    const int64_t tokens = 9, heads = 3, nope = 20, rope = 8, value = 13;
    auto k_nope_v = random_values(static_cast<size_t>(tokens * heads * (nope + value)), random);
    auto k_rope = random_values(static_cast<size_t>(tokens * rope), random);
    k_nope_v[5] = std::numeric_limits<float>::infinity();
    k_nope_v[6] =
        std::bit_cast<float>(0x7f800001U);  // a NaN whose payload rounding would carry into infinity
    k_nope_v[7] = std::bit_cast<float>(0x7f7fffffU);  // the largest float rounds to infinity in bf16
    k_nope_v[8] = std::bit_cast<float>(0x3f808000U);  // a tie, to even
    const Target layout(tokens, 16, heads * (nope + rope + value), dtype, random);
    const auto run = [&](PlainWriteFunction function) {
      Target target = layout;
      target.cache.data = target.data.data();
      PlainWriteArgs args;
      args.k_nope_v = device::Tensor(k_nope_v.data(), device::DType::kF32, {tokens, heads, nope + value});
      args.k_rope = device::Tensor(k_rope.data(), device::DType::kF32, {tokens, rope});
      args.nope = nope;
      args.places = target.places.data();
      args.cache = target.cache;
      ThreadPool pool(2);
      device::Launch launch(pool);
      function(launch, args);
      return target.data;
    };
    const auto want = run(plain_write_reference);
    for (const device::Isa isa : levels_here()) {
      device::Target target;
      target.isa = isa;
      EXPECT_EQ(std::memcmp(run(choose_plain_write(target)).data(), want.data(), want.size()), 0)
          << to_string(isa) << " " << to_string(dtype);
    }
  }
}

}  // namespace
}  // namespace fathom::ops
