// What the attention ops' tests share: the implementations to try, and sequences in a paged cache whose
// unused entries are poisoned. Included by tests only.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "base/math.h"
#include "device/launch.h"
#include "ops/attention/flash.h"
#include "ops/kv_cache.h"
#include "ops/test_size.h"

namespace fathom::ops {

// emulated_test.cc
const FlashKernels& emulated_flash_kernels();
const FlashKernels& emulated_pair_flash_kernels();

namespace {

// Outputs are averages of values of standard deviation 1, by scores of standard deviation about 2.
//
// Float32 kernels add products that the reference adds in double. The rounding errors of a chain of a few
// hundred fused multiply-adds add up like a random walk: sqrt(600) * 2^-24 * (partial sums up to 10) = 1.5e-5
// as an absolute error of a score, which is a relative error of a weight; values stay below 5.
inline constexpr float kFloatTolerance = 5e-5F;
// Kernels of bf16 pairs also round queries, keys, weights and values to 8 bits: by 2^-8 of themselves at
// most, by 2^-9.2 in the root mean square. A score adds products of two rounded factors, so of its deviation
// 2 it is off by 2 * sqrt(2) * 2^-9.2 = 0.005, and a weight by as large a share of itself. Two keys of equal
// weight whose values lie 6 apart then move the output by 0.5 * 3 * sqrt(2) * 0.005 = 0.01 (one standard
// deviation), and by four of them somewhere; values up to 4.5 add 4.5 * 2^-8 = 0.018.
inline constexpr float kPairTolerance = 6e-2F;

inline const float kPoison = std::numeric_limits<float>::quiet_NaN();

// The flash kernels that can run here, by name; the 16-lane shape always, at least emulated.
struct NamedKernels {
  std::string name;
  const FlashKernels* kernels;
};
inline std::vector<NamedKernels> flash_kernels_here() {
  std::vector<NamedKernels> list{{"emulated16", &emulated_flash_kernels()},
                                 {"emulated16-pairs", &emulated_pair_flash_kernels()}};
  const device::Isa isa = device::detect_isa();
  if (isa >= device::Isa::kAvx2) list.push_back({"avx2", &kFlashAvx2});
  if (isa >= device::Isa::kAvx512) list.push_back({"avx512", &kFlashAvx512});
  if (isa >= device::Isa::kAvx512Bf16) list.push_back({"avx512-bf16", &kFlashAvx512Bf16});
  return list;
}
inline std::vector<device::Isa> levels_here() {
  std::vector<device::Isa> levels;
  for (int i = 0; i <= static_cast<int>(device::detect_isa()); ++i)
    levels.push_back(static_cast<device::Isa>(i));
  return levels;
}

// Places of the longest rows of a test's `round`: a few blocks of keys and splits, or one of each and a tail.
inline uint32_t longest_row(uint32_t round) {
  return small_tests() && round % 4 != 0 ? 300 : 700;
}

// Sequences in shuffled pages; every value that no sequence owns is NaN, in the last pages as well.
class PagedSequences {
 public:
  PagedSequences(std::vector<int32_t> lengths, int64_t page_size, int64_t width, device::DType dtype,
                 uint32_t seed)
      : random_(seed) {
    int64_t pages = 3 + 64 / page_size;  // some belong to nobody
    for (const int32_t length : lengths) pages += ceil_div<int64_t>(length, page_size);
    data_.resize(static_cast<size_t>(pages * page_size * width * device::size_of(dtype)));
    cache_ = {data_.data(), dtype, pages, page_size, width};
    std::vector<int32_t> order(static_cast<size_t>(pages));
    for (size_t i = 0; i < order.size(); ++i) order[i] = static_cast<int32_t>(i);
    std::shuffle(order.begin(), order.end(), random_);
    for (int64_t page = 0; page < pages; ++page) {
      for (int64_t i = 0; i < page_size; ++i) {
        for (int64_t d = 0; d < width; ++d) set(page, i, d, kPoison);
      }
    }
    std::normal_distribution<float> normal;
    size_t next = 0;
    for (const int32_t length : lengths) {
      auto& table = tables_.emplace_back();
      for (int64_t p = 0; p < length; ++p) {
        if (p % page_size == 0) table.push_back(order[next++]);
        for (int64_t d = 0; d < width; ++d) set(table.back(), p % page_size, d, normal(random_));
      }
    }
    for (; next < order.size(); ++next) {
      for (int64_t i = 0; i < page_size; ++i) spare_.push_back(order[next] * page_size + i);
    }
    std::shuffle(spare_.begin(), spare_.end(), random_);
  }

