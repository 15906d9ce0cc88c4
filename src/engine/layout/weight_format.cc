#include "engine/layout/weight_format.h"

#include <algorithm>
#include <array>

namespace fathom::engine {
namespace {

constexpr std::array kFormats = {
    WeightFormat{"fp8", true, 0, 0, ""},
    WeightFormat{"bf16", true, 0, 0, ""},
    WeightFormat{"int8", false, 1.0, 1.0, "one byte, and a scale for each row"},
    WeightFormat{"w4a8", false, 1.0, 0.516, "routed experts 4 bits and 2 bytes for 128, the rest FP8"},
    WeightFormat{"awq", false, 0.52, 0.52, "4 bits, and for 128 a scale of 2 bytes and a zero of 4 bits"},
    WeightFormat{"mxfp4", false, 2.0, 0.532, "routed experts 4 bits and a byte for 32, the rest bf16"},
    WeightFormat{"nvfp4", false, 2.0, 0.563, "routed experts 4 bits and a byte for 16, the rest bf16"},
};

}  // namespace

std::span<const WeightFormat> weight_formats() {
  return kFormats;
}

const WeightFormat* find_weight_format(std::string_view name) {
  const auto* found =
      std::find_if(kFormats.begin(), kFormats.end(), [&](const WeightFormat& f) { return f.name == name; });
  return found == kFormats.end() ? nullptr : found;
}

std::string weight_format_names() {
  std::string names;
  for (const auto& format : kFormats) names += (names.empty() ? "" : ", ") + std::string(format.name);
  return names;
}

void reckon(const WeightFormat& format, model::MemoryPlan& plan) {
  plan.weight_bytes = plan.decode_bytes = 0;
  for (auto& part : plan.weights) {
    const bool experts = part.name == "routed experts";
    const bool matrices =
        part.name == "attention" || part.name == "dense layers" || part.name == "shared experts";
    // Of bf16's bytes, so that the second copy of kv_b and the rounding to panels stay.
    const double share = experts ? format.experts / 2 : matrices ? format.matrices / 2 : 1.0;
    part.bytes = static_cast<int64_t>(static_cast<double>(part.bytes) * share);
    plan.weight_bytes += part.bytes;
  }
}

}  // namespace fathom::engine
