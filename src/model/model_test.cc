#include "model/model.h"

#include <gtest/gtest.h>

#include <cmath>
#include <filesystem>
#include <fstream>
#include <random>
#include <set>

#include "model/layers.h"
#include "model/testing.h"
#include "model/weight_names.h"

namespace fathom::model {
namespace {

const std::string kRoot = FATHOM_SOURCE_DIR "/";

// A small V3 whose sizes are whole FP8 blocks.
ModelConfig small_config(bool fp8) {
  std::string text =
      R"({"model_type": "deepseek_v3", "vocab_size": 512, "hidden_size": 256, "intermediate_size": 512,
    "moe_intermediate_size": 128, "num_hidden_layers": 6, "num_attention_heads": 4, "n_routed_experts": 16,
    "num_experts_per_tok": 4, "n_group": 4, "topk_group": 2, "q_lora_rank": 128, "first_k_dense_replace": 1,
    "max_position_embeddings": 512)";
  if (fp8) text += R"(, "quantization_config": {"quant_method": "fp8", "weight_block_size": [128, 128]})";
  return parse_config(text + "}").value();
}

testing::Loaded build_random(const ModelConfig& config, uint64_t seed, ops::Compute compute,
                             const LoadOptions& more = {}) {
  testing::Loaded loaded;
  loaded.config = config;
  loaded.pool = std::make_unique<ThreadPool>(2);
  loaded.launch = std::make_unique<device::Launch>(*loaded.pool);
  LoadOptions options = more;
  options.seed = seed;
  options.compute = compute;
  options.kv_dtype = device::DType::kF32;
  options.max_tokens = options.max_logit_rows = 320;
  loaded.model = std::move(Model::build(config, options, *loaded.pool)).value();
  return loaded;
}

std::vector<int32_t> some_tokens(int64_t count) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < count; ++i) tokens.push_back(static_cast<int32_t>(i * 37 % 512));
  return tokens;
}

TEST(RandomWeights, KeepSaneMagnitudes) {
  for (const bool fp8 : {false, true}) {
    auto loaded = build_random(small_config(fp8), 1, ops::Compute::kBF16);
    testing::Pages pages(*loaded.model, 32, 16);
    std::vector<int32_t> table;
    const auto logits = testing::run(loaded, pages, {{&table, some_tokens(64), 0, false}});
    double squares = 0;
    std::set<int64_t> best;
    for (int64_t t = 0; t < 64; ++t) {
      const float* row = logits.data() + t * 512;
      best.insert(std::max_element(row, row + 512) - row);
      for (int64_t v = 0; v < 512; ++v) squares += static_cast<double>(row[v]) * row[v];
    }
    const double deviation = std::sqrt(squares / (64.0 * 512.0));
    EXPECT_GT(deviation, 1.0);
    EXPECT_LT(deviation, 6.0);
    EXPECT_GT(best.size(), 32U) << "the tokens' fates should differ";
  }
}

// Un-absorbed and absorbed attention must be two ways through the same random model.
TEST(RandomWeights, ExtendAndDecodeAgree) {
  for (const bool fp8 : {false, true}) {
    auto loaded = build_random(small_config(fp8), 2, ops::Compute::kF32);
    testing::Pages pages(*loaded.model, 32, 16);
    std::vector<int32_t> one, two;
    const auto tokens = some_tokens(20);
    const auto extended = testing::run(loaded, pages, {{&one, tokens, 0, false}});
    testing::run(loaded, pages, {{&two, {tokens.begin(), tokens.end() - 1}, 0, false}});
    const auto decoded = testing::run(loaded, pages, {{&two, {tokens.back()}, 19, true}});
    for (size_t v = 0; v < 512; ++v) EXPECT_NEAR(decoded[v], extended[19 * 512 + v], 1e-3) << fp8;
  }
}

TEST(RandomWeights, FollowTheSeed) {
  const auto logits_of = [](uint64_t seed) {
    auto loaded = build_random(small_config(false), seed, ops::Compute::kBF16);
    testing::Pages pages(*loaded.model, 32, 16);
    std::vector<int32_t> table;
    return testing::run(loaded, pages, {{&table, some_tokens(8), 0, false}});
  };
  EXPECT_EQ(logits_of(1), logits_of(1));
  EXPECT_NE(logits_of(1), logits_of(2));
}

TEST(Build, SaysWhatDoesNotFit) {
  ModelConfig config = load_config(kRoot + "tests/golden/v3").value();
  const auto checkpoint = weights::Checkpoint::open(kRoot + "tests/golden/v3").value();
  ThreadPool pool(1);
  LoadOptions options;
  options.checkpoint = &checkpoint;
  config.num_experts = config.gate.experts = 15;  // one expert of each layer is unexpected, the gates misfit
  config.vocab_size = 383;
  config.mtp_layers = 0;
  const auto result = Model::build(config, options, pool);
  ASSERT_FALSE(result.ok());
  const std::string& message = result.error().message;
  for (const char* part : {"model.embed_tokens.weight ([384, 64], expected [383, 64])",
                           "model.layers.2.mlp.gate.weight ([16, 64], expected [15, 64])", "unexpected: "}) {
    EXPECT_NE(message.find(part), std::string::npos) << part << " not in: " << message;
  }
}

