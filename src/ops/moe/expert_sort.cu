#include "base/check.h"
#include "device/cuda/launch_kernel.h"
#include "ops/moe/cuda.h"

namespace fathom::ops::cuda {
namespace {

constexpr int kWarp = 32;
constexpr int kWarps = 16;
constexpr int kThreads = kWarps * kWarp;
constexpr int kMaxExperts = 1024;
constexpr int64_t kChunk = 2048;  // copies of a CTA, a run of them for each warp
constexpr int64_t kWarpChunk = kChunk / kWarps;
constexpr unsigned kAll = 0xffffffffU;

struct Copies {
  const int32_t* ids;
  const int32_t* positions;
  const int32_t* slots;
  int64_t count;
  int32_t top_k;

  // The expert of a copy, or -1: it is left out.
  __device__ int32_t expert(int64_t i) const {
    if (i >= count) return -1;
    if (positions != nullptr && positions[i / top_k] < 0) return -1;
    return slots != nullptr ? slots[ids[i]] : ids[i];
  }
};

// counts[warp][e] of this CTA's copies, in shared memory; ends with a barrier.
__device__ void count_chunk(const Copies& copies, int32_t experts, uint16_t* counts) {
  for (int i = static_cast<int>(threadIdx.x); i < kWarps * experts; i += kThreads) counts[i] = 0;
  __syncthreads();
  const unsigned lane = threadIdx.x % kWarp;
  uint16_t* own = counts + threadIdx.x / kWarp * static_cast<unsigned>(experts);
  const int64_t begin = blockIdx.x * kChunk + threadIdx.x / kWarp * kWarpChunk;
  for (int64_t i = begin; i < begin + kWarpChunk; i += kWarp) {
    const int32_t e = copies.expert(i + lane);
    const unsigned same = __match_any_sync(kAll, e);
    if (e >= 0 && static_cast<int>(lane) == __ffs(static_cast<int>(same)) - 1) {
      own[e] = static_cast<uint16_t>(own[e] + __popc(same));
    }
    __syncwarp();
  }
  __syncthreads();
}

// totals[cta][e], for sorts of several CTAs.
__global__ void __launch_bounds__(kThreads) count_kernel(Copies copies, int32_t experts, int32_t* totals) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  extern __shared__ uint16_t counts[];
  count_chunk(copies, experts, counts);
  for (int e = static_cast<int>(threadIdx.x); e < experts; e += kThreads) {
    int32_t sum = 0;
    for (int w = 0; w < kWarps; ++w) sum += counts[w * experts + e];
    totals[static_cast<int64_t>(blockIdx.x) * experts + e] = sum;
  }
}

// Exclusive prefix sums of values[n] in place, n <= kMaxExperts; returns the total. All threads call it.
__device__ int32_t scan(int32_t* values, int32_t n, int32_t* shared) {
  constexpr int kEach = kMaxExperts / kThreads;
  int32_t own[kEach];
  int32_t sum = 0;
  for (int i = 0; i < kEach; ++i) {
    const int at = static_cast<int>(threadIdx.x) * kEach + i;
    own[i] = sum;
    sum += at < n ? values[at] : 0;
  }
  int32_t inclusive = sum;
  const unsigned lane = threadIdx.x % kWarp;
#pragma unroll
  for (unsigned step = 1; step < kWarp; step *= 2) {
    const int32_t other = __shfl_up_sync(kAll, inclusive, step);
    if (lane >= step) inclusive += other;
  }
  if (lane == kWarp - 1) shared[threadIdx.x / kWarp] = inclusive;
  __syncthreads();
  int32_t before = 0, total = 0;
  for (unsigned w = 0; w < kWarps; ++w) {
    if (w < threadIdx.x / kWarp) before += shared[w];
    total += shared[w];
  }
  for (int i = 0; i < kEach; ++i) {
    const int at = static_cast<int>(threadIdx.x) * kEach + i;
    if (at < n) values[at] = before + inclusive - sum + own[i];
  }
  __syncthreads();
  return total;
}

// Places this CTA's copies. totals: of all CTAs, or null where this is the only one.
__global__ void __launch_bounds__(kThreads)
    place_kernel(Copies copies, int32_t experts, const int32_t* totals, ExpertSort sort) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  extern __shared__ uint16_t counts[];                                 // [kWarps, experts], then what follows
  auto* base = reinterpret_cast<int32_t*>(counts + kWarps * experts);  // [experts]
  __shared__ int32_t warp_totals[kWarps];
  count_chunk(copies, experts, counts);

