#include "engine/prompt_way.h"

namespace fathom::engine {
PromptWay::PromptWay(const model::ModelConfig& c)
    : projection_(c.kv_lora_rank * (c.nope_dim + c.value_dim)),
      wider_(2 * c.kv_lora_rank - c.nope_dim - c.value_dim) {}

bool PromptWay::absorbs(int64_t start, int64_t count) const {
  const int64_t pairs = count * start + count * (count + 1) / 2;
  return pairs * wider_ < start * projection_;
}

}  // namespace fathom::engine
