// For tests and benches of GPU code: typed device arrays, and the stream they run on.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

#include "device/cuda/memory.h"
#include "device/cuda/stream.h"

namespace fathom::device::cuda::testing {

// The first GPU's stream, made once; null where there is no GPU (tests then skip).
inline Stream* test_stream() {
  static const std::unique_ptr<Stream> stream = []() -> std::unique_ptr<Stream> {
    if (gpu_count() == 0) return nullptr;
    return std::move(Stream::create(open_gpu(0).value())).value();
  }();
  return stream.get();
}

// A device array. Poisoned with 0xff bytes (a NaN in every float format) unless it is made from values.
template <class T>
class DeviceArray {
 public:
  explicit DeviceArray(int64_t count) : count_(count) {
    // Two pages of poison behind it: compute-sanitizer sees writes past the end, this sees small ones without
    // it.
    buffer_ = std::move(DeviceBuffer::allocate(static_cast<size_t>(count) * sizeof(T) + 256)).value();
    FATHOM_CHECK(cudaMemset(buffer_.data(), 0xff, buffer_.size()) == cudaSuccess, "cudaMemset");
    wait();
  }
  explicit DeviceArray(const std::vector<T>& values) : DeviceArray(static_cast<int64_t>(values.size())) {
    set(values);
  }

  void set(const std::vector<T>& values) {
    FATHOM_CHECK(static_cast<int64_t>(values.size()) == count_, "{} values for {}", values.size(), count_);
    if (count_ == 0) return;
    FATHOM_CHECK(
        cudaMemcpy(data(), values.data(), values.size() * sizeof(T), cudaMemcpyHostToDevice) == cudaSuccess,
        "upload");
    wait();
  }
  // Waits for the device.
  std::vector<T> get() const {
    std::vector<T> values(static_cast<size_t>(count_));
    wait();
    if (count_ > 0) {
      FATHOM_CHECK(
          cudaMemcpy(values.data(), data(), values.size() * sizeof(T), cudaMemcpyDeviceToHost) == cudaSuccess,
          "download");
    }
    return values;
  }
  T* data() const { return static_cast<T*>(buffer_.data()); }
  int64_t size() const { return count_; }

 private:
  // A fill, or a copy from pageable memory, may still run when its call returns, and the test's stream does
  // not wait for the default one.
  static void wait() { FATHOM_CHECK(cudaDeviceSynchronize() == cudaSuccess, "cudaDeviceSynchronize"); }

  int64_t count_;
  DeviceBuffer buffer_;
};

// Median microseconds of `run` over `repeats`, by events, after `warmup` calls.
template <class Run>
double time_us(Stream& stream, const Run& run, int repeats = 20, int warmup = 3) {
  Event start = std::move(Event::create(true)).value();
  Event stop = std::move(Event::create(true)).value();
  for (int i = 0; i < warmup; ++i) run();
  std::vector<double> seconds;
  for (int i = 0; i < repeats; ++i) {
    stream.record(start);
    run();
    stream.record(stop);
    FATHOM_CHECK(stream.synchronize().ok(), "a fault while timing: {}", stream.status().error().message);
    seconds.push_back(stop.seconds_since(start).value());
  }
  std::sort(seconds.begin(), seconds.end());
  return seconds[seconds.size() / 2] * 1e6;
}

// Median microseconds of what `run` queues, replayed `repeats` times as a graph, as a step is: launches cost
// the processor nothing, and kernels start as close behind each other as they can.
template <class Run>
double graph_time_us(Stream& stream, const Run& run, int repeats = 9) {
  run();
  FATHOM_CHECK(stream.synchronize().ok(), "a fault before timing: {}", stream.status().error().message);
  cudaGraph_t graph = nullptr;
  cudaGraphExec_t replay = nullptr;
  FATHOM_CHECK(cudaStreamBeginCapture(stream.handle(), cudaStreamCaptureModeThreadLocal) == cudaSuccess,
               "capture");
  run();
  FATHOM_CHECK(cudaStreamEndCapture(stream.handle(), &graph) == cudaSuccess &&
                   cudaGraphInstantiate(&replay, graph, 0) == cudaSuccess,
               "graph");
  const double us = time_us(
      stream, [&] { stream.note(cudaGraphLaunch(replay, stream.handle()), "graph launch"); }, repeats, 1);
  cudaGraphExecDestroy(replay);
  cudaGraphDestroy(graph);
  return us;
}

}  // namespace fathom::device::cuda::testing
