// What checkpoints of other formats than the config's would take, by bytes a parameter.
#pragma once

#include <span>
#include <string>
#include <string_view>

#include "model/memory.h"

namespace fathom::engine {

struct WeightFormat {
  const char* name;  // as --weight-format takes it
  bool readable;     // this version loads it; its bytes are exact
  // Bytes a parameter, scales and zero points with them: of attention's and the MLPs' matrices, and of the
  // routed experts'. Embedding, head, gates and norms stay as they are.
  double matrices = 0.0, experts = 0.0;
  const char* scales = "";  // what they come to
};

std::span<const WeightFormat> weight_formats();
const WeightFormat* find_weight_format(std::string_view name);  // null where it is not known
std::string weight_format_names();                              // "fp8, bf16, ..."

// `plan`, of bf16 weights, as it would be in `format`.
void reckon(const WeightFormat& format, model::MemoryPlan& plan);

}  // namespace fathom::engine
