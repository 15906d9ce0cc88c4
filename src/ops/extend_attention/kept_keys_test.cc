#include "ops/extend_attention/kept_keys.h"

#include <gtest/gtest.h>

namespace fathom::ops {
namespace {

constexpr int64_t kLayers = 2, kPageSize = 4, kWidth = 3;

KeptKeys with_room_for(int64_t pages) {
  return KeptKeys::create(kLayers, pages, kPageSize, kWidth).value();
}
void fill(KeptKeys& kept, int64_t layer, int64_t page, int64_t offset, int64_t count, float value) {
  float* to = kept.keep(layer, page, offset, count);
  ASSERT_NE(to, nullptr) << "page " << page;
  for (int64_t i = 0; i < count * kWidth; ++i) to[i] = value;
}

TEST(KeptKeys, GrowWithTheirPage) {
  KeptKeys kept = with_room_for(2);
  EXPECT_EQ(kept.count(0, 70), 0);
  EXPECT_EQ(kept.keep(0, 70, 1, 1), nullptr) << "what is before it is not kept";
  fill(kept, 0, 70, 0, 2, 1.0F);
  fill(kept, 0, 70, 2, 2, 2.0F);
  fill(kept, 1, 70, 0, 1, 3.0F);
  EXPECT_EQ(kept.count(0, 70), 4);
  EXPECT_EQ(kept.count(1, 70), 1);
  EXPECT_EQ(kept.entry(0, 70, 1)[2], 1.0F);
  EXPECT_EQ(kept.entry(0, 70, 3)[0], 2.0F);
  EXPECT_EQ(kept.entry(1, 70, 0)[0], 3.0F);
  EXPECT_EQ(kept.count(0, 71), 0);
  EXPECT_EQ(kept.count(0, 1000), 0);
}

TEST(KeptKeys, EndWhereTheCacheIsWritten) {
  KeptKeys kept = with_room_for(2);
  for (const int64_t layer : {0, 1}) fill(kept, layer, 5, 0, 4, 1.0F);
  fill(kept, 0, 6, 0, 4, 1.0F);
  kept.written(5 * kPageSize + 2);
  EXPECT_EQ(kept.count(0, 5), 2);
  EXPECT_EQ(kept.count(1, 5), 2);
  EXPECT_EQ(kept.count(0, 6), 4);
  kept.written(5 * kPageSize + 3);  // beyond what is kept
  EXPECT_EQ(kept.count(0, 5), 2);
  kept.written(900 * kPageSize);  // of a page that was never kept
}

TEST(KeptKeys, GiveWayOnceNobodyUsesThem) {
  KeptKeys kept = with_room_for(2);
  fill(kept, 0, 1, 0, 4, 1.0F);
  fill(kept, 0, 2, 0, 4, 2.0F);
  EXPECT_EQ(kept.keep(0, 3, 0, 4), nullptr) << "both are in use";
  for (uint64_t pass = 0; pass <= KeptKeys::kIdle; ++pass) {
    kept.begin_pass();
    EXPECT_EQ(kept.count(0, 2), 4);
  }
  fill(kept, 0, 3, 0, 4, 3.0F);
  EXPECT_EQ(kept.count(0, 1), 0);
  EXPECT_EQ(kept.entry(0, 2, 0)[0], 2.0F);
  EXPECT_EQ(kept.entry(0, 3, 0)[0], 3.0F);
  EXPECT_EQ(kept.keep(0, 1, 0, 1), nullptr);
}

}  // namespace
}  // namespace fathom::ops
