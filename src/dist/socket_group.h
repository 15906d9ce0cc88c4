// A group of ranks of several processes ("nodes"), each rank a thread. Every two ranks have a connection:
// through the network, or within their process. Sums have the bits that a group of threads gives, however the
// ranks are spread.
//
// All handles of one rank are used by one thread: what ranks send each other for all their groups goes
// through one connection, in the order of the calls.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "dist/group.h"
#include "dist/node_world.h"
#include "dist/wiring.h"

namespace fathom::dist {

struct SocketGroups {
  std::vector<std::unique_ptr<Group>> ranks;  // this node's handles of the world
  std::shared_ptr<NodeWorld> world;           // for ControlHost or ControlGuest
};

// Takes the wiring's connections between ranks and nodes. Errors name ranks with their nodes. `timeout`: how
// long a rank waits for another while nothing moves, and a bound of how long a node may be silent.
SocketGroups make_socket_groups(Wiring& wiring, std::chrono::milliseconds timeout = kDefaultTimeout);

}  // namespace fathom::dist
