#include <algorithm>
#include <array>
#include <numeric>
#include <optional>

#include "ops/cuda_testing.h"
#include "ops/kv_write/cuda.h"
#include "ops/kv_write/kv_write.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;
using device::cuda::testing::DeviceArray;

constexpr DType kCacheTypes[] = {DType::kF32, DType::kBF16, DType::kF8E4M3, DType::kF8E5M2};
constexpr int64_t kPositions = 300;
// A norm (rms_norm_cuda_test.cc) and a rotation in float32, of values of order 1 to 10.
constexpr float kRelative = 1e-5F;
constexpr float kAbsolute = 1e-5F;
// A value between two of a format's may fall to either when its float32 differs in the last place: then the
// two differ by a whole unit. Below the smallest normal number the unit is that of the smallest.
float relative_of(DType dtype) {
  return kRelative + 2 * half_unit(dtype);
}
float absolute_of(DType dtype) {
  return kAbsolute + (dtype == DType::kF8E4M3 ? 0x1p-9F : dtype == DType::kF8E5M2 ? 0x1p-16F : 0.0F);
}
float largest_of(DType dtype) {
  return dtype == DType::kF8E4M3   ? 448.0F
         : dtype == DType::kF8E5M2 ? 57344.0F
                                   : std::numeric_limits<float>::max();
}

// A batch with padding, its places shuffled over a cache of whole pages.
struct Batch {
  Batch(int64_t tokens, std::mt19937& random) : page_size(16), entries(((tokens + 40) / 16 + 1) * 16) {
    places.resize(static_cast<size_t>(entries));
    std::iota(places.begin(), places.end(), 0);
    std::shuffle(places.begin(), places.end(), random);
    places.resize(static_cast<size_t>(tokens));
    for (int64_t t = 0; t < tokens; ++t) {
      const bool padding = t % 6 == 4;
      positions.push_back(padding ? -1 : static_cast<int32_t>(random() % kPositions));
      if (padding) places[static_cast<size_t>(t)] = int64_t{1} << 50;  // undefined: must not be looked at
    }
    device_places.emplace(places);
    device_positions.emplace(positions);
    view.tokens = tokens;
    view.positions = device_positions->data();
    view.places = device_places->data();
  }
  int64_t page_size, entries;
  std::vector<int64_t> places;
  std::vector<int32_t> positions;
  std::optional<DeviceArray<int64_t>> device_places;
  std::optional<DeviceArray<int32_t>> device_positions;
  BatchView view;
};

// What a float32 cache holds after the reference wrote it, NaN where nothing was written.
template <class Args, class Function>
std::vector<float> reference_cache(const Batch& batch, Args args, int64_t width, Function function) {
  std::vector<float> cache(static_cast<size_t>(batch.entries * width),
                           std::numeric_limits<float>::quiet_NaN());
  args.places = batch.places.data();
  args.cache = {cache.data(), DType::kF32, batch.entries / batch.page_size, batch.page_size, width};
  ThreadPool pool(1);
  device::Launch launch(pool);
  function(launch, args);
  return cache;
}

std::vector<float> saturated(std::vector<float> values, DType dtype) {
  for (float& value : values) {
    if (!std::isnan(value)) value = std::clamp(value, -largest_of(dtype), largest_of(dtype));
  }
  return values;
}

// Rows of the tokens that are not padding.
std::vector<float> without_padding(const std::vector<float>& rows, const Batch& batch, int64_t width) {
  std::vector<float> kept;
  for (size_t t = 0; t < batch.positions.size(); ++t) {
    if (batch.positions[t] < 0) continue;
    const auto row = rows.begin() + static_cast<int64_t>(t) * width;
    kept.insert(kept.end(), row, row + width);
  }
  return kept;
}

struct LatentShape {
  int64_t latent, half;
};