TEST(Build, SkipsMtpLayersAndReports) {
  testing::Options options;
  int64_t last = 0;
  const ModelConfig config = load_config(kRoot + "tests/golden/v3").value();
  const auto checkpoint = weights::Checkpoint::open(kRoot + "tests/golden/v3").value();
  ThreadPool pool(1);
  LoadOptions load;
  load.checkpoint = &checkpoint;
  int64_t total = 0;
  load.progress = [&](int64_t done, int64_t all) {
    EXPECT_GE(done, last);
    last = done;
    total = all;
  };
  const auto model = std::move(Model::build(config, load, pool)).value();
  EXPECT_GT(model->report().skipped_tensors, 10);
  EXPECT_FALSE(model->report().implementations.empty());
  EXPECT_GT(total, 0);
  EXPECT_GE(last, total - total / 20);
}

// A config may tie the head to the embedding; the checkpoint then has no lm_head.
TEST(Build, TiesTheHead) {
  ModelConfig config = small_config(false);
  config.tie_word_embeddings = true;
  auto loaded = build_random(config, 3, ops::Compute::kF32);
  testing::Pages pages(*loaded.model, 32, 16);
  std::vector<int32_t> table;
  const auto logits = testing::run(loaded, pages, {{&table, some_tokens(16), 0, false}});
  for (const float value : logits) ASSERT_TRUE(std::isfinite(value));
  for (const auto& spec : weight_table(config)) EXPECT_NE(spec.name, "lm_head.weight");
  EXPECT_TRUE(is_known_extra(config, "lm_head.weight"));
}

TEST(Build, RefusesImpossibleOptions) {
  ThreadPool pool(1);
  LoadOptions options;
  options.max_context = 513;
  EXPECT_EQ(Model::build(small_config(false), options, pool).error().code, ErrorCode::kInvalidArgument);
  options.max_context = 0;
  options.kv_dtype = device::DType::kF8E4M3;
  EXPECT_EQ(Model::build(small_config(false), options, pool).error().code, ErrorCode::kUnsupported);
}

TEST(Build, LogitsOfFurtherRows) {
  auto loaded = build_random(small_config(false), 4, ops::Compute::kBF16);
  testing::Pages pages(*loaded.model, 32, 16);
  std::vector<int32_t> table;
  const auto all = testing::run(loaded, pages, {{&table, some_tokens(10), 0, false}});
  const int32_t rows[] = {7, 2};
  const auto some = loaded.model->logits(*loaded.launch, rows);
  ASSERT_EQ(some.dim(0), 2);
  for (int64_t v = 0; v < 512; ++v) {
    ASSERT_EQ(some.row<float>(0)[v], all[static_cast<size_t>(7 * 512 + v)]);
    ASSERT_EQ(some.row<float>(1)[v], all[static_cast<size_t>(2 * 512 + v)]);
  }
}

TEST(Build, RefusesAModelThatDoesNotFit) {
  const auto config = parse_config(R"({"model_type": "deepseek_v3", "max_position_embeddings": 16777216,
      "hidden_size": 65536, "intermediate_size": 65536})");
  ThreadPool pool(1);
  const auto result = Model::build(config.value(), {}, pool);
  ASSERT_FALSE(result.ok());
  EXPECT_EQ(result.error().code, ErrorCode::kUnavailable);
}

TEST(DecodePieces, CutRowsWhereAPieceIsFull) {
  const int32_t table[] = {0};
  const ops::AttentionRow rows[] = {{10, 1, 5, table}, {11, 7, 20, table}, {18, 1, 0, table}};
  DecodePieces cutter;
  const auto pieces = cutter.cut(rows, 4);
  ASSERT_EQ(pieces.size(), 3U);
  EXPECT_EQ(pieces[0].first, 10);
  EXPECT_EQ(pieces[0].tokens, 4);
  ASSERT_EQ(pieces[0].rows.size(), 2U);
  EXPECT_EQ(pieces[0].rows[1].first, 1);
  EXPECT_EQ(pieces[0].rows[1].count, 3);
  EXPECT_EQ(pieces[0].rows[1].start, 20);
  EXPECT_EQ(pieces[1].first, 14);
  ASSERT_EQ(pieces[1].rows.size(), 1U);
  EXPECT_EQ(pieces[1].rows[0].first, 0);
  EXPECT_EQ(pieces[1].rows[0].count, 4);
  EXPECT_EQ(pieces[1].rows[0].start, 23);
  EXPECT_EQ(pieces[2].first, 18);
  EXPECT_EQ(pieces[2].rows[0].start, 0);
  EXPECT_EQ(cutter.cut(std::span(rows).first(1), 4).size(), 1U);
  EXPECT_TRUE(cutter.cut({}, 4).empty());
}

