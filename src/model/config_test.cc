#include "model/config.h"

#include <gtest/gtest.h>

#include <nlohmann/json.hpp>

namespace fathom::model {
namespace {

using nlohmann::json;

json v3() {
  return json::parse(
      R"({"architectures": ["DeepseekV3ForCausalLM"], "model_type": "deepseek_v3",
    "vocab_size": 129280,
    "hidden_size": 7168, "intermediate_size": 18432, "moe_intermediate_size": 2048,
    "num_hidden_layers": 61,
    "num_attention_heads": 128, "num_key_value_heads": 128, "n_shared_experts": 1, "n_routed_experts": 256,
    "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
    "topk_method": "noaux_tc", "scoring_func": "sigmoid",
    "norm_topk_prob": true, "routed_scaling_factor": 2.5, "q_lora_rank": 1536, "kv_lora_rank": 512,
    "qk_nope_head_dim": 128, "qk_rope_head_dim": 64, "v_head_dim": 128, "first_k_dense_replace": 3,
    "max_position_embeddings": 163840, "rope_theta": 10000, "torch_dtype": "bfloat16", "eos_token_id": 1,
    "num_nextn_predict_layers": 1,
    "rope_scaling": {"type": "yarn", "factor": 40, "original_max_position_embeddings": 4096, "beta_fast": 32,
                     "beta_slow": 1, "mscale": 1.0, "mscale_all_dim": 1.0},
    "quantization_config": {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8",
                            "weight_block_size": [128, 128]}})");
}

// The message of the refusal of v3() with `patch` merged in; "" where it is accepted. A null removes a field.
std::string complaint(const json& patch) {
  json config = v3();
  config.merge_patch(patch);
  const auto result = parse_config(config.dump());
  return result.ok() ? "" : result.error().message;
}

TEST(Config, ReadsV3) {
  const ModelConfig config = parse_config(v3().dump()).value();
  EXPECT_EQ(config.num_layers, 61);
  EXPECT_EQ(config.latent_width(), 576);
  EXPECT_EQ(config.query_dim(), 192);
  EXPECT_EQ(config.plain_width(), 128 * 320);
  EXPECT_EQ(config.gate.groups, 8);
  EXPECT_EQ(config.gate.top_groups, 4);
  EXPECT_EQ(config.gate.method, ops::GateParams::Method::kNoAuxTc);
  EXPECT_EQ(config.gate.scoring, ops::GateParams::Scoring::kSigmoid);
  EXPECT_TRUE(config.gate.normalise);
  EXPECT_EQ(config.gate.scaling, 2.5F);
  EXPECT_FALSE(config.is_moe(2));
  EXPECT_TRUE(config.is_moe(3));
  EXPECT_TRUE(config.rope.yarn);
  EXPECT_EQ(config.rope.factor, 40.0);
  EXPECT_EQ(config.quantisation, Quantisation::kFp8Block);
  EXPECT_EQ(config.mtp_layers, 1);
  EXPECT_EQ(config.eos_token_ids, std::vector<int32_t>{1});
}

TEST(Config, NullQueryLoraMeansNone) {
  json config = v3();
  config["q_lora_rank"] = nullptr;
  EXPECT_EQ(parse_config(config.dump()).value().q_lora_rank, 0);
  config.erase("q_lora_rank");
  EXPECT_EQ(parse_config(config.dump()).value().q_lora_rank, 1536);
}

// What transformers 5 writes.
TEST(Config, ReadsRopeParametersAndDtype) {
  json config = v3();
  config["rope_parameters"] = config["rope_scaling"];
  config["rope_parameters"]["rope_type"] = "yarn";
  config["rope_parameters"]["rope_theta"] = 50000.0;
  config["dtype"] = "float32";
  config["num_mtp_layers"] = 2;
  for (const char* old : {"rope_scaling", "rope_theta", "torch_dtype", "num_nextn_predict_layers"})
    config.erase(old);
  const ModelConfig parsed = parse_config(config.dump()).value();
  EXPECT_TRUE(parsed.rope.yarn);
  EXPECT_EQ(parsed.rope.theta, 50000.0);
  EXPECT_EQ(parsed.rope.mscale_all_dim, 1.0);
  EXPECT_EQ(parsed.dtype, device::DType::kF32);
  EXPECT_EQ(parsed.mtp_layers, 2);
}

TEST(Config, DefaultsAreThoseOfTheClasses) {
  const ModelConfig v3 = parse_config(R"({"model_type": "deepseek_v3"})").value();
  EXPECT_EQ(v3.hidden_size, 7168);
  EXPECT_EQ(v3.first_moe_layer, 3);
  EXPECT_EQ(v3.gate.method, ops::GateParams::Method::kNoAuxTc);
  EXPECT_EQ(v3.max_positions, 4096);
  EXPECT_FALSE(v3.rope.yarn);
  EXPECT_EQ(v3.bos_token_id, 0);
  const ModelConfig v2 = parse_config(R"({"model_type": "deepseek_v2", "num_experts_per_tok": 6})").value();
  EXPECT_EQ(v2.vocab_size, 102400);
  EXPECT_EQ(v2.gate.method, ops::GateParams::Method::kGreedy);
  EXPECT_EQ(v2.gate.groups, 1);
  EXPECT_FALSE(v2.gate.normalise);
  EXPECT_EQ(v2.num_shared_experts, 2);
  EXPECT_EQ(v2.eos_token_ids, std::vector<int32_t>{2});
}

TEST(Config, RefusesWhatItCannotRunByName) {
  const auto says = [](const json& patch, const char* text) {
    const std::string message = complaint(patch);
    EXPECT_NE(message.find(text), std::string::npos) << patch << "\n  says: " << message;
  };
  says({{"model_type", "llama"}}, "supported: deepseek_v2");
  says({{"architectures", {"DeepseekV32ForCausalLM"}}}, "'DeepseekV32ForCausalLM'");
  says({{"topk_method", "random"}}, "topk_method: expected one of greedy, group_limited_greedy, noaux_tc");
  says({{"scoring_func", "tanh"}}, "scoring_func: expected one of softmax, sigmoid");
  says({{"scoring_func", "softmax"}}, "'noaux_tc' with scoring_func 'softmax'");
  says({{"rope_scaling", {{"type", "ntk"}}}}, "rope_scaling.type: expected one of default, yarn");
  says({{"quantization_config", {{"quant_method", "awq"}}}}, "quant_method: expected one of fp8");
  says({{"quantization_config", {{"weight_block_size", {64, 64}}}}}, "only [128, 128]");
  says({{"hidden_act", "gelu"}}, "hidden_act");
  says({{"attention_bias", true}}, "attention_bias true");
  says({{"rope_interleave", false}}, "rope_interleave");
}

TEST(Config, RefusesHostileValues) {
  const json patches[] = {
      {{"hidden_size", 0}},
      {{"hidden_size", -7168}},
      {{"hidden_size", "7168"}},
      {{"hidden_size", 1e300}},
      {{"hidden_size", 7168.5}},
      {{"hidden_size", {7168}}},
      {{"hidden_size", 18446744073709551615ULL}},
      {{"hidden_size", 9223372036854775807LL}},
      {{"vocab_size", 0}},
      {{"num_hidden_layers", 0}},
      {{"num_hidden_layers", 1000000000}},
      {{"num_attention_heads", 0}},
      {{"q_lora_rank", 0}},
      {{"kv_lora_rank", -1}},
      {{"qk_rope_head_dim", 63}},
      {{"qk_rope_head_dim", 0}},
      {{"num_experts_per_tok", 257}},
      {{"num_experts_per_tok", 0}},
      {{"n_group", 7}},
      {{"n_group", 0}},
      {{"topk_group", 9}},
      {{"n_group", 256}, {"topk_group", 8}},  // groups of one expert
      {{"topk_group", 1}, {"num_experts_per_tok", 64}},
      {{"moe_layer_freq", 0}},
      {{"routed_scaling_factor", -1}},
      {{"routed_scaling_factor", "x"}},
      {{"rms_norm_eps", -1e-6}},
      {{"rope_theta", 0}},
      {{"rope_scaling", "yarn"}},
      {{"rope_scaling", {{"factor", 0.5}}}},
      {{"rope_scaling", {{"original_max_position_embeddings", 0}}}},
      {{"max_position_embeddings", -1}},
      {{"eos_token_id", -1}},
      {{"eos_token_id", "</s>"}},
      {{"eos_token_id", {1, "x"}}},
      {{"torch_dtype", "int8"}},
      {{"tie_word_embeddings", "yes"}},
      {{"index_topk", 2048}},
      {{"hc_mult", 4}},
      {{"compress_ratios", {0, 4}}},
      {{"sliding_window", 128}},
      {{"swiglu_limit", 7.0}},
      {{"final_logit_softcapping", 30.0}},
      {{"vision_config", json::object()}},
      {{"use_mla", false}},
      {{"expert_dtype", "fp4"}},
      {{"num_hidden_layers", 4096}, {"n_routed_experts", 16384}, {"hidden_size", 1}},
      {{"hidden_size", 1048576}, {"intermediate_size", 1048576}, {"num_hidden_layers", 4096}},
  };
  for (const auto& patch : patches) EXPECT_NE(complaint(patch), "") << patch;
  EXPECT_EQ(complaint(json::object()), "");
  EXPECT_EQ(complaint({{"sliding_window", nullptr}, {"index_topk", nullptr}, {"num_hash_layers", 0}}), "");
}

TEST(Config, NamesAllThatIsWrong) {
  const std::string message = complaint({{"hidden_size", 0}, {"vocab_size", "x"}, {"hidden_act", "relu"}});
  EXPECT_NE(message.find("hidden_size: expected an integer from 1"), std::string::npos) << message;
  EXPECT_NE(message.find("vocab_size"), std::string::npos) << message;
  EXPECT_NE(message.find("hidden_act"), std::string::npos) << message;
}

TEST(Config, RefusesTextThatIsNoConfig) {
  for (const std::string text : {"", "null", "[]", "{", "\xff\xfe", "{\"model_type\": 3}", "{}"}) {
    EXPECT_FALSE(parse_config(text).ok()) << text;
  }
  EXPECT_FALSE(parse_config(std::string(1 << 20, '[')).ok());
}

TEST(Config, ReadsTheRepositorysModels) {
  for (const char* dir : {"models/demo", "tests/golden/v2", "tests/golden/v2_lite", "tests/golden/v3"}) {
    const auto config = load_config(std::string(FATHOM_SOURCE_DIR "/") + dir);
    EXPECT_TRUE(config.ok()) << config.error().message;
  }
}

TEST(GenerationConfig, ReadsListsAndDefaults) {
  const auto config =
      parse_generation_config(
          R"({"eos_token_id": [1, 7], "bos_token_id": 0, "do_sample": true, "temperature": 0.6,
                              "top_p": 0.95, "top_k": 40})")
          .value();
  EXPECT_EQ(config.eos_token_ids, (std::vector<int32_t>{1, 7}));
  EXPECT_EQ(config.temperature, 0.6);
  EXPECT_EQ(config.top_p, 0.95);
  EXPECT_EQ(config.top_k, 40);
  EXPECT_FALSE(config.max_new_tokens.has_value());
  EXPECT_FALSE(parse_generation_config(R"({"temperature": "hot"})").ok());
  EXPECT_FALSE(parse_generation_config(R"({"top_p": 1.5})").ok());
  EXPECT_FALSE(parse_generation_config("[]").ok());
  EXPECT_TRUE(load_generation_config("/nonexistent").value().eos_token_ids.empty());
}

}  // namespace
}  // namespace fathom::model
