// Any text is refused, or gives a config whose sizes can be computed with.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "model/config.h"
#include "model/memory.h"
#include "model/shard.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  (void)fathom::model::parse_generation_config(text);
  const auto config = fathom::model::parse_config(text);
  if (!config.ok()) return 0;
  // Tables of names take a while for models of thousands of experts and layers.
  if (config->num_layers * (config->num_experts + 1) > 2000) return 0;
  const auto plan = fathom::model::plan_memory(*config, {});
  if (plan.parameters <= 0 || plan.weight_bytes <= 0 || plan.kv_bytes_per_token <= 0) std::abort();
  for (const fathom::model::Split& split :
       {fathom::model::Split{.tp = 2}, {.tp = 4, .ep = 2}, {.tp = 2, .pp = 2}})
    (void)fathom::model::make_shard(*config, split, split.world() - 1);
  return 0;
}
