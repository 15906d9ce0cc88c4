#include "dist/network.h"

#include <gtest/gtest.h>

namespace fathom::dist {
namespace {

// The largest sum of float32 rows to bfloat16 that is sent at once, in KiB.
int64_t most(const Network& network, int size) {
  int64_t kib = 0;
  while (kib < 1 << 20 && sums_at_once(network, (kib + 1) << 10, (kib + 1) << 9, size)) ++kib;
  return kib;
}

TEST(Network, FewRowsAreSentAtOnce) {
  const Network slow{.latency = 20e-6, .per_byte = 1.0 / 25e9};   // 500 KB in the time of a trip
  const Network fast{.latency = 20e-6, .per_byte = 1.0 / 100e9};  // 2 MB
  // Two ranks: B bytes once, or 3/4 B and a trip. 16: 15 B, or 45/32 B.
  EXPECT_EQ(most(slow, 2), 4 * 500'000 / 1024);
  EXPECT_EQ(most(fast, 2), 4 * 2'000'000 / 1024);
  EXPECT_EQ(most(slow, 16), static_cast<int64_t>(500'000 / (15.0 - 45.0 / 32.0) / 1024));
  EXPECT_FALSE(sums_at_once({.latency = 0.0, .per_byte = 1e-9}, 1024, 512, 2)) << "a trip costs nothing";
}

}  // namespace
}  // namespace fathom::dist
