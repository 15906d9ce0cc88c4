// The connections of one process to the others of its world, as the rendezvous leaves them.
#pragma once

#include <string>
#include <vector>

#include "dist/socket.h"

namespace fathom::dist {

// Ranks are numbered node by node.
struct Wiring {
  int node = 0;                    // this one
  std::vector<int> ranks;          // [node] how many it has
  std::vector<std::string> hosts;  // [node] for errors: "10.0.0.2"; this node's may be empty
  std::vector<Socket> nodes;       // [node] for words about the world's state; none to itself
  std::vector<Socket> control;     // [node] node 0 to that node; elsewhere, only [0], from node 0
  // [rank of this node, counted from 0][rank of the world]: for what the two send each other; none between
  // ranks of this node.
  std::vector<std::vector<Socket>> peers;

  int world_size() const {
    int size = 0;
    for (const int count : ranks) size += count;
    return size;
  }
  int first_rank(int of_node) const {
    int first = 0;
    for (int n = 0; n < of_node; ++n) first += ranks[static_cast<size_t>(n)];
    return first;
  }
};

}  // namespace fathom::dist
