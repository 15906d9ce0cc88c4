// How an op names its implementations and picks one: an ordered list, best first, ending in the reference.
// Picked once, when the model is built; the start-up log says which was taken.
#pragma once

#include <span>
#include <string_view>

#include "base/check.h"
#include "device/launch.h"

namespace fathom::ops {

template <class Function>
struct Implementation {
  std::string_view name;  // "amx", "avx512-bf16", "avx512", "avx2", "reference"
  device::Isa needs;      // the least level of instructions
  Function run;
};

// The first implementation of the list that the target can run.
template <class Function>
const Implementation<Function>& choose(std::span<const Implementation<Function>> list,
                                       const device::Target& target) {
  for (const auto& implementation : list) {
    if (implementation.needs <= target.isa) return implementation;
  }
  check_failed(__FILE__, __LINE__, "choose", "an op without a reference implementation");
}

}  // namespace fathom::ops
