// What this machine can do now: the ceilings that kernels and benchmarks are measured against. The memory of
// a shared host wanders, so measure directly before and after what is compared.
#pragma once

#include <cstddef>

#include "base/result.h"
#include "base/thread_pool.h"
#include "device/arena.h"
#include "device/cpu/isa.h"

namespace fathom::device {

// Reads a buffer larger than the caches with all threads of the pool, each its own part in order.
class BandwidthProbe {
 public:
  // Holds `bytes` of memory, on huge pages where there are any, as long as it lives. kUnavailable when there
  // is not that much.
  static Result<BandwidthProbe> create(ThreadPool& pool, size_t bytes = size_t{512} << 20);

  // GB/s (10^9 bytes): the best of `passes` over the first `share` of the buffer. With 512 MiB at 40 GB/s, a
  // pass takes 13 ms.
  double measure(ThreadPool& pool, int passes = 3, double share = 1.0) const;

 private:
  Buffer buffer_;
};

// One measurement with a probe of its own; making the probe costs more than measuring, so keep one for
// several.
Result<double> measure_read_bandwidth(ThreadPool& pool, int passes = 3);

// GFLOP/s of a loop on registers, on all threads, of nothing but the instruction that the kernels of this
// level multiply with: the float32 multiply-add of AVX2 or AVX-512, or with `bf16` vdpbf16ps or tdpbf16ps
// where the level has it. The best of `passes` of a few ms each. For Isa::kReference, plain scalar code.
double measure_compute_peak(ThreadPool& pool, Isa isa, bool bf16, int passes = 5);

}  // namespace fathom::device
