// Sees to it that a process that is ending ends: what is destroyed may wait for a device, or for NCCL, that
// never answers, and a supervisor waits for the exit.
#pragma once

#include <chrono>
#include <condition_variable>
#include <mutex>
#include <thread>

#include "app/args.h"

namespace fathom::app {

// How long the end of a model may take: requests that are left get two seconds, and on CPUs the memory of a
// large one takes a minute to be given back.
std::chrono::milliseconds end_patience(const ModelArgs& args);

// The process exits with 1 where this lives longer than `patience`; the log says so.
class EndGuard {
 public:
  explicit EndGuard(std::chrono::milliseconds patience);
  ~EndGuard();
  EndGuard(const EndGuard&) = delete;
  EndGuard& operator=(const EndGuard&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

}  // namespace fathom::app
