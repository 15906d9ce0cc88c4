// What an op needs to run: where (Target, fixed when the model is built) and on what (Launch, for each call).
#pragma once

#include <cstddef>
#include <string>
#include <vector>

#include "base/thread_pool.h"
#include "device/cpu/isa.h"

namespace fathom::device {

enum class DeviceKind { kCpu };

// Fixed when the model is built; ops choose their implementations by it.
struct Target {
  DeviceKind device = DeviceKind::kCpu;
  Isa isa = detect_isa();
};

// The threads and the scratch memory that a rank's ops share. One op runs at a time.
class Launch {
 public:
  explicit Launch(ThreadPool& pool);
  ~Launch();
  Launch(const Launch&) = delete;
  Launch& operator=(const Launch&) = delete;

  ThreadPool& pool() const { return pool_; }

  // 64-byte aligned memory of one worker, or of the whole op (`shared`). Grows when asked for more than ever
  // before, so a warm step allocates nothing. Contents are undefined; valid until the next call for the same
  // worker. `worker` memory may be asked for inside a parallel region by that worker only. An op that calls
  // another op keeps what must outlive that call in outer_scratch, which no inner op touches.
  std::byte* scratch(int worker, size_t bytes);
  std::byte* shared_scratch(size_t bytes);
  std::byte* outer_scratch(size_t bytes);

 private:
  struct Scratch {
    std::byte* data = nullptr;
    size_t size = 0;
  };
  static std::byte* grow(Scratch& scratch, size_t bytes);

  ThreadPool& pool_;
  std::vector<Scratch> workers_;
  Scratch shared_;
  Scratch outer_;
};

}  // namespace fathom::device
