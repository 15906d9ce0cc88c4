#include "device/cuda/trace.h"

#include <utility>

#include "device/cuda/gpu.h"

namespace fathom::device::cuda {

Result<Trace> Trace::create(int64_t ops) {
  Trace trace;
  for (int64_t i = 0; i <= ops; ++i) {
    cudaEvent_t event = nullptr;
    FATHOM_TRY(check(cudaEventCreate(&event), "cudaEventCreate"));
    trace.events_.push_back(event);
  }
  trace.ops_.reserve(static_cast<size_t>(ops));
  return trace;
}

Trace::~Trace() {
  for (const cudaEvent_t event : events_) cudaEventDestroy(event);
}
Trace::Trace(Trace&& other) noexcept {
  *this = std::move(other);
}
Trace& Trace::operator=(Trace&& other) noexcept {
  std::swap(events_, other.events_);
  std::swap(ops_, other.ops_);
  std::swap(dropped_, other.dropped_);
  return *this;
}

void Trace::begin(cudaStream_t stream) {
  ops_.clear();
  dropped_ = 0;
  cudaEventRecord(events_.front(), stream);
}

void Trace::mark(const char* op, cudaStream_t stream) {
  if (ops_.size() + 1 >= events_.size()) {
    ++dropped_;
    return;
  }
  ops_.push_back(op);
  cudaEventRecord(events_[ops_.size()], stream);
}

Result<std::vector<OpSpan>> Trace::spans() const {
  std::vector<OpSpan> spans;
  double start = 0.0;
  for (size_t i = 0; i < ops_.size(); ++i) {
    float milliseconds = 0.0F;
    FATHOM_TRY(
        check(cudaEventElapsedTime(&milliseconds, events_[i], events_[i + 1]), "cudaEventElapsedTime"));
    spans.push_back({ops_[i], start, static_cast<double>(milliseconds) * 1e3});
    start += spans.back().us;
  }
  return spans;
}

}  // namespace fathom::device::cuda
