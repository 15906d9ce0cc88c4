// Worlds for tests: ranks on threads, as one node or as several that talk through sockets of this process.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "dist/group.h"
#include "dist/wiring.h"

namespace fathom::dist {

// Nodes with so many ranks each, connected with each other.
std::vector<Wiring> connect_wirings(const std::vector<int>& ranks);

// `size` ranks of one node whose threads read each other's memory (nodes = 0), or spread over so many nodes
// with sockets between all ranks; fewer nodes where there are fewer ranks.
std::vector<std::unique_ptr<Group>> make_test_groups(int size, int nodes, std::chrono::milliseconds timeout);

// fn(group) on a thread for each rank; the groups die with their thread.
void run_ranks(std::vector<std::unique_ptr<Group>> groups, const std::function<void(Group&)>& fn);

}  // namespace fathom::dist
