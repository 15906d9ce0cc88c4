// What the API room must know of the served model; filled by app, fixed after start.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace fathom::api {

// A checkpoint's generation_config.json: used where a request does not say, and only for fields that are set.
struct GenerationDefaults {
  std::optional<float> temperature;
  std::optional<float> top_p;
  std::optional<int32_t> top_k;
  std::optional<float> min_p;
  std::optional<float> repetition_penalty;
};

struct ModelCard {
  std::string served_model_name;         // the id in /v1/models; requests name it, or "default", or nothing
  std::vector<std::string> other_names;  // that requests may give as well; "*": any
  std::string model_path;
  std::string tokenizer_path;
  std::string load_format = "auto";
  std::string model_type;                  // config.json, e.g. "deepseek_v3"
  std::vector<std::string> architectures;  // config.json, e.g. {"DeepseekV3ForCausalLM"}
  int32_t context_length = 0;              // tokens of prompt and output together
  int32_t model_context = 0;               // the same for the model alone, above it where the pool is smaller
  int32_t vocab_size = 0;                  // ids in [0, vocab_size) are valid input
  std::vector<int32_t> eos_token_ids;      // of config.json and generation_config.json together
  std::optional<int32_t> bos_token_id;
  GenerationDefaults defaults;
  int64_t created = 0;  // Unix time, seconds
};

}  // namespace fathom::api
