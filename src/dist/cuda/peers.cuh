// How blocks of different GPUs wait for each other. No wait is for ever: one that lasts longer than the
// group's timeout, or finds that the group has ended, gives up, and the host reads why (FaultBoard).
#pragma once

#include "dist/cuda/gpu_group.h"
#include "dist/cuda/peers.h"

namespace fathom::dist::cuda {

// A NaN that no sum writes (canonical() sees to that).
inline constexpr uint32_t kNothing = 0xffffffffU;

__device__ inline void store_release(uint32_t* to, uint32_t value) {
  asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(to), "r"(value) : "memory");
}
__device__ inline uint32_t load_acquire(const uint32_t* from) {
  uint32_t value;
  asm volatile("ld.acquire.sys.global.u32 %0, [%1];" : "=r"(value) : "l"(from) : "memory");
  return value;
}
__device__ inline void store_relaxed(uint4* to, uint4 v) {
  asm volatile("st.relaxed.sys.global.v4.u32 [%0], {%1, %2, %3, %4};" ::"l"(to), "r"(v.x), "r"(v.y), "r"(v.z),
               "r"(v.w)
               : "memory");
}
__device__ inline uint4 load_relaxed(const uint4* from) {
  uint4 v;
  asm volatile("ld.relaxed.sys.global.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
               : "l"(from)
               : "memory");
  return v;
}

// One thread's wait for one rank.
class Patience {
 public:
  __device__ Patience(const PeerView& peers, int awaited, Op op)
      : peers_(peers), awaited_(awaited), op_(op) {}

  // Call between looks; false: give up.
  __device__ bool more() {
    if (++looks_ % kLooks != 0) return true;
    uint64_t now;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(now));
    if (begun_ == 0) begun_ = looked_ = now;
    if (now - looked_ < kBoardNs) return true;
    looked_ = now;
    if (load_acquire(&peers_.fault->ended) != 0) return false;
    if (now - begun_ < peers_.timeout_ns) return true;
    store_release(&peers_.fault->waited[peers_.ids[peers_.rank]],
                  1U + static_cast<uint32_t>(peers_.ids[awaited_]) + 16U * static_cast<uint32_t>(op_));
    store_release(&peers_.fault->ended, 1);
    return false;
  }

 private:
  static constexpr uint32_t kLooks = 256;
  static constexpr uint64_t kBoardNs = 8'000'000;  // the board lies beyond PCIe, and thousands may wait

  const PeerView& peers_;
  int awaited_;
  Op op_;
  uint32_t looks_ = 0;
  uint64_t begun_ = 0, looked_ = 0;
};

// The blocks with this one's index meet, on all ranks: what each has written before is there for all. All
// threads call it. `meeting`: Progress::meetings + 1 of this kernel.
__device__ inline void meet(const PeerView& peers, int phase, uint32_t meeting, Op op) {
  __syncthreads();
  const auto other = static_cast<int>(threadIdx.x);
  if (other < peers.size && other != peers.rank) {
    const int64_t row = (int64_t{phase} * kMostBlocks + blockIdx.x) * kMostRanks;
    store_release(peers.flags[other] + row + peers.rank, meeting);
    const uint32_t* theirs = peers.flags[peers.rank] + row + other;
    Patience patience(peers, other, op);
    while (static_cast<int32_t>(load_acquire(theirs) - meeting) < 0 && patience.more()) {
    }
  }
  __syncthreads();
}

// The last block of the kernel to call it does `finish`. All threads call it.
template <class F>
__device__ void when_last(const PeerView& peers, const F& finish) {
  __syncthreads();
  if (threadIdx.x != 0) return;
  if (atomicAdd(&peers.progress->arrived, 1U) + 1 != gridDim.x) return;
  peers.progress->arrived = 0;
  finish(*peers.progress);
}

}  // namespace fathom::dist::cuda
