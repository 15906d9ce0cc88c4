#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom::text {

// Bounds of one render of a chat template. Beyond any of them it ends with an error that names the limit.
struct RenderLimits {
  uint64_t max_steps = 20'000'000;             // evaluated nodes, items walked, 64-byte pieces of text copied
  size_t max_output_bytes = size_t{16} << 20;  // of the result, and of any one string on the way to it
  size_t max_memory_bytes = size_t{256} << 20;  // of all values alive at one time
  int max_depth = 1000;                         // nested evaluations: macros, loops, expressions, values
};

}  // namespace fathom::text
