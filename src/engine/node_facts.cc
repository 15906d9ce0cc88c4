#include "engine/node_facts.h"

#include <fstream>
#include <sstream>

#include "base/sha256.h"

namespace fathom::engine {
namespace {

// The first 16 digits: enough to tell two apart, few enough to read.
std::string short_digest(std::string_view bytes) {
  std::string text;
  for (const uint8_t byte : sha256(bytes)) text += fmt::format("{:02x}", byte);
  return text.substr(0, 16);
}

std::string digest_of(const weights::Checkpoint& checkpoint) {
  std::string names;
  for (const auto& [name, tensor] : checkpoint.tensors())
    names += name + " " + weights::describe(*tensor) + "\n";
  return fmt::format("{} in {} tensors", short_digest(names), checkpoint.tensors().size());
}

}  // namespace

Result<std::vector<dist::Fact>> node_facts(const EngineOptions& options, const std::string& model_path,
                                           const std::string& version) {
  std::ifstream file(model_path + "/config.json", std::ios::binary);
  std::ostringstream config;
  if (!file || !(config << file.rdbuf()))
    return error(ErrorCode::kNotFound, "cannot read {}/config.json", model_path);
  const model::LoadOptions& load = options.load;
  const model::Split& split = options.split;
  const auto number = [](int64_t value) { return fmt::format("{}", value); };
  return std::vector<dist::Fact>{
      {"the version of Fathom", version},
      {"the model's config.json", short_digest(config.str())},
      {"the model's weights",
       load.checkpoint != nullptr ? digest_of(*load.checkpoint) : fmt::format("dummy, seed {}", load.seed)},
      {"--tp", number(split.tp)},
      {"--ep-size", number(split.ep)},
      {"--ep-num-redundant-experts", number(split.redundant)},
      {"--enable-eplb with --eplb-rebalance-num-iterations",
       options.rebalance_passes > 0 ? number(options.rebalance_passes) : "no"},
      {"--pp-size", number(split.pp)},
      {"--dp with --enable-dp-attention", number(split.dp)},
      {"--dtype", load.compute == ops::Compute::kF32 ? "float32" : "bfloat16"},
      {"--fp8-activations", options.fp8_activations ? "on" : "off"},
      {"--kv-cache-dtype", device::to_string(load.kv_dtype)},
      {"--disable-mla", load.mla ? "no" : "yes"},
      // The parts that all ranks compute for themselves must have the same bits on all.
      {"--cpu-isa", device::to_string(load.target.isa)},
      {"--page-size", number(options.page_size)},
      {"--context-length", number(options.context())},
      {"--max-running-requests", number(options.max_running)},
      {"--chunked-prefill-size", number(options.max_step_tokens)},
      {"--max-total-tokens", number(options.max_total_tokens)},
      {"--cuda-graph-bs", fmt::format("{}", fmt::join(options.graph_sizes, " "))},
      {"--speculative-algorithm", to_string(options.speculation)},
      {"--dist-timeout", fmt::format("{} s", static_cast<double>(options.dist_timeout.count()) * 1e-3)},
  };
}

}  // namespace fathom::engine
