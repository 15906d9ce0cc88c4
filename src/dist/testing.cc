#include "dist/testing.h"

#include <algorithm>
#include <thread>
#include <utility>

#include "dist/socket_group.h"
#include "dist/thread_group.h"

namespace fathom::dist {

std::vector<Wiring> connect_wirings(const std::vector<int>& ranks) {
  std::vector<Wiring> wirings(ranks.size());
  for (size_t n = 0; n < wirings.size(); ++n) {
    Wiring& wiring = wirings[n];
    wiring.node = static_cast<int>(n);
    wiring.ranks = ranks;
    wiring.hosts.resize(ranks.size());
    wiring.nodes.resize(ranks.size());
    wiring.control.resize(ranks.size());
    wiring.peers.resize(static_cast<size_t>(ranks[n]));
    for (auto& peers : wiring.peers) peers.resize(static_cast<size_t>(wiring.world_size()));
  }
  for (size_t b = 0; b < wirings.size(); ++b) {
    for (size_t a = 0; a < b; ++a) {
      std::tie(wirings[a].nodes[b], wirings[b].nodes[a]) = socket_pair();
      if (a == 0) std::tie(wirings[0].control[b], wirings[b].control[0]) = socket_pair();
      const auto first_a = static_cast<size_t>(wirings[a].first_rank(static_cast<int>(a)));
      const auto first_b = static_cast<size_t>(wirings[b].first_rank(static_cast<int>(b)));
      for (size_t i = 0; i < wirings[a].peers.size(); ++i) {
        for (size_t j = 0; j < wirings[b].peers.size(); ++j)
          std::tie(wirings[a].peers[i][first_b + j], wirings[b].peers[j][first_a + i]) = socket_pair();
      }
    }
  }
  return wirings;
}

std::vector<std::unique_ptr<Group>> make_test_groups(int size, int nodes, std::chrono::milliseconds timeout) {
  if (nodes == 0) return make_thread_groups(size, timeout);
  nodes = std::min(nodes, size);
  std::vector<int> ranks;
  for (int n = 0; n < nodes; ++n) ranks.push_back(size / nodes + (n < size % nodes ? 1 : 0));
  std::vector<std::unique_ptr<Group>> groups;
  for (Wiring& wiring : connect_wirings(ranks)) {
    for (auto& group : make_socket_groups(wiring, timeout).ranks) groups.push_back(std::move(group));
  }
  return groups;
}

void run_ranks(std::vector<std::unique_ptr<Group>> groups, const std::function<void(Group&)>& fn) {
  std::vector<std::thread> threads;
  for (auto& group : groups) {
    threads.emplace_back([&fn, mine = std::move(group)] { fn(*mine); });
  }
  for (auto& thread : threads) thread.join();
}

}  // namespace fathom::dist
