#include "model/memory.h"

#include <gtest/gtest.h>

#include "model/model.h"
#include "model/testing.h"

namespace fathom::model {
namespace {

const std::string kRoot = FATHOM_SOURCE_DIR "/";

// The released V3: 671B parameters, 37B of them active, 576 latent values a token and layer.
constexpr char kV3[] =
    R"({"model_type": "deepseek_v3", "max_position_embeddings": 163840, "quantization_config":
    {"quant_method": "fp8", "weight_block_size": [128, 128]}})";

TEST(Memory, KnowsTheReleasedModel) {
  const auto config = parse_config(kV3).value();
  const MemoryPlan plan = plan_memory(config, {});
  EXPECT_NEAR(static_cast<double>(plan.parameters), 671.0e9, 0.5e9);
  EXPECT_NEAR(static_cast<double>(plan.active_parameters), 37.5e9, 0.8e9);
  EXPECT_EQ(plan.kv_bytes_per_token, 61 * 576 * 2);
  MemoryOptions plain;
  plain.mla = false;
  EXPECT_EQ(plan_memory(config, plain).kv_bytes_per_token, int64_t{61} * 128 * 320 * 2);
}

TEST(Memory, CountsADraftLayer) {
  auto config = parse_config(kV3).value();
  config.draft_layers = 1;
  const MemoryPlan plan = plan_memory(config, {});
  // 11.5 billion parameters more: a MoE layer, and 7168 x 14336 that join token and hidden state.
  EXPECT_NEAR(static_cast<double>(plan.parameters), 682.6e9, 0.5e9);
  EXPECT_EQ(plan.kv_bytes_per_token, 62 * 576 * 2);
}

TEST(Memory, AgreesWithWhatIsBuilt) {
  for (const char* dir : {"models/demo", "tests/golden/v2_lite", "tests/golden/v3_fp8"}) {
    for (const bool mla : {true, false}) {
      testing::Options options;
      options.mla = mla;
      const auto loaded = testing::load(kRoot + dir, options);
      MemoryOptions plan_options;
      plan_options.compute = options.compute;
      plan_options.kv_dtype = options.kv_dtype;
      plan_options.mla = mla;
      plan_options.max_tokens = plan_options.max_logit_rows = options.max_tokens;
      const MemoryPlan plan = plan_memory(loaded.config, plan_options);
      const auto built = static_cast<double>(loaded.model->report().weight_bytes);
      EXPECT_NEAR(static_cast<double>(plan.weight_bytes), built, 0.05 * built) << dir << mla;
      EXPECT_EQ(plan.kv_bytes_per_token, loaded.model->kv_layout().bytes_per_token());
      EXPECT_LE(loaded.model->report().workspace_bytes, plan.workspace_bytes);
      EXPECT_LT(plan.decode_bytes, plan.weight_bytes);
    }
  }
}

}  // namespace
}  // namespace fathom::model
