// How threads meet: tickets, a bell for those who sleep, and the failure that ends a world. Used by
// thread_group.cc alone.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "base/result.h"
#include "dist/call.h"

namespace fathom::dist {

// A rank in one group. Its ticket counts up: 2 n - 1 when it has come to the n-th collective, 2 n when it has
// taken what it needs of the others.
struct alignas(64) Member {
  std::atomic<uint64_t> ticket{0};
  std::atomic<bool> gone{false};
  int world_rank = 0;
  Call call;  // written by its rank before the odd ticket
};

struct World;

// One group's state, shared by its handles.
struct Meeting {
  Meeting(std::shared_ptr<World> world, std::string name, const std::vector<int>& world_ranks);

  const std::shared_ptr<World> world;
  const std::string name;
  std::vector<Member> members;
  // Ranks that read others' buffers right now. Nobody returns from a failed call before it is 0; those inside
  // copy and never wait.
  std::atomic<int> inside{0};

  bool everyone_has(uint64_t ticket) const;
  // "all-reduce 17 of group world"
  std::string describe(uint64_t ticket, Call::Kind kind) const;

  // Shows the ticket of `rank` and waits for all others'. The world's error, when there is one and they have
  // not come.
  Result<void> meet(int rank, uint64_t ticket);
  // The world's error, once nobody reads this rank's buffers any more.
  Error leave() const;

 private:
  void sleep(int rank, uint64_t ticket);
};

// All groups that were split from one.
struct World {
  World(int size, std::chrono::milliseconds timeout);

  const std::chrono::milliseconds timeout;
  const int spins;  // looks at the tickets before sleeping
  std::atomic<bool> failed{false};
  std::atomic<int> sleepers{0};

  void ring();  // wakes the sleepers to look again
  void fail(Error error);
  Error error() const;  // once `failed`

 private:
  friend struct Meeting;
  // For whom a world rank sleeps.
  struct Wait {
    const Meeting* meeting = nullptr;
    uint64_t ticket = 0;
  };
  void fail_locked(Error error);
  // The ranks that hold up `wait`, those that only wait for others themselves left out.
  std::vector<int> culprits(const Wait& wait) const;

  mutable std::mutex mutex_;
  std::condition_variable bell_;
  Error error_;
  std::vector<Wait> waits_;  // [world rank]
};

}  // namespace fathom::dist