  const KvCache& cache() const { return cache_; }
  // A copy of the sequence's place p in an entry that belongs to nobody; page * page_size + offset.
  int64_t copy_of(size_t sequence, int64_t p) {
    const auto bytes = static_cast<size_t>(cache_.width * device::size_of(cache_.dtype));
    const int64_t page = tables_[sequence][static_cast<size_t>(p / cache_.page_size)];
    const int64_t place = spare_.at(next_spare_++);
    std::memcpy(cache_.entry(place / cache_.page_size, place % cache_.page_size),
                cache_.entry(page, p % cache_.page_size), bytes);
    return place;
  }
  // Nobody reads the sequence's own entry any more.
  void poison(size_t sequence, int64_t p) {
    const int64_t page = tables_[sequence][static_cast<size_t>(p / cache_.page_size)];
    for (int64_t d = 0; d < cache_.width; ++d) set(page, p % cache_.page_size, d, kPoison);
  }
  const int32_t* table(size_t sequence) const { return tables_[sequence].data(); }
  std::mt19937& random() { return random_; }

 private:
  void set(int64_t page, int64_t offset, int64_t d, float value) {
    void* entry = cache_.entry(page, offset);
    if (cache_.dtype == device::DType::kBF16)
      static_cast<uint16_t*>(entry)[d] = device::f32_to_bf16(value);
    else
      static_cast<float*>(entry)[d] = value;
  }

  std::mt19937 random_;
  std::vector<std::byte> data_;
  KvCache cache_;
  std::vector<std::vector<int32_t>> tables_;
  std::vector<int64_t> spare_;  // entries
  size_t next_spare_ = 0;
};

inline std::vector<float> random_values(size_t count, std::mt19937& random, float deviation = 1.0F) {
  std::normal_distribution<float> normal(0.0F, deviation);
  std::vector<float> values(count);
  for (float& value : values) value = normal(random);
  return values;
}

// Non-finite places first, then the largest difference.
inline void expect_close(const std::vector<float>& got, const std::vector<float>& want, float tolerance,
                         const std::string& what) {
  ASSERT_EQ(got.size(), want.size()) << what;
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_EQ(std::isfinite(got[i]), std::isfinite(want[i]))
        << what << " at " << i << ": " << got[i] << " for " << want[i];
  }
  size_t worst = got.size();
  for (size_t i = 0; i < got.size(); ++i) {
    if (!std::isfinite(want[i])) continue;
    if (worst == got.size() || std::fabs(got[i] - want[i]) > std::fabs(got[worst] - want[worst])) worst = i;
  }
  if (worst == got.size()) return;
  EXPECT_LE(std::fabs(got[worst] - want[worst]), tolerance)
      << what << " at " << worst << ": " << got[worst] << " for " << want[worst];
}

inline void expect_same_bits(const float* got, const float* want, size_t count, const std::string& what) {
  for (size_t i = 0; i < count; ++i) {
    ASSERT_EQ(std::bit_cast<uint32_t>(got[i]), std::bit_cast<uint32_t>(want[i]))
        << what << " at " << i << ": " << got[i] << " for " << want[i];
  }
}

}  // namespace
}  // namespace fathom::ops
