#include "base/thread_pool.h"

#include <pthread.h>
#include <sched.h>

#include <algorithm>
#include <fstream>
#include <string>

#include "base/check.h"
#include "base/thread_start.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace fathom {
namespace {

// About 20 to 50 us: longer than the gap between two kernels of a step, shorter than a scheduler's time
// slice.
constexpr int kSpins = 4000;
// Then others who want this CPU may have it for a moment; who waits longer sleeps.
constexpr int kYields = 100;

// The parts of region_.
constexpr uint32_t kInside = (1U << 12) - 1;
constexpr uint32_t kOpen = 1U << 12;
constexpr uint32_t kCallerSleeps = 1U << 13;
constexpr uint32_t kNumber = ~((1U << 14) - 1);  // may wrap: who missed so many regions may miss one more
constexpr uint32_t kNextNumber = 1U << 14;

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
  FATHOM_CHECK_LE(threads, static_cast<int>(kInside));
  workers_.reserve(static_cast<size_t>(threads - 1));
  for (int i = 1; i < threads; ++i) {
    workers_.emplace_back([this, i] {
      begin_thread(fmt::format("worker {}", i).c_str());
      work(i);
    });
  }
}

ThreadPool::~ThreadPool() {
  {
    std::lock_guard lock(mutex_);
    stop_.store(true);
    region_.fetch_add(kNextNumber);
  }
  wake_.notify_all();
  for (auto& worker : workers_) worker.join();
}

void ThreadPool::work(int worker) {
  if (!cpus_.empty()) bind_to(cpus_[static_cast<size_t>(worker) % cpus_.size()]);
  uint32_t seen = 0;  // a region's number
  const auto number = [&] { return region_.load(std::memory_order_acquire) & kNumber; };
  while (true) {
    for (int i = 0; i < kSpins && number() == seen; ++i) pause_cpu();
    if (number() == seen) {
      std::unique_lock lock(mutex_);
      sleepers_.fetch_add(1);
      wake_.wait(lock, [&] { return (region_.load() & kNumber) != seen; });
      sleepers_.fetch_sub(1);
    }
    if (stop_.load()) return;
    uint32_t region = region_.load(std::memory_order_acquire);
    while ((region & kOpen) != 0 &&
           !region_.compare_exchange_weak(region, region + 1, std::memory_order_acq_rel)) {
    }
    seen = region & kNumber;
    if ((region & kOpen) == 0) continue;  // too late for this one
    (*body_)(worker);
    const uint32_t left = region_.fetch_sub(1, std::memory_order_acq_rel) - 1;
    if ((left & (kInside | kCallerSleeps)) == kCallerSleeps) {
      const std::lock_guard lock(mutex_);
      empty_.notify_one();
    }
  }
}

// Nobody is inside the region before.
void ThreadPool::open(const std::function<void(int)>& body) {
  body_ = &body;
  // seq_cst on both sides: either a worker sees the new region, or this thread sees it among the sleepers.
  region_.store(((region_.load(std::memory_order_relaxed) & kNumber) + kNextNumber) | kOpen);
  if (sleepers_.load() > 0) {
    {
      std::lock_guard lock(mutex_);
    }
    wake_.notify_all();
  }
}

// Waits for those inside; nobody enters any more.
void ThreadPool::close() {
  const auto busy = [&] { return (region_.load(std::memory_order_acquire) & kInside) != 0; };
  region_.fetch_and(~kOpen, std::memory_order_acq_rel);
  for (int i = 0; i < kSpins && busy(); ++i) pause_cpu();
  for (int i = 0; i < kYields && busy(); ++i) std::this_thread::yield();
  if (!busy()) return;
  std::unique_lock lock(mutex_);
  region_.fetch_or(kCallerSleeps);
  empty_.wait(lock, [&] { return !busy(); });
}

void ThreadPool::run(const std::function<void(int)>& body) {
  if (workers_.empty()) return body(0);
  std::atomic<int> missing{static_cast<int>(workers_.size())};
  const std::function<void(int)> counted = [&](int worker) {
    body(worker);
    if (worker > 0) missing.fetch_sub(1, std::memory_order_release);
  };
  open(counted);
  counted(0);
  for (int spins = 0; missing.load(std::memory_order_acquire) != 0; ++spins) {
    if (spins < kSpins)
      pause_cpu();
    else
      std::this_thread::yield();
  }
  close();
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
  const std::function<void(int)> region(std::ref(take));  // by reference: a copy would be allocated
  open(region);
  take(0);
  close();
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
