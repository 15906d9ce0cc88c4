// Threads that split one kernel's work. Made for many short regions: workers spin a little before they sleep,
// so a region costs a microsecond or two.
//
// Where other programs use the same CPUs, a worker may have to wait for one. A region is closed once its work
// is given out, and waits for those alone who have taken some: who comes late finds it closed. And who waits
// long sleeps, so that the system may run the one waited for in its place.
//
// One region at a time: `run` and `parallel_for` are called by one thread, which takes part as worker 0. A
// body must not call the pool again and must not throw.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace fathom {

class ThreadPool {
 public:
  // `threads` >= 1 workers in all, the caller's included. When `cpus` is not empty, worker i > 0 is bound to
  // cpus[i % cpus.size()].
  explicit ThreadPool(int threads, std::vector<int> cpus = {});
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int size() const { return static_cast<int>(workers_.size()) + 1; }

  // body(worker) once on every worker, 0 <= worker < size(). Returns when all are done.
  void run(const std::function<void(int worker)>& body);

  // body(begin, end, worker) over [0, n) in pieces of at most `grain` that workers take as they become free.
  void parallel_for(int64_t n, int64_t grain,
                    const std::function<void(int64_t begin, int64_t end, int worker)>& body);

 private:
  void work(int worker);
  void open(const std::function<void(int)>& body);
  void close();

  std::vector<std::thread> workers_;
  std::vector<int> cpus_;
  const std::function<void(int)>* body_ = nullptr;
  // The present region: its number, whether one may still enter, whether its caller sleeps until it is empty,
  // and how many workers are inside.
  std::atomic<uint32_t> region_{0};
  std::atomic<int> sleepers_{0};  // workers
  std::atomic<bool> stop_{false};
  std::mutex mutex_;
  std::condition_variable wake_;   // workers
  std::condition_variable empty_;  // the caller
};

// The CPUs that this process may run on (its affinity mask and its container's quota considered).
std::vector<int> available_cpus();

}  // namespace fathom
