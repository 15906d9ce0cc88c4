#include "model/config.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <filesystem>

#include "model/field_reader.h"
#include "weights/json_file.h"

namespace fathom::model {

namespace {

using nlohmann::json;

constexpr size_t kMaxConfigBytes = size_t{16} << 20;

// Far above every released model, low enough that no product of sizes overflows.
constexpr int64_t kMaxDim = int64_t{1} << 20;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxHeads = 4096;
constexpr int64_t kMaxHeadDim = 8192;
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxExperts = 16384;
constexpr int64_t kMaxPositions = int64_t{1} << 24;
constexpr int64_t kMaxParameters = int64_t{1} << 46;
constexpr int64_t kMaxExpertsInAll = int64_t{1} << 17;  // of all layers; the released models have 15 thousand

struct Family {
  std::string_view model_type;
  std::string_view architecture;
  // Defaults of the Hugging Face configuration class.
  int64_t vocab_size, hidden_size, intermediate_size, moe_intermediate_size, num_layers, num_heads;
  int64_t first_k_dense, experts, shared_experts, top_k, groups, top_groups, max_positions, mtp_layers;
  bool normalise;
  double scaling;
  std::string_view method, scoring;
  int32_t bos, eos;
};
constexpr Family kFamilies[] = {
    {"deepseek_v2",
     "DeepseekV2ForCausalLM",
     102400,
     4096,
     11008,
     1407,
     32,
     32,
     0,
     64,
     2,
     6,
     1,
     1,
     2048,
     0,
     false,
     1.0,
     "greedy",
     "softmax",
     1,
     2},
    {"deepseek_v3",
     "DeepseekV3ForCausalLM",
     129280,
     7168,
     18432,
     2048,
     61,
     128,
     3,
     256,
     1,
     8,
     8,
     4,
     4096,
     1,
     true,
     2.5,
     "noaux_tc",
     "sigmoid",
     0,
     1},
};

Result<const Family*> find_family(FieldReader& fields) {
  const std::string model_type = fields.text("model_type", "");
  const auto architectures = fields.texts("architectures");
  const Family* family = nullptr;
  for (const auto& candidate : kFamilies) {
    const bool by_type = candidate.model_type == model_type;
    const bool by_name =
        model_type.empty() && architectures.size() == 1 && architectures[0] == candidate.architecture;
    if (by_type || by_name) family = &candidate;
  }
  constexpr std::string_view kSupported =
      "supported: deepseek_v2 (DeepseekV2ForCausalLM), deepseek_v3 (DeepseekV3ForCausalLM)";
  if (family == nullptr) {
    return error(ErrorCode::kUnsupported, "model_type '{}' (architectures [{}]) is not supported; {}",
                 model_type.substr(0, 80), fmt::format("{}", fmt::join(architectures, ", ")).substr(0, 200),
                 kSupported);
  }
  for (const auto& name : architectures) {
    if (name != family->architecture) {
      return error(ErrorCode::kUnsupported, "architecture '{}' with model_type '{}' is not supported; {}",
                   name.substr(0, 80), family->model_type, kSupported);
    }
  }
  return family;
}

void read_sizes(FieldReader& fields, const Family& family, ModelConfig& config) {
  config.vocab_size = fields.integer("vocab_size", 1, kMaxVocab, family.vocab_size);
  config.hidden_size = fields.integer("hidden_size", 1, kMaxDim, family.hidden_size);
  config.intermediate_size = fields.integer("intermediate_size", 1, kMaxDim, family.intermediate_size);
  config.num_layers = fields.integer("num_hidden_layers", 1, kMaxLayers, family.num_layers);
  config.num_heads = fields.integer("num_attention_heads", 1, kMaxHeads, family.num_heads);
  // MLA has one latent for all heads: the number of key heads says nothing, but must be a number.
  fields.integer("num_key_value_heads", 1, kMaxHeads, config.num_heads);
  // Null says "no query compression" (V2-Lite); absent means the class's default.
  const bool has_q_lora = fields.has("q_lora_rank");
  config.q_lora_rank = has_q_lora ? fields.integer("q_lora_rank", 1, kMaxDim, 0) : 1536;
  config.kv_lora_rank = fields.integer("kv_lora_rank", 1, kMaxHeadDim, 512);
  config.nope_dim = fields.integer("qk_nope_head_dim", 1, kMaxHeadDim, 128);
  config.rope_dim = fields.integer("qk_rope_head_dim", 2, kMaxHeadDim, 64);
  config.value_dim = fields.integer("v_head_dim", 1, kMaxHeadDim, 128);
  if (config.rope_dim % 2 != 0) fields.problem("qk_rope_head_dim must be even");
  config.max_positions = fields.integer("max_position_embeddings", 1, kMaxPositions, family.max_positions);
  config.rms_norm_eps = fields.number("rms_norm_eps", 0.0, 1.0, 1e-6);
  config.tie_word_embeddings = fields.boolean("tie_word_embeddings", false);
  const std::string_view mtp_name =
      fields.find("num_mtp_layers") != nullptr ? "num_mtp_layers" : "num_nextn_predict_layers";
  config.mtp_layers = fields.integer(mtp_name, 0, 64, family.mtp_layers);
}

void read_experts(FieldReader& fields, const Family& family, ModelConfig& config) {
  const auto integer_or = [&](std::string_view name, int64_t high, int64_t absent, int64_t null) {
    return fields.integer(name, 0, high, fields.has(name) ? null : absent);
  };
  config.first_moe_layer = fields.integer("first_k_dense_replace", 0, kMaxLayers, family.first_k_dense);
  config.moe_layer_freq = fields.integer("moe_layer_freq", 1, kMaxLayers, 1);
  config.moe_intermediate_size =
      fields.integer("moe_intermediate_size", 1, kMaxDim, family.moe_intermediate_size);
  config.num_experts = integer_or("n_routed_experts", kMaxExperts, family.experts, 0);
  config.num_shared_experts = integer_or("n_shared_experts", 64, family.shared_experts, 0);
  if (config.num_experts == 0) return;

  ops::GateParams& gate = config.gate;
  gate.experts = static_cast<int32_t>(config.num_experts);
  gate.top_k = static_cast<int32_t>(fields.integer("num_experts_per_tok", 1, config.num_experts,
                                                   std::min(family.top_k, config.num_experts)));
  gate.normalise = fields.boolean("norm_topk_prob", family.normalise);
  gate.scaling = static_cast<float>(fields.number("routed_scaling_factor", 0.0, 1e4, family.scaling));

  const std::string method =
      fields.choice("topk_method", family.method, {"greedy", "group_limited_greedy", "noaux_tc"});
  const std::string scoring = fields.choice("scoring_func", family.scoring, {"softmax", "sigmoid"});
  if ((method == "noaux_tc") != (scoring == "sigmoid")) {
    fields.problem(
        fmt::format("topk_method '{}' with scoring_func '{}' is not supported; supported: greedy and "
                    "group_limited_greedy with softmax, noaux_tc with sigmoid",
                    method, scoring));
  }
  gate.scoring =
      scoring == "sigmoid" ? ops::GateParams::Scoring::kSigmoid : ops::GateParams::Scoring::kSoftmax;
  using Method = ops::GateParams::Method;
  gate.method = method == "greedy" ? Method::kGreedy
                                   : (method == "noaux_tc" ? Method::kNoAuxTc : Method::kGroupLimitedGreedy);
  if (gate.method == Method::kGreedy) return;

  gate.groups = static_cast<int32_t>(fields.integer("n_group", 1, config.num_experts, family.groups));
  gate.top_groups = static_cast<int32_t>(
      fields.integer("topk_group", 1, gate.groups, std::min<int64_t>(family.top_groups, gate.groups)));
  if (config.num_experts % gate.groups != 0) {
    fields.problem(
        fmt::format("n_routed_experts {} is not a multiple of n_group {}", config.num_experts, gate.groups));
    return;
  }
  const int64_t group_size = config.num_experts / gate.groups;
  if (gate.top_k > group_size * gate.top_groups) {
    fields.problem(fmt::format("num_experts_per_tok {} is above the {} experts of {} groups", gate.top_k,
                               group_size * gate.top_groups, gate.top_groups));
  }
  if (gate.method == Method::kNoAuxTc && group_size < 2) {
    fields.problem("noaux_tc needs groups of at least 2 experts");
  }
}

void read_rope(FieldReader& fields, ModelConfig& config, std::vector<std::string>& problems) {
  RopeConfig& rope = config.rope;
  rope.theta = fields.number("rope_theta", 1.0, 1e12, 10000.0);
  if (!fields.boolean("rope_interleave", true)) {
    fields.problem("rope_interleave false is not supported; DeepSeek V2 and V3 use interleaved pairs");
  }
  const std::string_view name = fields.find("rope_scaling") != nullptr ? "rope_scaling" : "rope_parameters";
  const json* object = fields.find(name);
  if (object == nullptr) return;
  if (!object->is_object()) {
    fields.problem(fmt::format("{}: expected an object", name));
    return;
  }
  FieldReader scaling(*object, std::string(name) + ".", problems);
  rope.theta = scaling.number("rope_theta", 1.0, 1e12, rope.theta);
  const std::string_view type_name = scaling.find("rope_type") != nullptr ? "rope_type" : "type";
  const std::string type = scaling.choice(type_name, "default", {"default", "yarn", "deepseek_yarn"});
  if (type == "default") return;
  rope.yarn = true;
  rope.original_positions =
      scaling.integer("original_max_position_embeddings", 1, kMaxPositions, config.max_positions);
  rope.factor = scaling.number(
      "factor", 1.0, 1e6,
      static_cast<double>(config.max_positions) / static_cast<double>(rope.original_positions));
  const auto or_default = [](double value, double otherwise) { return value != 0.0 ? value : otherwise; };
  rope.beta_fast = or_default(scaling.number("beta_fast", 0.0, 1e6, 32.0), 32.0);
  rope.beta_slow = or_default(scaling.number("beta_slow", 0.0, 1e6, 1.0), 1.0);
  rope.mscale = scaling.number("mscale", 0.0, 100.0, 0.0);
  rope.mscale_all_dim = scaling.number("mscale_all_dim", 0.0, 100.0, 0.0);
  rope.attention_factor = scaling.number("attention_factor", 0.0, 100.0, 0.0);
  rope.truncate = scaling.boolean("truncate", true);
  if (rope.theta <= 1.0) scaling.problem("rope_theta must be above 1 for yarn");
}

void read_dtype(FieldReader& fields, ModelConfig& config, std::vector<std::string>& problems) {
  const std::string_view name = fields.find("torch_dtype") != nullptr ? "torch_dtype" : "dtype";
  const std::string dtype = fields.choice(name, "bfloat16", {"bfloat16", "float32", "float16"});
  config.dtype = dtype == "float32"   ? device::DType::kF32
                 : dtype == "float16" ? device::DType::kF16
                                      : device::DType::kBF16;
  const json* object = fields.find("quantization_config");
  if (object == nullptr) return;
  if (!object->is_object()) {
    fields.problem("quantization_config: expected an object");
    return;
  }
  FieldReader quantisation(*object, "quantization_config.", problems);
  quantisation.choice("quant_method", "(none)", {"fp8"});
  quantisation.choice("fmt", "e4m3", {"e4m3", "float8_e4m3fn"});
  const json* block = quantisation.find("weight_block_size");
  if (block == nullptr || *block != json::array({128, 128})) {
    quantisation.problem("quantization_config.weight_block_size: only [128, 128] is supported");
  }
  config.quantisation = Quantisation::kFp8Block;
  config.fp8_activations = quantisation.text("activation_scheme", "dynamic") == "dynamic";
  config.unquantised = quantisation.texts("modules_to_not_convert");
  for (auto& layer : quantisation.texts("ignored_layers")) config.unquantised.push_back(std::move(layer));
}

// Fields of other models of the family that change what is computed, and what they stand for. Null, false and
// 0 say that there is no such thing.
struct Unserved {
  std::string_view name, what;
};
constexpr Unserved kUnserved[] = {
    {"index_topk", "sparse attention by an indexer (V3.2)"},
    {"index_n_heads", "sparse attention by an indexer (V3.2)"},
    {"compress_ratios", "compressed attention (V4)"},
    {"hc_mult", "hyper-connections (V4)"},
    {"num_hash_layers", "routing by hashes (V4)"},
    {"swiglu_limit", "a bounded SwiGLU (V4)"},
    {"sliding_window", "attention to a window"},
    {"attn_logit_softcapping", "bounded scores"},
    {"final_logit_softcapping", "bounded logits"},
    {"vision_config", "images"},
};

void refuse_unserved(FieldReader& fields) {
  for (const auto& [name, what] : kUnserved) {
    const json* value = fields.find(name);
    if (value == nullptr || *value == json(false) || *value == json(0)) continue;
    fields.problem(fmt::format("{}: {} is not served; docs/models.md lists the models that are", name, what));
  }
  if (!fields.boolean("use_mla", true)) fields.problem("use_mla false is not served; supported: MLA");
  const std::string experts = fields.text("expert_dtype", "");
  if (!experts.empty() && experts != "fp8")
    fields.problem(fmt::format("expert_dtype '{}' is not served; supported: what quantization_config says",
                               experts.substr(0, 80)));
}

// The whole model must be of a size that arithmetic and errors can speak of.
void check_total(FieldReader& fields, const ModelConfig& config) {
  if (config.num_layers * config.num_experts > kMaxExpertsInAll) {
    fields.problem(fmt::format("{} layers of {} experts: at most {} experts in all are read",
                               config.num_layers, config.num_experts, kMaxExpertsInAll));
  }
  const double hidden = static_cast<double>(config.hidden_size);
  const double heads = static_cast<double>(config.num_heads * (config.query_dim() + config.value_dim));
  const double mlp = static_cast<double>(config.intermediate_size) +
                     static_cast<double>(config.moe_intermediate_size) *
                         static_cast<double>(config.num_experts + config.num_shared_experts);
  const double layer =
      hidden * (heads + 3.0 * mlp) + heads * static_cast<double>(config.q_lora_rank + config.kv_lora_rank);
  const double total =
      2.0 * hidden * static_cast<double>(config.vocab_size) + layer * static_cast<double>(config.num_layers);
  if (total > static_cast<double>(kMaxParameters)) {
    fields.problem(
        fmt::format("about {:.3g} parameters: more than any model this reader is made for", total));
  }
}

Error joined(const char* file, const std::vector<std::string>& problems) {
  return error(ErrorCode::kInvalidArgument, "{}: {}", file, fmt::join(problems, "; "));
}

}  // namespace

Result<ModelConfig> parse_config(std::string_view text) {
  FATHOM_ASSIGN(const json object, weights::parse_json(text, "config.json"));
  if (!object.is_object()) return error(ErrorCode::kInvalidArgument, "config.json: expected an object");
  std::vector<std::string> problems;
  FieldReader fields(object, "", problems);
  const auto family = find_family(fields);
  if (!family.ok()) return family.error().with_context("config.json");

  ModelConfig config;
  config.model_type = (*family)->model_type;
  config.architecture = (*family)->architecture;
  read_sizes(fields, **family, config);
  read_experts(fields, **family, config);
  read_rope(fields, config, problems);
  read_dtype(fields, config, problems);
  fields.choice("hidden_act", "silu", {"silu"});
  for (const char* name : {"attention_bias", "mlp_bias"}) {
    if (fields.boolean(name, false)) fields.problem(fmt::format("{} true is not supported", name));
  }
  refuse_unserved(fields);
  config.eos_token_ids = fields.token_ids("eos_token_id");
  if (!fields.has("eos_token_id")) config.eos_token_ids = {(*family)->eos};
  const auto bos = fields.token_ids("bos_token_id");
  if (!bos.empty()) config.bos_token_id = bos.front();
  if (!fields.has("bos_token_id")) config.bos_token_id = (*family)->bos;
  check_total(fields, config);
  if (!problems.empty()) return joined("config.json", problems);
  return config;
}

Result<ModelConfig> load_config(const std::string& model_dir) {
  const auto path = (std::filesystem::path(model_dir) / "config.json").string();
  FATHOM_ASSIGN(const std::string text, weights::read_text_file(path, kMaxConfigBytes));
  auto config = parse_config(text);
  if (!config.ok()) return config.error().with_context(model_dir);
  return config;
}

Result<GenerationConfig> parse_generation_config(std::string_view text) {
  FATHOM_ASSIGN(const json object, weights::parse_json(text, "generation_config.json"));
  if (!object.is_object()) {
    return error(ErrorCode::kInvalidArgument, "generation_config.json: expected an object");
  }
  std::vector<std::string> problems;
  FieldReader fields(object, "", problems);
  GenerationConfig config;
  config.eos_token_ids = fields.token_ids("eos_token_id");
  const auto bos = fields.token_ids("bos_token_id");
  if (!bos.empty()) config.bos_token_id = bos.front();
  if (fields.find("do_sample") != nullptr) config.do_sample = fields.boolean("do_sample", true);
  const auto number = [&](const char* name, double low, double high, std::optional<double>& field) {
    if (fields.find(name) != nullptr) field = fields.number(name, low, high, low);
  };
  number("temperature", 0.0, 100.0, config.temperature);
  number("top_p", 0.0, 1.0, config.top_p);
  number("min_p", 0.0, 1.0, config.min_p);
  number("repetition_penalty", 0.0, 100.0, config.repetition_penalty);
  const auto integer = [&](const char* name, int64_t low, std::optional<int32_t>& field) {
    if (fields.find(name) != nullptr) {
      field = static_cast<int32_t>(fields.integer(name, low, (int64_t{1} << 31) - 1, low));
    }
  };
  integer("top_k", -1, config.top_k);
  integer("max_new_tokens", 0, config.max_new_tokens);
  if (!problems.empty()) return joined("generation_config.json", problems);
  return config;
}

Result<GenerationConfig> load_generation_config(const std::string& model_dir) {
  const auto path = (std::filesystem::path(model_dir) / "generation_config.json").string();
  auto text = weights::read_text_file(path, kMaxConfigBytes);
  if (!text.ok()) {
    if (text.error().code == ErrorCode::kNotFound) return GenerationConfig{};
    return text.error();
  }
  auto config = parse_generation_config(*text);
  if (!config.ok()) return config.error().with_context(model_dir);
  return config;
}

}  // namespace fathom::model