TEST(KvWriteCuda, LatentEntriesAgreeWithTheReference) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(1);
  for (const auto& [latent, half] : {LatentShape{512, 32}, {32, 4}, {100, 8}, {13, 3}, {1024, 64}, {40, 6}}) {
    const int64_t width = latent + 2 * half;
    RopeTable table;
    table.positions = kPositions;
    table.half = half;
    for (int64_t i = 0; i < kPositions * half; ++i) {
      table.cos.push_back(std::cos(static_cast<float>(i % 1000)));
      table.sin.push_back(std::sin(static_cast<float>(i % 1000)));
    }
    const DeviceArray<float> cos(table.cos), sin(table.sin);
    for (const DType cache_type : kCacheTypes) {
      for (const DType x_type : {DType::kF32, DType::kBF16}) {
        for (const int64_t tokens : {1, 70}) {
          const int64_t gap = static_cast<int64_t>(random() % 2) * 5;
          const Batch batch(tokens, random);
          auto kv_a = rounded(x_type, random_floats(tokens * width, random, 2.0F));
          kv_a.back() = 1e6F;  // a rope value beyond FP8
          kv_a = rounded(x_type, kv_a);
          const auto weight = random_floats(latent, random);
          const DeviceMatrix device_kv_a(x_type, tokens, width, kv_a, gap);
          const DeviceArray<float> device_weight(weight);
          const DeviceMatrix copy(x_type, tokens, width, gap);
          LatentWriteArgs args;
          args.kv_a = device_kv_a.view();
          args.norm_weight = device_weight.data();
          args.rope = {cos.data(), sin.data(), half};
          args.batch = batch.view;
          const auto run = [&](bool copied) {
            const DeviceValues cache(cache_type, batch.entries * width);
            args.cache = {cache.data(), cache_type, batch.page_size, width};
            args.copy = copied ? copy.view() : Matrix{};
            latent_write(stream, args);
            return cache.get();
          };
          const auto got = run(true);
          const std::string what =
              fmt::format("{} latent {} half {} tokens {}", to_string(cache_type), latent, half, tokens);
          expect_same(run(false), got, width, what + " without a copy");

          // The reference knows no padding: its tokens are those that count.
          Batch counted = Batch(1, random);
          counted.entries = batch.entries;
          counted.places.clear();
          counted.positions.clear();
          for (size_t t = 0; t < batch.places.size(); ++t) {
            if (batch.positions[t] < 0) continue;
            counted.places.push_back(batch.places[t]);
            counted.positions.push_back(batch.positions[t]);
          }
          auto rows = without_padding(kv_a, batch, width);
          const auto count = static_cast<int64_t>(counted.places.size());
          std::vector<float> want_copy(rows.size());
          device::Tensor copy_tensor(want_copy.data(), DType::kF32, {count, width});
          ops::LatentWriteArgs ref;
          ref.kv_a = device::Tensor(rows.data(), DType::kF32, {count, width});
          ref.norm_weight = weight.data();
          ref.rope = &table;
          ref.positions = counted.positions.data();
          ref.copy = &copy_tensor;
          const auto want = reference_cache(counted, ref, width, latent_write_reference);
          expect_near(got, saturated(want, cache_type), relative_of(cache_type), absolute_of(cache_type),
                      width, what);
          expect_near(without_padding(copy.get(), batch, width), want_copy, relative_of(x_type), kAbsolute,
                      width, what + " copy");
          // In one dtype, the cache holds the copy.
          if (cache_type == x_type) {
            const auto copies = without_padding(copy.get(), batch, width);
            for (int64_t t = 0; t < count; ++t) {
              const auto entry = got.begin() + counted.places[static_cast<size_t>(t)] * width;
              expect_same({entry, entry + width},
                          {copies.begin() + t * width, copies.begin() + (t + 1) * width}, width,
                          what + " entry and copy");
            }
          }
        }
      }
    }
  }
}

