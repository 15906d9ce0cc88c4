#include "engine/layout/layout_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <utility>

#include "engine/layout/step_time.h"

namespace fathom::engine {
namespace {

Settings v3() {
  Settings settings;
  settings.model_path = FATHOM_SOURCE_DIR "/models/configs/deepseek_v3";
  return settings;
}

LayoutRequest on(const char* gpu, const Layout& layout, const char* format = nullptr) {
  LayoutRequest request;
  request.layout = layout;
  request.machine.gpu = true;
  request.machine.kind = find_gpu(gpu);
  request.machine.memory_bytes = static_cast<int64_t>(request.machine.kind->memory_gib.value * (1 << 30));
  if (format != nullptr) request.format = find_weight_format(format);
  return request;
}

int64_t part(const LayoutPlan& plan, const std::string& name) {
  for (const auto& p : plan.memory.weights) {
    if (p.name == name) return p.parameters;
  }
  ADD_FAILURE() << name;
  return 0;
}

double sent(const LayoutPlan& plan, double (Traffic::*bytes)() const) {
  double sum = 0.0;
  for (const auto& traffic : plan.traffic) sum += traffic.times * (traffic.*bytes)();
  return sum;
}

TEST(LayoutPlan, GroupsKeepWholeAttentionAndShareExperts) {
  const auto tp = plan_layout(v3(), on("h200", {.split = {.tp = 8}})).value();
  const auto dp = plan_layout(v3(), on("h200", {.split = {.tp = 8, .dp = 8, .ep = 8}})).value();
  const auto two = plan_layout(v3(), on("h200", {.split = {.tp = 8, .dp = 2}})).value();
  EXPECT_EQ(part(dp, "routed experts"), part(tp, "routed experts"));
  EXPECT_EQ(part(dp, "shared experts"), part(tp, "shared experts"));
  EXPECT_EQ(part(dp, "head"), 8 * part(tp, "head"));
  EXPECT_EQ(part(dp, "dense layers"), 8 * part(tp, "dense layers"));
  EXPECT_EQ(part(two, "head"), 2 * part(tp, "head"));
  EXPECT_GT(part(dp, "attention"), part(two, "attention"));
  // The latent cache is the same on every rank of a group, so groups hold more in all.
  EXPECT_EQ(dp.memory.kv_bytes_per_token, 61 * 576 * 2);
  EXPECT_GT(dp.sequences(4096), 2 * tp.sequences(4096));
  EXPECT_EQ(tp.sequences(4096), tp.pool_tokens() / 4096);
}

TEST(LayoutPlan, RedundantExpertsTakeMemory) {
  const auto once = plan_layout(v3(), on("h200", {.split = {.tp = 8, .ep = 8}})).value();
  const auto more = plan_layout(v3(), on("h200", {.split = {.tp = 8, .ep = 8, .redundant = 32}})).value();
  EXPECT_EQ(part(more, "routed experts"), part(once, "routed experts") / 32 * 36);
  EXPECT_EQ(flags_of(more.layout), "--tp 8 --ep-size 8 --ep-num-redundant-experts 32");
}

TEST(LayoutPlan, StagesShareLayersAndTheirCache) {
  const auto one = plan_layout(v3(), on("h200", {.split = {.tp = 16}, .nodes = 2})).value();
  const auto two = plan_layout(v3(), on("h200", {.split = {.tp = 8, .pp = 2}, .nodes = 2})).value();
  EXPECT_EQ(one.memory.kv_bytes_per_token, 61 * 1152);
  EXPECT_LE(two.memory.kv_bytes_per_token, 31 * 1152);
  EXPECT_NEAR(static_cast<double>(two.memory.weight_bytes), static_cast<double>(one.memory.weight_bytes),
              0.1 * static_cast<double>(one.memory.weight_bytes));
  // Only what is handed over leaves the node; sums over 16 ranks do in every layer.
  EXPECT_EQ(sent(two, &Traffic::network_bytes), 7168 * 4 + 129280 * 4);
  EXPECT_NEAR(sent(one, &Traffic::network_bytes), 123 * 7168 * 6 / 16.0 + 129280 * 4 / 16.0, 1.0);
}

TEST(LayoutPlan, CountsWhatRanksSend) {
  const auto tp = plan_layout(v3(), on("h200", {.split = {.tp = 8}})).value();
  // The embedding's sum and two a layer, 7/8 of it scattered as float32 and gathered as bfloat16; and logits.
  EXPECT_NEAR(sent(tp, &Traffic::link_bytes), 123 * 7168 * 6 * 7 / 8.0 + 129280 * 4 * 7 / 8.0, 1.0);
  EXPECT_EQ(sent(tp, &Traffic::network_bytes), 0.0);
  const auto dp = plan_layout(v3(), on("h200", {.split = {.tp = 8, .dp = 8}})).value();
  ASSERT_EQ(dp.traffic.size(), 2U);  // of experts alone
  EXPECT_EQ(dp.traffic[0].times, 58);
  EXPECT_EQ(dp.traffic[0].row_bytes, 7168 * 2);
  EXPECT_EQ(dp.traffic[1].row_bytes, 7168 * 4);
  EXPECT_TRUE(dp.traffic[0].all_groups);
  // A group of two ranks stays inside its node; the eight groups are on both.
  const auto wide = plan_layout(v3(), on("h100", {.split = {.tp = 16, .dp = 8}, .nodes = 2})).value();
  ASSERT_EQ(wide.traffic.size(), 7U);
  for (const auto& traffic : wide.traffic)
    EXPECT_EQ(traffic.nodes, traffic.ranks == 8 ? 2 : 1) << traffic.where;
}

// src/dist/README.md: sum, residual and norm of rows of 7168 float32 on two H100.
TEST(LayoutPlan, SumsTakeWhatTheyWereMeasuredToTake) {
  const auto plan = plan_layout(v3(), on("h100", {.split = {.tp = 2}})).value();
  const Traffic& sum = plan.traffic.front();
  ASSERT_EQ(sum.meeting, Meeting::kAllReduce);
  for (const auto& [rows, us] :
       {std::pair{1, 5.6}, std::pair{8, 6.7}, std::pair{32, 9.8}, std::pair{64, 12.5}, std::pair{128, 17.1},
        std::pair{256, 25.9}, std::pair{1024, 78.6}, std::pair{4096, 279.8}}) {
    EXPECT_NEAR(meeting_us(sum, rows, *find_gpu("h100")) / us, 1.0, 0.08) << rows;
  }
}

TEST(LayoutPlan, SaysWhatWouldFit) {
  const auto request = on("h100", {.split = {.tp = 8}});
  EXPECT_FALSE(plan_layout(v3(), request)->fits());
  const auto ways = what_would_fit(v3(), request);
  const auto has = [&](const std::string& way) {
    return std::find(ways.begin(), ways.end(), way) != ways.end();
  };
  EXPECT_TRUE(has("--tp 16 --nnodes 2"));
  EXPECT_TRUE(has("as many NVIDIA H200"));
  EXPECT_TRUE(has("awq weights in as many ranks (by their bytes; this version does not read them)"));
  const auto bf16 = what_would_fit(v3(), on("h200", {.split = {.tp = 8}}, "bf16"));
  EXPECT_NE(std::find(bf16.begin(), bf16.end(), "fp8 weights in as many ranks"), bf16.end());
}

TEST(LayoutPlan, RefusesWhatCannotBeSplit) {
  EXPECT_NE(plan_layout(v3(), on("h200", {.split = {.tp = 6}})).error().message.find("use 4 or 8"),
            std::string::npos);
  EXPECT_FALSE(plan_layout(v3(), on("h200", {.split = {.tp = 8, .dp = 3}})).ok());
  EXPECT_FALSE(plan_layout(v3(), on("h200", {.split = {.tp = 8}, .nodes = 3})).ok());
}

TEST(LayoutPlan, ReckonsOtherFormatsByTheirBytes) {
  const Layout layout{.split = {.tp = 8}};
  const auto bytes = [&](const char* format) {
    return static_cast<double>(plan_layout(v3(), on("h200", layout, format))->memory.weight_bytes);
  };
  const double parameters = 671e9 / 8;
  EXPECT_NEAR(bytes("bf16") / parameters, 2.0, 0.06);
  EXPECT_NEAR(bytes("fp8") / parameters, 1.0, 0.06);
  EXPECT_NEAR(bytes("int8") / parameters, 1.0, 0.06);
  EXPECT_NEAR(bytes("awq") / parameters, 0.53, 0.03);
  EXPECT_NEAR(bytes("w4a8") / parameters, 0.54, 0.03);
}

TEST(Layouts, OfSoManyGpusAreAllDifferentAndUseThemAll) {
  const auto config = model::load_config(v3().model_path).value();
  for (const auto& [gpus, nodes] : {std::pair{8, 1}, std::pair{16, 2}}) {
    const auto layouts = layouts_of(config, gpus, nodes);
    EXPECT_GT(layouts.size(), 15U);
    for (auto layout = layouts.begin(); layout != layouts.end(); ++layout) {
      EXPECT_EQ(layout->ranks(), gpus);
      EXPECT_EQ(layout->nodes, nodes);
      EXPECT_EQ(std::find(layouts.begin(), layout, *layout), layout) << flags_of(*layout);
    }
    // Stages are of whole nodes.
    EXPECT_EQ(std::any_of(layouts.begin(), layouts.end(), [](const Layout& l) { return l.split.pp > 1; }),
              nodes > 1);
  }
}

}  // namespace
}  // namespace fathom::engine
