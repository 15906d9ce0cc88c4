// A row of a norm by a cluster of CTAs, where rows are so few that a CTA each would take in what they are
// made of at the rate of a few multiprocessors. A thread holds one part; the sums are those of BlockRow, bit
// for bit. Included by kernels for sm_90a alone, and by whoever launches them.
#pragma once

#include <algorithm>

#include "device/cuda/gpu.h"
#include "ops/rms_norm/row.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {

inline constexpr int64_t kMostClusterRows = 16;
inline constexpr unsigned kMostRehearsedRows = 8;
inline constexpr unsigned kMostRowWarps = 16;  // that hold a row's first part: norm_threads(2) / 32

// The cluster of a row of `width`: the more CTAs the better, each with the same number of warps. 1: none.
inline unsigned row_cluster(int64_t width) {
  const unsigned warps = norm_block(width) / 32;
  if (warps > kMostRowWarps) return 1;
  unsigned ctas = std::min(warps, 8U);
  while (warps % ctas != 0) --ctas;
  return ctas;
}
inline unsigned row_cluster_threads(int64_t width) {
  return norm_block(width) / row_cluster(width) * static_cast<unsigned>(norm_parts(width));
}

// Whether clusters take `rows` of them.
inline bool takes_clusters(const device::cuda::Gpu& gpu, int64_t rows, int64_t width) {
  return gpu.hopper() && rows <= kMostClusterRows && row_cluster(width) > 1;
}

#ifdef __CUDACC__
template <int kParts>
class ClusterRow {
 public:
  static constexpr int kHeld = 1;
  struct Shared {
    // Of each of the two sums.
    uint64_t there[2];  // barriers
    float sums[2][kMostRowWarps];
    float chains[2][kMostRowWarps * 32];
  };

  // All threads, before anything else.
  __device__ explicit ClusterRow(Shared& shared) : shared_(shared) {
    asm("mov.u32 %0, %%cluster_nctarank;" : "=r"(ctas_));
    threads_ = blockDim.x / kParts;
    if (threadIdx.x == 0) {
      for (uint64_t& there : shared_.there) barrier_init(&there, 1);
      barrier_init_fence();
      for (uint64_t& there : shared_.there) barrier_expect(&there, warps() * 4);
    }
    cluster_sync();  // before anything is written into another CTA's memory
  }

  __device__ int64_t index() const { return blockIdx.x / ctas_; }
  // So few rows wait for the kernel ahead: a norm for nothing meanwhile (squares() twice), for what runs but
  // once waits for its instructions.
  __device__ bool rehearses() const { return gridDim.x <= kMostRehearsedRows * ctas_; }
  __device__ int64_t first(int /*p*/) const {
    return (int64_t{part()} * threads_ * ctas_ + rank_in_cluster() * threads_ + threadIdx.x % threads_) *
           kPart;
  }
  // At most twice.
  __device__ float squares(const Floats (&values)[1]) {
    uint64_t& there = shared_.there[turn_];
    float(&sums)[kMostRowWarps] = shared_.sums[turn_];
    float& chain = shared_.chains[turn_][threadIdx.x % threads_];
    ++turn_;
    float sum = 0.0F;
    // A thread of BlockRow adds one part after another: here each takes the last one's sum.
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      if (part() == p) {
        sum = add_squares(values[0], p > 0 ? chain : 0.0F);
        chain = sum;
      }
      if (p + 1 < kParts) __syncthreads();
    }
    if (part() == kParts - 1) {
      sum = warp_sum(sum);
      const unsigned lane = threadIdx.x % 32;
      const unsigned warp = (rank_in_cluster() * threads_ + threadIdx.x % threads_) / 32;
      if (lane < ctas_) {
        asm volatile("st.async.shared::cluster.mbarrier::complete_tx::bytes.b32 [%0], %1, [%2];" ::"r"(
                         cluster_address(&sums[warp], lane)),
                     "r"(__float_as_uint(sum)), "r"(cluster_address(&there, lane))
                     : "memory");
      }
    }
    barrier_wait(&there, 0);
    float all = 0.0F;
    for (unsigned w = 0; w < warps(); ++w) all += sums[w];
    return all;
  }

 private:
  __device__ unsigned warps() const { return threads_ * ctas_ / 32; }
  __device__ int part() const { return static_cast<int>(threadIdx.x / threads_); }

  Shared& shared_;
  unsigned ctas_, threads_;
  int turn_ = 0;
};
#endif

}  // namespace fathom::ops::cuda
