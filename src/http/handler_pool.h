// Threads for blocking handlers. Grows to a bound on demand; threads without work leave after a while.
#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

namespace fathom::http {

// Thread safe.
class HandlerPool {
 public:
  HandlerPool(int max_threads, std::chrono::milliseconds idle_timeout);
  ~HandlerPool();  // as stop()
  HandlerPool(const HandlerPool&) = delete;
  HandlerPool& operator=(const HandlerPool&) = delete;

  // Runs `task` on a thread at once. False when all threads are busy, or no thread can be made. Tasks must
  // not throw.
  bool submit(std::function<void()> task);

  // Refuses further tasks and waits for the running ones.
  void stop();

  int threads() const;
  int active() const;

 private:
  struct Worker {
    std::thread thread;
    std::condition_variable wake;
    std::function<void()> task;
    std::list<Worker>::iterator self;
  };
  void work(Worker& worker);

  const int max_threads_;
  const std::chrono::milliseconds idle_timeout_;
  mutable std::mutex mutex_;
  std::condition_variable all_left_;
  std::list<Worker> workers_;  // alive
  std::list<Worker> left_;     // ended, to be joined
  std::vector<Worker*> idle_;  // last in, first out: the others get to leave
  bool stopping_ = false;
};

}  // namespace fathom::http
