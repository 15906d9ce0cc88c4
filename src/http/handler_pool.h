// Threads for blocking handlers. Grows to a bound on demand; threads without work leave after a while.
//
// What is bounded is tasks in work, and a task is in work until it says that its answer is about to leave, or
// returns. So a client that has its answer may ask again at once: its next task never meets the remains of
// the last one. It may wait for that one's thread.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <list>
#include <mutex>
#include <thread>
#include <vector>

namespace fathom::http {

// Thread safe.
class HandlerPool {
 public:
  // `reserve`: tasks beyond `max_tasks`, of those that may have a place in it.
  HandlerPool(int max_tasks, int reserve, std::chrono::milliseconds idle_timeout);
  ~HandlerPool();  // as stop()
  HandlerPool(const HandlerPool&) = delete;
  HandlerPool& operator=(const HandlerPool&) = delete;

  // A task's place among those in work. Used by the task, on its thread.
  class Turn {
   public:
    // Gives the place up while the task still runs. A second call does nothing.
    void end();

   private:
    friend class HandlerPool;
    Turn(HandlerPool& pool, bool reserve) : pool_(pool), reserve_(reserve) {}
    HandlerPool& pool_;
    const bool reserve_;
    bool ended_ = false;
  };
  using Task = std::function<void(Turn&)>;

  // Runs `task` on a thread. False when as many as may be are in work, or no thread can be made. Tasks must
  // not throw.
  bool submit(Task task, bool reserve = false);

  // Refuses further tasks and waits for the accepted ones.
  void stop();

  int threads() const;
  int active() const;  // threads that run a task

 private:
  struct Job {
    Task task;  // null: none
    bool reserve = false;
  };
  struct Worker {
    std::thread thread;
    std::condition_variable wake;
    Job job;
    std::list<Worker>::iterator self;
  };
  void work(Worker& worker);
  void run(Job job);

  const int max_tasks_;
  const int max_threads_;  // with the reserve
  const std::chrono::milliseconds idle_timeout_;
  mutable std::mutex mutex_;
  std::condition_variable all_left_;
  std::list<Worker> workers_;  // alive
  std::list<Worker> left_;     // ended, to be joined
  std::vector<Worker*> idle_;  // last in, first out: the others get to leave
  std::deque<Job> waiting_;    // accepted: a thread is about to return for each
  int in_work_ = 0;
  int ordinary_ = 0;  // of those in work, the ones that may not have the reserve
  bool stopping_ = false;
};

}  // namespace fathom::http
