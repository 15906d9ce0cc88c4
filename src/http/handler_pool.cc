#include "http/handler_pool.h"

#include <algorithm>
#include <system_error>
#include <utility>

#include "base/thread_start.h"

namespace fathom::http {

HandlerPool::HandlerPool(int max_tasks, int reserve, std::chrono::milliseconds idle_timeout)
    : max_tasks_(max_tasks), max_threads_(max_tasks + reserve), idle_timeout_(idle_timeout) {}

HandlerPool::~HandlerPool() {
  stop();
}

void HandlerPool::stop() {
  std::unique_lock lock(mutex_);
  stopping_ = true;
  for (Worker* worker : idle_) worker->wake.notify_one();
  all_left_.wait(lock, [&] { return workers_.empty(); });
  std::list<Worker> ended = std::move(left_);
  left_.clear();
  lock.unlock();
  for (Worker& worker : ended) worker.thread.join();
}

void HandlerPool::Turn::end() {
  if (std::exchange(ended_, true)) return;
  std::lock_guard lock(pool_.mutex_);
  --pool_.in_work_;
  if (!reserve_) --pool_.ordinary_;
}

bool HandlerPool::submit(Task task, bool reserve) {
  Job job{std::move(task), reserve};
  std::list<Worker> ended;  // joined after the lock is gone
  bool accepted = true;
  {
    std::lock_guard lock(mutex_);
    ended.swap(left_);
    if (stopping_ || in_work_ == max_threads_ || (!reserve && ordinary_ == max_tasks_)) {
      accepted = false;
    } else if (!idle_.empty()) {
      Worker* worker = idle_.back();
      idle_.pop_back();
      worker->job = std::move(job);
      worker->wake.notify_one();
    } else if (static_cast<int>(workers_.size()) < max_threads_) {
      workers_.emplace_front();
      Worker& worker = workers_.front();
      worker.self = workers_.begin();
      worker.job = std::move(job);
      try {
        worker.thread = std::thread([this, &worker] {
          begin_thread("http handler");
          work(worker);
        });
      } catch (const std::system_error&) {
        workers_.pop_front();
        accepted = false;
      }
    } else {
      waiting_.push_back(std::move(job));
    }
    if (accepted) {
      ++in_work_;
      if (!reserve) ++ordinary_;
    }
  }
  for (Worker& worker : ended) worker.thread.join();
  return accepted;
}

void HandlerPool::work(Worker& worker) {
  std::unique_lock lock(mutex_);
  while (true) {
    if (worker.job.task) {
      lock.unlock();
      run(std::exchange(worker.job, {}));
      lock.lock();
    }
    if (!waiting_.empty()) {
      worker.job = std::move(waiting_.front());
      waiting_.pop_front();
      continue;
    }
    if (stopping_) break;
    idle_.push_back(&worker);
    const bool woken =
        worker.wake.wait_for(lock, idle_timeout_, [&] { return worker.job.task != nullptr || stopping_; });
    if (worker.job.task) continue;
    idle_.erase(std::find(idle_.begin(), idle_.end(), &worker));
    if (!woken || stopping_) break;
  }
  left_.splice(left_.end(), workers_, worker.self);
  if (workers_.empty()) all_left_.notify_all();
}

void HandlerPool::run(Job job) {
  Turn turn(*this, job.reserve);
  job.task(turn);
  job.task = nullptr;  // what it holds goes before the place does
  turn.end();
}

int HandlerPool::threads() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(workers_.size());
}

int HandlerPool::active() const {
  std::lock_guard lock(mutex_);
  return static_cast<int>(workers_.size() - idle_.size());
}

}  // namespace fathom::http
