// An ordered queue of work on one GPU, and the first thing that went wrong in it. Ops do not return errors:
// each launch is noted here, and whoever owns the step looks at fault() when it ends. After a fault the rank
// is dead (architecture.md: only a device fault ends a rank).
#pragma once

#include <cuda_runtime_api.h>

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>

#include "base/result.h"
#include "device/cuda/gpu.h"
#include "device/cuda/trace.h"

namespace fathom::device::cuda {

class Event;

// Not thread safe: one thread queues work.
class Stream {
 public:
  static Result<std::unique_ptr<Stream>> create(const Gpu& gpu);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  cudaStream_t handle() const { return handle_; }
  const Gpu& gpu() const { return gpu_; }
  // A word of device memory for kernels of this stream whose CTAs share out their work: 0 between them, so
  // whoever takes the last piece sets it back.
  uint32_t* counter() const { return words_ + kMailWords; }
  // Others that CTAs of one kernel of this stream may tell each other something by: 0 between
  // kernels, so whoever reads one sets it back.
  static constexpr int kMailWords = 2048;
  uint32_t* mail() const { return words_; }

  // Notes the outcome of the call or launch that was just made; `what` (a literal) names the op.
  void note(cudaError_t status, const char* what) {
    if (status != cudaSuccess && fault_ == cudaSuccess) {
      fault_ = status;
      fault_op_ = what;
    }
  }
  void launched(const char* op);
  // The other's fault becomes this one's.
  void adopt_fault(const Stream& other) { note(other.fault_, other.fault_op_); }
  // From now on every launch is marked in the trace; null: no more. The trace must live until then.
  void set_trace(Trace* trace) {
    trace_ = trace;
    if (trace != nullptr) trace->begin(handle_);
  }
  bool traced() const { return trace_ != nullptr; }

  void copy(void* to, const void* from, size_t bytes);  // any direction; host memory must be pinned
  void fill(void* data, int byte, size_t bytes);
  void record(Event& event);
  void wait(const Event& event);

  // Blocks until everything queued is done.
  Result<void> synchronize();
  // The first fault so far, as an error that names the op.
  Result<void> status() const;

 private:
  explicit Stream(const Gpu& gpu) : gpu_(gpu) {}

  Gpu gpu_;
  cudaStream_t handle_ = nullptr;
  uint32_t* words_ = nullptr;
  cudaError_t fault_ = cudaSuccess;
  const char* fault_op_ = "";
  Trace* trace_ = nullptr;
};

// A point in a stream. With timing, seconds between two of them can be asked for.
class Event {
 public:
  static Result<Event> create(bool timing = false);
  Event() = default;
  ~Event();
  Event(Event&& other) noexcept : handle_(other.handle_) { other.handle_ = nullptr; }
  Event& operator=(Event&& other) noexcept;
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;

  cudaEvent_t handle() const { return handle_; }
  // Blocks without spinning.
  Result<void> wait() const;
  // Spins for so long before it blocks: notices the end tens of microseconds earlier, for a processor's time.
  Result<void> wait_alert(std::chrono::milliseconds spin) const;
  // Whether it has come; an error is the GPU's.
  Result<bool> is_done() const;
  // From `start` to this; both were recorded with timing and are done.
  Result<double> seconds_since(const Event& start) const;

 private:
  cudaEvent_t handle_ = nullptr;
};

}  // namespace fathom::device::cuda
