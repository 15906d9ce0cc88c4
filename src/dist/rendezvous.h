// How the nodes of a world find each other: node 0 listens on the address that all are given, the others come
// to it, prove that they know the secret, and say what must be the same on all nodes. When all are there and
// agree, they connect to each other, and nobody listens any more.
//
// Sockets: node 0 listens on the address given and on no other. A node that others above it connect to
// listens on the address that it reached node 0 from, on a port that the system chooses; the last node
// listens nowhere.
#pragma once

#include <chrono>
#include <string>
#include <vector>

#include "base/result.h"
#include "dist/group.h"
#include "dist/wire.h"
#include "dist/wiring.h"

namespace fathom::dist {

struct RendezvousOptions {
  int node = 0, nodes = 1;
  int ranks = 1;        // of this node
  std::string address;  // of node 0: HOST:PORT
  // Required unless the address is a loopback one.
  std::string secret;
  std::chrono::milliseconds timeout = kDefaultTimeout;  // until all are there
  std::vector<Fact> facts;                              // that must be the same on all nodes
};

inline constexpr size_t kMinSecret = 16;  // bytes

// Waits for all nodes, with a log line now and then that says for which. Errors: wrong options; a secret or
// facts that differ (on node 0 too: who joins with other facts ends the start on all nodes); the timeout,
// with the nodes that did not come. A node that dies before all are there may come again.
Result<Wiring> meet_nodes(const RendezvousOptions& options);

}  // namespace fathom::dist
