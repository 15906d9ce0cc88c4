// Where the ranks of a layout meet in a step, and what passes over which link: pure functions of the config
// and of how the model is split.
#pragma once

#include <cstdint>
#include <vector>

#include "engine/layout/hardware.h"
#include "model/config.h"
#include "model/shard.h"

namespace fathom::engine {

// Copies of the model side by side, the split of each, and the nodes that they lie on.
struct Layout {
  model::Split split;
  int replicas = 1;
  int nodes = 1;

  int ranks() const { return split.world() * replicas; }
  int ranks_a_node() const { return ranks() / nodes; }
  // Of `ranks` neighbours.
  int nodes_of(int ranks) const;
  bool operator==(const Layout&) const = default;
};

enum class Meeting : uint8_t { kAllReduce, kAllGather, kReduceScatter, kHandOver };

struct Traffic {
  Meeting meeting = Meeting::kAllReduce;
  const char* where = "";
  int times = 0;             // a step
  int64_t row_bytes = 0;     // of the message, for each of its rows
  int64_t back_bytes = 0;    // all-reduce: of what comes back, the sum or its norm
  bool all_groups = false;   // its rows are the tokens of all groups of requests, not of one
  bool chosen_rows = false;  // rows whose next token is chosen, not all
  int ranks = 1;             // that meet
  int nodes = 1;             // that they are on

  // What a rank passes on, for each row of the message, over the links inside its node and over its network
  // card: an all-reduce scatters parts and gathers what becomes of them, and nodes exchange only what each
  // card is for.
  double link_bytes() const;
  double network_bytes() const;
};

// `wide`: activations are float32 (--dtype float32, and the CPU); sums are float32 always.
std::vector<Traffic> traffic_of(const model::ModelConfig& config, const Layout& layout, bool wide);

// Microseconds that one meeting takes with so many rows.
double meeting_us(const Traffic& traffic, double rows, const GpuKind& gpu);

}  // namespace fathom::engine