  constexpr int kEach = kMaxExperts / kThreads;
  int32_t earlier[kEach];  // copies of the expert in the CTAs before
  for (int i = 0; i < kEach; ++i) {
    const int e = i * kThreads + static_cast<int>(threadIdx.x);
    earlier[i] = 0;
    if (e >= experts) continue;
    int32_t sum = 0;
    for (int w = 0; w < kWarps; ++w) {  // counts become those of the warps before
      const int32_t count = counts[w * experts + e];
      counts[w * experts + e] = static_cast<uint16_t>(sum);
      sum += count;
    }
    if (totals != nullptr) {
      sum = 0;
      for (unsigned c = 0; c < gridDim.x; ++c) {
        const int32_t count = totals[static_cast<int64_t>(c) * experts + e];
        if (c < blockIdx.x) earlier[i] += count;
        sum += count;
      }
    }
    base[e] = sum;
  }
  __syncthreads();
  const int32_t total = scan(base, experts, warp_totals);
  for (int i = 0; i < kEach; ++i) {
    const int e = i * kThreads + static_cast<int>(threadIdx.x);
    if (e >= experts) continue;
    if (blockIdx.x == 0) sort.offsets[e] = base[e];
    base[e] += earlier[i];
  }
  if (blockIdx.x == 0 && threadIdx.x == 0) sort.offsets[experts] = total;
  __syncthreads();

  const unsigned lane = threadIdx.x % kWarp;
  uint16_t* own = counts + threadIdx.x / kWarp * static_cast<unsigned>(experts);
  const int64_t begin = blockIdx.x * kChunk + threadIdx.x / kWarp * kWarpChunk;
  for (int64_t i = begin + lane; i < begin + kWarpChunk + lane; i += kWarp) {
    const int32_t e = copies.expert(i);
    const unsigned same = __match_any_sync(kAll, e);
    const int32_t first = e >= 0 ? base[e] + own[e] : 0;
    __syncwarp();
    if (e >= 0) {
      const int32_t place = first + __popc(same & ((1U << lane) - 1U));
      sort.places[i] = place;
      sort.tokens[place] = static_cast<int32_t>(i / copies.top_k);
      if (static_cast<int>(lane) == __ffs(static_cast<int>(same)) - 1) {
        own[e] = static_cast<uint16_t>(own[e] + __popc(same));
      }
    } else if (i < copies.count) {
      sort.places[i] = -1;
    }
    __syncwarp();
  }
}

int64_t chunks(int64_t copies) {
  return (copies + kChunk - 1) / kChunk;
}

}  // namespace

int64_t expert_sort_workspace(int64_t tokens, int32_t experts, int32_t top_k) {
  const int64_t count = chunks(tokens * top_k);
  return count > 1 ? count * experts : 0;
}

void expert_sort(device::cuda::Stream& stream, const ExpertSortArgs& args) {
  FATHOM_CHECK(0 < args.experts && args.experts <= kMaxExperts && args.top_k > 0 && args.tokens > 0,
               "{} tokens, top {} of {} experts (at most {})", args.tokens, args.top_k, args.experts,
               kMaxExperts);
  const Copies copies{args.ids, args.positions, args.slots, args.tokens * args.top_k, args.top_k};
  const auto blocks = static_cast<unsigned>(chunks(copies.count));
  FATHOM_CHECK(blocks == 1 || args.workspace != nullptr, "no workspace for {} tokens", args.tokens);
  const auto experts = static_cast<size_t>(args.experts);
  const size_t count_bytes = kWarps * experts * sizeof(uint16_t);
  const size_t place_bytes = count_bytes + experts * sizeof(int32_t);
  if (blocks > 1) {
    device::cuda::launch_early(stream, count_kernel, blocks, kThreads, count_bytes, copies, args.experts,
                               args.workspace);
    stream.launched("expert_sort");
  }
  device::cuda::launch_early(stream, place_kernel, blocks, kThreads, place_bytes, copies, args.experts,
                             blocks > 1 ? args.workspace : nullptr, args.sort);
  stream.launched("expert_sort");
}

}  // namespace fathom::ops::cuda
