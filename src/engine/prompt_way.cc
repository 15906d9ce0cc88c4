#include "engine/prompt_way.h"

namespace fathom::engine {
namespace {

// Times that products of linear layers are faster than attention, whose kernels multiply float32 at every
// level (src/ops/attention/README.md).
int64_t linear_speedup(device::Isa isa) {
  switch (isa) {
    case device::Isa::kAvx512Bf16:
      return 2;
    case device::Isa::kAmx:
      return 4;
    default:
      return 1;
  }
}

}  // namespace

PromptWay::PromptWay(const model::ModelConfig& c, device::Isa isa)
    : projection_(c.kv_lora_rank * (c.nope_dim + c.value_dim) / linear_speedup(isa)),
      wider_(2 * c.kv_lora_rank - c.nope_dim - c.value_dim) {}

bool PromptWay::absorbs(int64_t start, int64_t count) const {
  const int64_t pairs = count * start + count * (count + 1) / 2;
  return pairs * wider_ < start * projection_;
}

}  // namespace fathom::engine
