// The machines that `fathom plan` knows by name, and the links between their GPUs: figures with their
// sources, for plans of hardware that is not at hand.
#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>

namespace fathom::engine {

// A figure of the outside world and where it is from.
struct Figure {
  double value = 0.0;
  const char* source = "";
};

struct GpuKind {
  const char* name;   // as --gpu takes it
  const char* title;  // as people write it
  Figure memory_gib;  // that one process may take
  Figure read_gbs;    // bandwidth that a kernel reads with, 1e9 bytes a second; 0: never measured for Fathom
  Figure link_gbs;    // to its neighbours in the node, one direction, 1e9 bytes a second; 0 as above
  const char* obstacle;  // why this version does not run there; "" where it does
};

std::span<const GpuKind> gpu_kinds();
const GpuKind* find_gpu(std::string_view name);  // null where it is not known
std::string gpu_names();                         // "h100, h200, ..."

// What a meeting of ranks costs (dist/cuda): a sum of few rows is posted to all others, of many rows each
// rank adds a share and passes it on.
struct Links {
  Figure post_us;      // of a posted sum, its residual and its norm, without the bytes
  Figure post_gbs;     // posted bytes, sent and added
  Figure meeting_us;   // of any other meeting in a node, without the bytes, which pass at the link's pace
  Figure peer_us;      // of each further peer
  Figure network_gbs;  // of each GPU's card, one direction
  Figure network_us;   // what crossing nodes adds
};
const Links& links();

}  // namespace fathom::engine