// More output tokens than a piece holds, in rows of several tokens (drafts to verify), give what each row
// gives alone.
TEST(Forward, ManyDecodeTokens) {
  auto loaded = build_random(small_config(false), 6, ops::Compute::kF32);
  testing::Pages pages(*loaded.model, 64, 16);
  constexpr int32_t kRows = 12;
  std::vector<std::vector<int32_t>> tables(2 * kRows);
  std::vector<testing::Piece> pieces;
  std::vector<float> alone;
  for (int32_t i = 0; i < kRows; ++i) {
    std::vector<int32_t> output = some_tokens(25);
    output.front() = i;
    std::vector<int32_t>* mine = &tables[static_cast<size_t>(2 * i)];
    testing::run(loaded, pages, {{&mine[0], {i + 1, 2, 3}, 0, false}});
    testing::run(loaded, pages, {{&mine[1], {i + 1, 2, 3}, 0, false}});
    pieces.push_back({&mine[0], output, 3, true});
    const auto logits = testing::run(loaded, pages, {{&mine[1], output, 3, true}});
    alone.insert(alone.end(), logits.begin(), logits.end());
  }
  EXPECT_EQ(testing::run(loaded, pages, pieces), alone);
}

// Prompts in chunks, some side by side, some given up half-way, whose pages others get; room for a part of
// what would be kept.
TEST(Forward, KeptKeysChangeNoBit) {
  const ModelConfig config = small_config(false);
  LoadOptions more;
  more.target.isa = device::detect_isa();
  auto plain = build_random(config, 7, ops::Compute::kBF16, more);
  constexpr int64_t kPage = 16, kPagesKept = 21;
  more.kept_bytes = kPagesKept * kPage * config.num_layers * config.num_heads *
                    (config.nope_dim + config.value_dim) * int64_t{sizeof(float)};
  auto keeping = build_random(config, 7, ops::Compute::kBF16, more);
  struct Prompt {
    std::vector<int32_t> tables[2];
    std::vector<int32_t> tokens;
    int64_t done = 0;
  };
  testing::Pages plain_pages(*plain.model, 128, kPage), keeping_pages(*keeping.model, 128, kPage);
  std::mt19937 random(11);
  std::vector<Prompt> prompts(3);
  for (int pass = 0; pass < 60; ++pass) {
    std::vector<testing::Piece> pieces[2];
    for (Prompt& prompt : prompts) {
      const auto length = static_cast<int64_t>(prompt.tokens.size());
      if (prompt.done == length || random() % 20 == 0) {
        prompt.tokens.resize(40 + random() % 260);
        for (int32_t& token : prompt.tokens) token = static_cast<int32_t>(random() % 512);
        prompt.done = 0;  // in the pages of the one before
      } else if (random() % 4 == 0) {
        continue;
      }
      const int64_t left = static_cast<int64_t>(prompt.tokens.size()) - prompt.done;
      const int64_t count = std::min<int64_t>(left, 1 + static_cast<int64_t>(random() % 90));
      const auto begin = prompt.tokens.begin() + prompt.done;
      for (int i = 0; i < 2; ++i)
        pieces[i].push_back({&prompt.tables[i], {begin, begin + count}, prompt.done, false, count < left});
      prompt.done += count;
    }
    if (pieces[0].empty()) continue;
    EXPECT_EQ(testing::run(keeping, keeping_pages, pieces[0]), testing::run(plain, plain_pages, pieces[1]))
        << "pass " << pass;
  }
}

TEST(WeightNames, KnowsExtras) {
  const ModelConfig config = load_config(kRoot + "tests/golden/v3").value();
  ASSERT_EQ(config.num_layers, 4);
  EXPECT_TRUE(is_known_extra(config, "model.layers.4.eh_proj.weight"));
  EXPECT_TRUE(is_known_extra(config, "model.layers.0.self_attn.rotary_emb.inv_freq"));
  EXPECT_FALSE(is_known_extra(config, "model.layers.5.eh_proj.weight"));
  EXPECT_FALSE(is_known_extra(config, "model.layers.3.eh_proj.weight"));
  EXPECT_FALSE(is_known_extra(config, "model.layers.4"));
  EXPECT_FALSE(is_known_extra(config, "model.layers.x.eh_proj.weight"));
  EXPECT_FALSE(is_known_extra(config, "lm_head.weight"));
}

}  // namespace
}  // namespace fathom::model
