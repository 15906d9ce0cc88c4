// What the ranks of one process share of a world that spans several: its failure, who has left which group,
// who waits for whom, and the thread that talks to the other nodes about these. Used by socket_group.cc and
// control.cc.
//
// Between each two nodes is a connection for such words. A node tells every eighth of the timeout that it
// lives, and for whom its ranks wait. One that is not heard of for three quarters of the timeout is stopped,
// hung or cut off; one whose connection closes without a good-bye has died: both end the world.
//
// Thread safe.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/result.h"
#include "dist/socket.h"
#include "dist/wire.h"
#include "dist/wiring.h"

namespace fathom::dist {

class NodeWorld {
 public:
  // Takes the connections to the other nodes.
  NodeWorld(Wiring& wiring, std::chrono::milliseconds timeout);
  // Says good-bye to the other nodes.
  ~NodeWorld();
  NodeWorld(const NodeWorld&) = delete;
  NodeWorld& operator=(const NodeWorld&) = delete;

  const std::chrono::milliseconds timeout;

  int nodes() const { return static_cast<int>(links_.size()); }
  int ranks_here() const { return static_cast<int>(bells_.size()); }
  int first_rank() const { return first_rank_; }
  // "rank 2 (node 1)", or "rank 2" where there is one node.
  std::string name(int rank) const;

  // The first error is the world's, here and on all nodes.
  void fail(Error error);
  bool failed() const { return failed_.load(std::memory_order_acquire); }
  Error error() const;  // once failed()

  // Rung when the world fails and when a rank leaves. One for each rank of this node.
  const Socket& bell(int rank) const { return bells_[static_cast<size_t>(rank - first_rank_)]; }

  // Rank `rank` of this node goes out of a group, in which it has ended `calls` calls.
  void leave(uint64_t group, int rank, uint64_t calls);
  // After how many calls that rank has left the group; nothing while it is there.
  std::optional<uint64_t> left(uint64_t group, int rank) const;

  // The ranks that `rank`, of this node, waits for; none: it does not wait.
  void set_waits(int rank, std::vector<uint32_t> missing);
  // The ranks that hold up one that waits for `missing`, those that only wait for others themselves left out.
  std::vector<int> culprits(int rank, const std::vector<uint32_t>& missing) const;

  // Asks node 0 to end the world in good order; there, a node that asked.
  void ask_to_end();
  std::optional<int> asked_to_end() const;

 private:
  struct Link {
    Socket socket;
    std::string host;
    int first_rank = 0, ranks = 0;
    std::string in;   // not yet a whole message
    std::string out;  // not yet sent
    bool said_bye = false;
    bool closed = false;
    Deadline heard;  // when something came last
  };

  void watch();
  void beat();
  void read(int node, Link& link);
  void write(Link& link);
  void take(int node, Link& link, const NodeMessage& message);
  void lost(int node, Link& link, const std::string& how);
  void say(const NodeMessage& message);  // to all nodes; mutex_ held
  void fail_locked(Error error, int but_not);
  void ring_all();
  std::string describe(int node, const Link& link) const;

  const int node_;
  const int first_rank_;
  std::vector<int> node_of_;  // [world rank]
  std::vector<Socket> bells_;
  Socket wake_;  // the watcher's bell
  std::atomic<bool> failed_{false};

  mutable std::mutex mutex_;
  Error error_;
  std::vector<Link> links_;  // [node]
  std::map<std::pair<uint64_t, int>, uint64_t> left_;
  std::vector<std::vector<uint32_t>> waits_;  // [world rank]
  std::optional<int> asked_to_end_;
  bool ending_ = false;
  std::thread watcher_;
};

}  // namespace fathom::dist
