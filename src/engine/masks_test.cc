#include "engine/masks_testing.h"

namespace fathom::engine {
namespace {

TEST(CpuMasks, AreKept) {
  expect_masks_to_be_kept(*start_demo_engine("cpu"));
}

TEST(CpuMasks, FailAlone) {
  expect_a_mask_to_fail_alone(*start_demo_engine("cpu"));
}

TEST(CpuMasks, GoWithGuesses) {
  const auto plain = start_demo_engine("cpu");
  SpeculationSettings trees;
  trees.algorithm = "EAGLE";
  trees.num_steps = 3;
  trees.eagle_topk = 4;
  trees.num_draft_tokens = 16;
  expect_masks_to_go_with_guesses(*plain, *start_demo_engine("cpu", trees));
  for (const char* algorithm : {"EAGLE", "NGRAM"}) {
    expect_masks_to_go_with_guesses(
        *plain, *start_demo_engine("cpu", {.algorithm = algorithm, .draft_model_path = {}}));
  }
}

}  // namespace
}  // namespace fathom::engine
