#include "device/cuda/probe.h"

#include "device/cuda/probe_kernels.h"

namespace fathom::device::cuda {
namespace {

constexpr size_t kBytes = size_t{1} << 30;  // many times the L2 cache

template <class Queue>
double seconds(Stream& stream, Event& start, Event& stop, const Queue& queue) {
  queue();  // warms clocks and caches up
  stream.record(start);
  queue();
  stream.record(stop);
  const auto done = stream.synchronize();
  FATHOM_CHECK(done.ok(), "a probe failed: {}", done.error().message);
  return stop.seconds_since(start).value();
}

}  // namespace

Result<Probe> Probe::create() {
  Probe probe;
  FATHOM_ASSIGN(probe.data_, DeviceBuffer::allocate(kBytes + 256));
  FATHOM_ASSIGN(probe.start_, Event::create(true));
  FATHOM_ASSIGN(probe.stop_, Event::create(true));
  return probe;
}

double Probe::read_bandwidth(Stream& stream) {
  auto* sink = reinterpret_cast<float*>(static_cast<std::byte*>(data_.data()) + kBytes);
  return static_cast<double>(kBytes) * 1e-9 /
         seconds(stream, start_, stop_, [&] { queue_read(stream, data_.data(), kBytes, sink); });
}

double Probe::bf16_peak(Stream& stream) {
  auto* sink = reinterpret_cast<float*>(static_cast<std::byte*>(data_.data()) + kBytes);
  queue_fill(stream, data_.data(), 1 << 20);
  double flops = 0.0;
  const double time = seconds(stream, start_, stop_, [&] {
    flops =
        stream.gpu().hopper() ? queue_bf16_wgmma(stream, data_.data(), sink) : queue_bf16_mma(stream, sink);
  });
  return flops * 1e-9 / time;
}

double Probe::f32_peak(Stream& stream) {
  auto* sink = reinterpret_cast<float*>(static_cast<std::byte*>(data_.data()) + kBytes);
  double flops = 0.0;
  const double time = seconds(stream, start_, stop_, [&] { flops = queue_f32(stream, sink); });
  return flops * 1e-9 / time;
}

}  // namespace fathom::device::cuda
