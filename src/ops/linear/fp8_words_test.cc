#include "ops/linear/fp8_words.h"

#include <gtest/gtest.h>

#include <set>

namespace fathom::ops::cuda {
namespace {

TEST(Fp8Words, EveryValueComesBackFromEveryPlace) {
  for (int bits = 0; bits < 256; ++bits) {
    for (int value = 0; value < 4; ++value) {
      const uint32_t word = fp8_bits(static_cast<uint8_t>(bits), value);
      EXPECT_EQ(word & ~fp8_mask(value), 0U);
      // Whatever the others are.
      EXPECT_EQ(fp8_value(word | ~fp8_mask(value), value), bits);
      EXPECT_EQ(fp8_value(word, value), bits);
    }
  }
  EXPECT_EQ(fp8_mask(0) ^ fp8_mask(1) ^ fp8_mask(2) ^ fp8_mask(3), 0xffffffffU);
}

TEST(Fp8Words, EachColumnHasItsPlace) {
  std::set<std::pair<int64_t, int>> seen;
  for (int64_t k = 0; k < 64; ++k) {
    const Fp8Place place = fp8_place(k);
    EXPECT_EQ(fp8_column(place), k);
    EXPECT_EQ(place.word / 4, k / 16);
    seen.insert({place.word, place.value});
  }
  EXPECT_EQ(seen.size(), 64U);
}

}  // namespace
}  // namespace fathom::ops::cuda