// Fused or, where it does not fit, one after the other: the same bits as the two ops.
TEST(KvWriteCuda, RopeAndLatentWriteAreTheTwoOps) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(3);
  for (const auto& [latent, half] : {LatentShape{512, 32}, {32, 4}, {1024, 64}, {100, 8}}) {
    const int64_t width = latent + 2 * half, heads = 5, q_width = 16 + 2 * half;
    const DeviceArray<float> cos(random_floats(kPositions * half, random)),
        sin(random_floats(kPositions * half, random)), weight(random_floats(latent, random));
    for (const DType cache_type : kCacheTypes) {
      for (const DType dtype : {DType::kF32, DType::kBF16}) {
        const int64_t tokens = 23;
        const Batch batch(tokens, random);
        const DeviceMatrix q(dtype, tokens, heads * q_width, random_floats(tokens * heads * q_width, random));
        const DeviceMatrix kv_a(dtype, tokens, width, random_floats(tokens * width, random));
        RopeArgs rope_args;
        rope_args.x = q.view();
        rope_args.heads = heads;
        rope_args.width = q_width;
        rope_args.y_head_stride = width;
        rope_args.y_offset = latent;
        rope_args.positions = batch.view.positions;
        rope_args.table = {cos.data(), sin.data(), half};
        LatentWriteArgs args;
        args.kv_a = kv_a.view();
        args.norm_weight = weight.data();
        args.rope = rope_args.table;
        args.batch = batch.view;
        const auto run = [&](bool fused) {
          const DeviceValues cache(cache_type, batch.entries * width);
          const DeviceMatrix y(dtype, tokens, heads * width), copy(dtype, tokens, width);
          rope_args.y = y.view();
          args.cache = {cache.data(), cache_type, batch.page_size, width};
          args.copy = copy.view();
          if (fused) {
            rope_and_latent_write(stream, rope_args, args);
          } else {
            cuda::rope(stream, rope_args);
            latent_write(stream, args);
          }
          return std::array{cache.get(), y.get(), copy.get()};
        };
        const auto fused = run(true), apart = run(false);
        for (size_t i = 0; i < fused.size(); ++i) {
          expect_same(fused[i], apart[i], width, fmt::format("latent {} output {}", latent, i));
        }
      }
    }
  }
}

TEST(KvWriteCuda, PlainEntriesAreRoundedCopies) {
  FATHOM_GPU_OR_SKIP(stream);
  std::mt19937 random(2);
  struct Shape {
    int64_t heads, nope, rope, value;
  };
  for (const auto& [heads, nope, rope, value] :
       {Shape{16, 128, 64, 128}, {4, 16, 8, 16}, {3, 20, 8, 13}, {2, 8, 6, 8}}) {
    const int64_t width = heads * (nope + rope + value);
    for (const DType cache_type : kCacheTypes) {
      for (const DType x_type : {DType::kF32, DType::kBF16}) {
        const int64_t tokens = 13;
        const Batch batch(tokens, random);
        auto kv = rounded(x_type, random_floats(tokens * heads * (nope + value), random, 20.0F));
        auto k_rope = rounded(x_type, random_floats(tokens * rope, random));
        kv[5] = 1e9F;
        kv[6] = std::numeric_limits<float>::quiet_NaN();
        kv = rounded(x_type, kv);
        const DeviceMatrix device_kv(x_type, tokens, heads * (nope + value), kv, 8);
        const DeviceMatrix device_rope(x_type, tokens, rope, k_rope, 8);
        const DeviceValues cache(cache_type, batch.entries * width);
        PlainWriteArgs args;
        args.k_nope_v = device_kv.view();
        args.k_rope = device_rope.view();
        args.heads = heads;
        args.nope = nope;
        args.value = value;
        args.batch = batch.view;
        args.cache = {cache.data(), cache_type, batch.page_size, width};
        plain_write(stream, args);

        Batch counted = Batch(1, random);
        counted.entries = batch.entries;
        counted.places.clear();
        for (size_t t = 0; t < batch.places.size(); ++t) {
          if (batch.positions[t] >= 0) counted.places.push_back(batch.places[t]);
        }
        auto kv_rows = without_padding(kv, batch, heads * (nope + value));
        auto rope_rows = without_padding(k_rope, batch, rope);
        const auto count = static_cast<int64_t>(counted.places.size());
        ops::PlainWriteArgs ref;
        ref.k_nope_v = device::Tensor(kv_rows.data(), DType::kF32, {count, heads, nope + value});
        ref.k_rope = device::Tensor(rope_rows.data(), DType::kF32, {count, rope});
        ref.nope = nope;
        auto want = saturated(reference_cache(counted, ref, width, plain_write_reference), cache_type);
        for (float& v : want) {
          if (cache_type == DType::kF8E4M3) v = device::f8e4m3_to_f32(f32_to_f8e4m3(v));
          if (cache_type == DType::kBF16) v = rounded(DType::kBF16, v);
        }
        // Only E5M2 has no encoder on the host.
        const bool exact = cache_type != DType::kF8E5M2;
        expect_near(cache.get(), want, exact ? 0.0F : half_unit(cache_type), exact ? 0.0F : 0x1p-17F, width,
                    fmt::format("{} {} heads {}+{}+{}", to_string(cache_type), heads, nope, rope, value));
      }
    }
  }
}

}  // namespace
}  // namespace fathom::ops::cuda
