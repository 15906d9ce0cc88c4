#include "device/cpu/probe.h"

#include <gtest/gtest.h>

namespace fathom::device {
namespace {

// Nothing exact can be said of a machine that others share; but what is outside these bounds was not
// measured.
TEST(Probe, ReadsMemoryAtAPlausibleSpeed) {
  ThreadPool pool(2);
  auto probe = BandwidthProbe::create(pool, size_t{64} << 20);
  ASSERT_TRUE(probe.ok());
  for (const double share : {1.0, 0.5}) {
    const double rate = probe->measure(pool, 2, share);
    EXPECT_GT(rate, 0.1);
    EXPECT_LT(rate, 20000);
  }
}

TEST(Probe, EachLevelComputesNoSlowerThanPlainCode) {
  ThreadPool pool(1);
  const double plain = measure_compute_peak(pool, Isa::kReference, false);
  EXPECT_GT(plain, 0.05);
  for (int level = 1; level <= static_cast<int>(detect_isa()); ++level) {
    for (const bool bf16 : {false, true}) {
      EXPECT_GT(measure_compute_peak(pool, static_cast<Isa>(level), bf16), plain) << level << bf16;
    }
  }
}

TEST(Probe, MoreMemoryThanThereIsIsAnError) {
  ThreadPool pool(1);
  EXPECT_FALSE(BandwidthProbe::create(pool, size_t{1} << 62).ok());
}

}  // namespace
}  // namespace fathom::device
