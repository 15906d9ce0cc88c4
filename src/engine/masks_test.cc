#include "engine/masks_testing.h"

namespace fathom::engine {
namespace {

TEST(CpuMasks, AreKept) {
  expect_masks_to_be_kept(*start_demo_engine("cpu"));
}

TEST(CpuMasks, FailAlone) {
  expect_a_mask_to_fail_alone(*start_demo_engine("cpu"));
}

}  // namespace
}  // namespace fathom::engine
