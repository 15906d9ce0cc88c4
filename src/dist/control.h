// What node 0 tells the others while the world lives, and they it: messages of bytes, in order, node 0's each
// to all nodes. A message without end, a connection that closes and a world that fails end it with an error.
#pragma once

#include <atomic>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "dist/node_world.h"
#include "dist/socket.h"
#include "dist/wiring.h"

namespace fathom::dist {

inline constexpr uint64_t kMaxControlBytes = uint64_t{1} << 32;  // of a message

// Node 0's end. One thread at a time sends; receive() of a node is one thread's.
class ControlHost {
 public:
  // Takes the wiring's control connections.
  ControlHost(Wiring& wiring, std::shared_ptr<NodeWorld> world);
  // With end().
  ~ControlHost();
  ControlHost(const ControlHost&) = delete;
  ControlHost& operator=(const ControlHost&) = delete;

  // Waits while a node does not take it. An error is the world's.
  Result<void> send(std::string_view message);
  // Tells the others that no more will come: what is sent afterwards goes nowhere. Called by who sends.
  void end();
  // The next message of `node`; nothing after stop_receiving().
  Result<std::optional<std::string>> receive(int node);
  void stop_receiving() { stopped_.store(true, std::memory_order_release); }
  // Ends the world.
  void fail(Error why) { world_->fail(std::move(why)); }
  // A node asked for the end (ControlGuest::ask_to_end). Thread safe.
  std::optional<int> asked_to_end() const { return world_->asked_to_end(); }

 private:
  std::shared_ptr<NodeWorld> world_;
  std::vector<Socket> nodes_;  // from node 1 on
  std::atomic<bool> stopped_{false};
  bool ended_ = false;
};

// Another node's end. receive() is called by one thread at a time, and so is send().
class ControlGuest {
 public:
  ControlGuest(Wiring& wiring, std::shared_ptr<NodeWorld> world);

  // The next message; nothing when node 0 has said that no more will come.
  Result<std::optional<std::string>> receive();
  // To node 0. Waits while it does not take it. An error is the world's.
  Result<void> send(std::string_view message);
  // Thread safe.
  void ask_to_end() { world_->ask_to_end(); }

 private:
  std::shared_ptr<NodeWorld> world_;
  Socket host_;
};

}  // namespace fathom::dist
