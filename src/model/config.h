// What a checkpoint's config.json says about the model, checked: every field has the right type and a sane
// range, and what Fathom does not do is refused by name, with what it does. Missing fields take the defaults
// of the Hugging Face configuration classes.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "device/dtype.h"
#include "ops/gate/gate.h"

namespace fathom::model {

// Rotary embedding with YaRN's stretching (factor 1: none). Both of the spellings "rope_scaling" and
// "rope_parameters" (transformers 5) end here.
struct RopeConfig {
  bool yarn = false;
  double theta = 10000.0;
  double factor = 1.0;
  int64_t original_positions = 0;  // the context before stretching
  double beta_fast = 32.0;
  double beta_slow = 1.0;
  double mscale = 0.0;            // 0: not given
  double mscale_all_dim = 0.0;    // 0: not given
  double attention_factor = 0.0;  // 0: from the mscales
  bool truncate = true;           // round the ramp's ends to whole dimensions
};

enum class Quantisation : uint8_t {
  kNone,
  kFp8Block,  // E4M3 weights with one float32 scale for each 128 x 128 block
};

struct ModelConfig {
  std::string model_type;         // "deepseek_v2" or "deepseek_v3"
  std::string architecture;       // "DeepseekV3ForCausalLM"
  int64_t vocab_size = 0;         // V
  int64_t hidden_size = 0;        // H
  int64_t intermediate_size = 0;  // of the dense layers
  int64_t num_layers = 0;
  int64_t num_heads = 0;        // Nh
  int64_t q_lora_rank = 0;      // 0: queries are projected directly
  int64_t kv_lora_rank = 0;     // Dc
  int64_t nope_dim = 0;         // Dn
  int64_t rope_dim = 0;         // Dr
  int64_t value_dim = 0;        // Dv
  int64_t first_moe_layer = 0;  // first_k_dense_replace
  int64_t moe_layer_freq = 1;
  int64_t moe_intermediate_size = 0;  // I
  int64_t num_experts = 0;            // E; 0: every layer is dense
  int64_t num_shared_experts = 0;
  ops::GateParams gate;
  double rms_norm_eps = 1e-6;
  RopeConfig rope;
  int64_t max_positions = 0;  // tokens of context
  bool tie_word_embeddings = false;
  int64_t mtp_layers = 0;  // that the checkpoint has, after the main ones
  // Of them, how many are loaded: 1 to draft tokens with the first, 0 otherwise. Not of the file: set by who
  // wants to draft, before the model is built.
  int64_t draft_layers = 0;
  int64_t draft_vocab = 0;  // they guess among the token ids below this alone; 0: among all
  device::DType dtype = device::DType::kBF16;  // torch_dtype: what `auto` means, and dummy weights' type
  Quantisation quantisation = Quantisation::kNone;
  bool fp8_activations = false;          // activation_scheme "dynamic": trained with activations in FP8 too
  std::vector<std::string> unquantised;  // modules_to_not_convert / ignored_layers
  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;

  int64_t query_dim() const { return nope_dim + rope_dim; }
  int64_t latent_width() const { return kv_lora_rank + rope_dim; }
  int64_t plain_width() const { return plain_width(num_heads); }
  int64_t plain_width(int64_t heads) const { return heads * (query_dim() + value_dim); }
  int64_t shared_size() const { return num_shared_experts * moe_intermediate_size; }
  bool is_moe(int64_t layer) const {
    return num_experts > 0 && layer >= first_moe_layer && layer % moe_layer_freq == 0;
  }
};

// From the text of config.json. kInvalidArgument for wrong JSON, types or ranges; kUnsupported for a model or
// a format that Fathom does not run.
Result<ModelConfig> parse_config(std::string_view json);
// config.json of a model's folder.
Result<ModelConfig> load_config(const std::string& model_dir);

// generation_config.json: what to use where a request says nothing.
struct GenerationConfig {
  std::vector<int32_t> eos_token_ids;
  std::optional<int32_t> bos_token_id;
  std::optional<bool> do_sample;
  std::optional<double> temperature, top_p, min_p, repetition_penalty;
  std::optional<int32_t> top_k, max_new_tokens;
};
Result<GenerationConfig> parse_generation_config(std::string_view json);
// An empty one when the folder has no such file.
Result<GenerationConfig> load_generation_config(const std::string& model_dir);

}  // namespace fathom::model
