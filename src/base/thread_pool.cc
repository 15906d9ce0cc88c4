#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "base/check.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fathom {
namespace {

// About 20 to 50 us: longer than the gap between two kernels of a step, shorter than a scheduler's time
// slice.
constexpr int kSpins = 4000;

void pause_cpu() {
#if defined(__x86_64__)
  _mm_pause();
#endif
}

void bind_to(int cpu) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(static_cast<size_t>(cpu), &set);
  pthread_setaffinity_np(pthread_self(), sizeof(set), &set);  // Best effort: an unbound worker still works.
}

}  // namespace

ThreadPool::ThreadPool(int threads, std::vector<int> cpus) : cpus_(std::move(cpus)) {
  FATHOM_CHECK_GE(threads, 1);
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int i = 1; i < threads; ++i) workers_.emplace_back([this, i] { work(i); });
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
    generation_.fetch_add(1);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::work(int worker) {
  if (!cpus_.empty()) bind_to(cpus_[static_cast<size_t>(worker) % cpus_.size()]);
  uint64_t seen = 0;
  while (true) {
    for (int i = 0; i < kSpins && generation_.load(std::memory_order_acquire) == seen; ++i) pause_cpu();
    if (generation_.load(std::memory_order_acquire) == seen) {
      std::unique_lock lock(mutex_);
      sleepers_.fetch_add(1);
      wake_.wait(lock, [&] { return generation_.load() != seen; });
      sleepers_.fetch_sub(1);
    }
    seen = generation_.load(std::memory_order_acquire);
    if (stop_.load()) return;
    (*body_)(worker);
    remaining_.fetch_sub(1, std::memory_order_release);
  }
}

void ThreadPool::run(const std::function<void(int)>& body) {
  if (workers_.empty()) return body(0);
  body_ = &body;
  remaining_.store(static_cast<int>(workers_.size()), std::memory_order_relaxed);
  // seq_cst on both sides: either a worker sees the new generation, or this thread sees it among the
  // sleepers.
  generation_.fetch_add(1);
  if (sleepers_.load() > 0) {
    {
      std::lock_guard lock(mutex_);
    }
    wake_.notify_all();
  }
  body(0);
  for (int spins = 0; remaining_.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins)
      pause_cpu();
    else
      std::this_thread::yield();
  }
}

void ThreadPool::parallel_for(int64_t n, int64_t grain,
                              const std::function<void(int64_t, int64_t, int)>& body) {
  FATHOM_CHECK_GE(grain, 1);
  if (n <= 0) return;
  if (n <= grain || workers_.empty()) return body(0, n, 0);
  std::atomic<int64_t> next{0};
  const auto take = [&](int worker) {
    while (true) {
      const int64_t begin = next.fetch_add(grain, std::memory_order_relaxed);
      if (begin >= n) return;
      body(begin, std::min(begin + grain, n), worker);
    }
  };
  run(std::ref(take));  // by reference: a copy of the lambda would be allocated for every region
}

std::vector<int> available_cpus() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cpus;
  if (sched_getaffinity(0, sizeof(set), &set) == 0) {
    for (int i = 0; i < CPU_SETSIZE; ++i) {
      if (CPU_ISSET(static_cast<size_t>(i), &set)) cpus.push_back(i);
    }
  }
  if (cpus.empty()) cpus.push_back(0);
  // cgroup v2: "max 100000" or "<quota> <period>"; more threads than the quota only get throttled.
  std::ifstream file("/sys/fs/cgroup/cpu.max");
  std::string quota;
  double period = 0;
  if (file >> quota >> period && quota != "max" && period > 0) {
    const auto limit = static_cast<size_t>(std::max(1.0, std::stod(quota) / period));
    if (cpus.size() > limit) cpus.resize(limit);
  }
  return cpus;
}

}  // namespace fathom
