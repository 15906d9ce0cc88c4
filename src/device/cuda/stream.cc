#include "device/cuda/stream.h"

#include <thread>
#include <utility>

#include "device/cuda/range.h"

namespace fathom::device::cuda {

Result<std::unique_ptr<Stream>> Stream::create(const Gpu& gpu) {
  std::unique_ptr<Stream> stream(new Stream(gpu));
  FATHOM_TRY(check(cudaStreamCreateWithFlags(&stream->handle_, cudaStreamNonBlocking), "cudaStreamCreate"));
  constexpr size_t kBytes = (kMailWords + 1) * sizeof(uint32_t);
  FATHOM_TRY(check(cudaMalloc(reinterpret_cast<void**>(&stream->words_), kBytes), "cudaMalloc"));
  FATHOM_TRY(check(cudaMemsetAsync(stream->words_, 0, kBytes, stream->handle_), "cudaMemset"));
  return stream;
}

Stream::~Stream() {
  cudaFree(words_);
  if (handle_ != nullptr) cudaStreamDestroy(handle_);
}

void Stream::launched(const char* op) {
  note(cudaGetLastError(), op);
  mark(op);
  if (trace_ != nullptr) trace_->mark(op, handle_);
}

void Stream::copy(void* to, const void* from, size_t bytes) {
  if (bytes > 0) note(cudaMemcpyAsync(to, from, bytes, cudaMemcpyDefault, handle_), "copy");
}

void Stream::fill(void* data, int byte, size_t bytes) {
  if (bytes > 0) note(cudaMemsetAsync(data, byte, bytes, handle_), "fill");
}

void Stream::record(Event& event) {
  note(cudaEventRecord(event.handle(), handle_), "record");
}

void Stream::wait(const Event& event) {
  note(cudaStreamWaitEvent(handle_, event.handle(), 0), "wait");
}

Result<void> Stream::synchronize() {
  note(cudaStreamSynchronize(handle_), "synchronize");
  return status();
}

Result<void> Stream::status() const {
  return check(fault_, fault_op_);
}

Result<Event> Event::create(bool timing) {
  Event event;
  // Blocking: a thread that waits for a step sleeps instead of burning a core.
  const unsigned flags =
      cudaEventBlockingSync | (timing ? 0U : static_cast<unsigned>(cudaEventDisableTiming));
  FATHOM_TRY(check(cudaEventCreateWithFlags(&event.handle_, flags), "cudaEventCreate"));
  return event;
}

Event::~Event() {
  if (handle_ != nullptr) cudaEventDestroy(handle_);
}

Event& Event::operator=(Event&& other) noexcept {
  std::swap(handle_, other.handle_);
  return *this;
}

Result<void> Event::wait() const {
  return check(cudaEventSynchronize(handle_), "cudaEventSynchronize");
}

Result<bool> Event::is_done() const {
  const cudaError_t status = cudaEventQuery(handle_);
  if (status == cudaErrorNotReady) return false;
  FATHOM_TRY(check(status, "a step"));
  return true;
}

Result<void> Event::wait_alert(std::chrono::milliseconds spin) const {
  const auto end = std::chrono::steady_clock::now() + spin;
  while (cudaEventQuery(handle_) == cudaErrorNotReady) {
    if (std::chrono::steady_clock::now() > end) break;
    std::this_thread::yield();
  }
  return wait();
}

Result<double> Event::seconds_since(const Event& start) const {
  float milliseconds = 0.0F;
  FATHOM_TRY(check(cudaEventElapsedTime(&milliseconds, start.handle_, handle_), "cudaEventElapsedTime"));
  return static_cast<double>(milliseconds) * 1e-3;
}

}  // namespace fathom::device::cuda
