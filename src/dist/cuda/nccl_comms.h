// NCCL's communicators of this process's ranks, and how they end together. ncclCommAbort tells the GPU at
// once to give up whatever waits there, but of one communicator's ranks in this process the last call returns
// only when every graph that has recorded its transfers is destroyed, and the machine's other processes have
// aborted theirs. So nobody who has such graphs, or whom somebody waits for who has, may wait for it: each
// abort has a thread of its own. Thread safe.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <shared_mutex>
#include <vector>

#include "dist/cuda/nccl.h"

namespace fathom::dist::cuda {

class NcclComms {
 public:
  explicit NcclComms(const Nccl& nccl) : nccl_(nccl) {}

  void add(Nccl::Comm comm);
  // True: it is the caller's to abort; false: end() has aborted it.
  bool remove(Nccl::Comm comm);

  // Held shared by who calls NCCL with one of them, after which it asks ended().
  std::shared_timed_mutex& calls() { return calls_; }
  bool ended() const { return ended_.load(std::memory_order_acquire); }

  // Whatever waits in NCCL gives up, here and on the GPUs; returns when all have been told, or as good as. A
  // call that does not return within `patience` waits for a rank that is gone: it is ended too.
  static void end(const std::shared_ptr<NcclComms>& comms, std::chrono::milliseconds patience);
  // Waits until all aborts have returned; false: they have not within `patience`.
  bool wait(std::chrono::milliseconds patience);

 private:
  const Nccl& nccl_;
  std::atomic<bool> ended_{false};
  std::shared_timed_mutex calls_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Nccl::Comm> comms_;
  int aborting_ = 0;
};

}  // namespace fathom::dist::cuda
