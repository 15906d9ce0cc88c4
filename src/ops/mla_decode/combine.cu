#include <algorithm>

#include "base/check.h"
#include "base/math.h"
#include "ops/mla_decode/combine.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;

struct Partial {
  float top, sum;
  float4 values;
};

__device__ Partial fold(const Partial& a, const Partial& b) {
  const Fold fold(a.top, b.top);
  return {fold.top,
          fold(a.sum, b.sum),
          {fold(a.values.x, b.values.x), fold(a.values.y, b.values.y), fold(a.values.z, b.values.z),
           fold(a.values.w, b.values.w)}};
}

constexpr int kMost = 16;  // items that a warp takes

// Items [first, first + count) of one query, which are all of a node's below them; count <= kMost.
__device__ Partial fold_items(const SplitCombineArgs& args, int level, int first, int count, int column) {
  const int values = args.heads * args.latent;
  const int head = column / args.latent;
  const int bits = args.workspace.units.fan_bits;
  Partial loaded[kMost];
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    if (i >= count) continue;
    const int64_t slot = first + i;
    const float2 stats = args.workspace.stats[slot * args.heads + head];
    loaded[i] = {stats.x, stats.y,
                 *reinterpret_cast<const float4*>(args.workspace.partial + slot * values + column)};
  }
  Partial result = {}, unfinished[kSplitTop + 1];
#pragma unroll
  for (int i = 0; i < kMost; ++i) {
    if (i >= count) continue;
    result = loaded[i];
    bool complete = true;
#pragma unroll
    for (int up = 1; up <= kSplitTop; ++up) {
      if (up > level && complete) {
        const int child = (i >> (bits * (up - 1 - level))) & ((1 << bits) - 1);
        unfinished[up] = child == 0 ? result : fold(unfinished[up], result);
        complete = child == (1 << bits) - 1 || i == count - 1;
        result = unfinished[up];
      }
    }
  }
  return result;
}

__device__ void write(const SplitCombineArgs& args, int token, int column, const Partial& result) {
  const float inverse = __frcp_rn(result.sum);
  const int64_t to = token * args.out_stride + column;
  args.out.store(to, __fmul_rn(result.values.x, inverse));
  args.out.store(to + 1, __fmul_rn(result.values.y, inverse));
  args.out.store(to + 2, __fmul_rn(result.values.z, inverse));
  args.out.store(to + 3, __fmul_rn(result.values.w, inverse));
}

// A chunk is 128 columns of a query, four for each lane. Where queries have up to 64 items (level 0), a CTA
// does a chunk: its warps fold four nodes, the first warp folds those. Elsewhere a warp does a chunk.
__global__ void __launch_bounds__(kThreads) split_combine_kernel(SplitCombineArgs args) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();  // it may have been launched before the items are done
  __shared__ Partial nodes[kWarps][32];
  const int level = *args.workspace.level;
  if (level == kSplitTop) return;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int values = args.heads * args.latent;
  const int chunks = (values + 127) / 128;
  const bool together = level == 0 && args.workspace.units.most > kMost;
  const int begin = static_cast<int>(together ? blockIdx.x : blockIdx.x * kWarps + warp);
  const int step = static_cast<int>(together ? gridDim.x : gridDim.x * kWarps);
  for (int index = begin; index < args.tokens * chunks; index += step) {
    const int token = index / chunks;
    const int column = (index % chunks * 32 + lane) * 4;
    const bool inside = column < values;
    const int first = args.workspace.first_items[token];
    const int items = args.workspace.first_items[token + 1] - first;
    if (items <= 1) continue;
    if (!together) {
      if (inside) write(args, token, column, fold_items(args, level, first, items, column));
      continue;
    }
    const int node_items = items > kMost ? kMost : items > 4 ? 4 : 1;
    const int count = min(node_items, items - warp * node_items);
    if (count > 0 && inside) {
      nodes[warp][lane] = fold_items(args, level, first + warp * node_items, count, column);
    }
    __syncthreads();
    if (warp == 0 && inside) {
      Partial result = nodes[0][lane];
      for (int i = 1; i * node_items < items; ++i) result = fold(result, nodes[i][lane]);
      write(args, token, column, result);
    }
    __syncthreads();
  }
}

// A level is taken when the next one has fewer items than are wanted, so it has at most as many as those have
// children; and there are never more than all queries' units.
int64_t split_slots(int64_t tokens, int64_t max_context, SplitUnits units, int64_t items_wanted) {
  const int64_t most = std::min<int64_t>(units.most, ceil_div<int64_t>(max_context, units.least));
  const int64_t children = std::min(units.most, 1 << units.fan_bits);
  return std::min(std::min<int64_t>(tokens, kSplitTokens) * most, children * items_wanted);
}

}  // namespace

void split_combine(device::cuda::Stream& stream, const SplitCombineArgs& args, bool early) {
  FATHOM_CHECK(args.latent % 4 == 0, "latent {}", args.latent);
  const int64_t chunks = args.tokens * ceil_div<int64_t>(int64_t{args.heads} * args.latent, 128);
  const int64_t grid = std::min<int64_t>(chunks, 3 * stream.gpu().multiprocessors);
  cudaLaunchAttribute attribute{};
  attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  attribute.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch{};
  launch.gridDim = dim3(static_cast<unsigned>(grid));
  launch.blockDim = dim3(kThreads);
  launch.stream = stream.handle();
  launch.attrs = &attribute;
  launch.numAttrs = early ? 1 : 0;
  stream.note(cudaLaunchKernelEx(&launch, split_combine_kernel, args), "mla_decode's combine");
  stream.launched("mla_decode's combine");
}

int64_t split_workspace_bytes(int64_t tokens, int64_t heads, int64_t latent, int64_t max_context,
                              SplitUnits units, int64_t items_wanted) {
  const int64_t slots = split_slots(tokens, max_context, units, items_wanted);
  const int64_t head = round_up<int64_t>((2 + kSplitTokens) * 4, 256);
  return head + round_up<int64_t>(slots * heads * 8, 256) + slots * heads * latent * 4;
}

SplitWorkspace split_workspace(void* workspace, int64_t tokens, int64_t heads, int64_t latent,
                               int64_t max_context, SplitUnits units, int64_t items_wanted) {
  FATHOM_CHECK(latent % 4 == 0, "latent {}", latent);
  const int64_t slots = split_slots(tokens, max_context, units, items_wanted);
  auto* bytes = static_cast<uint8_t*>(workspace);
  SplitWorkspace parts;
  parts.level = reinterpret_cast<int32_t*>(bytes);
  parts.first_items = parts.level + 1;
  bytes += round_up<int64_t>((2 + kSplitTokens) * 4, 256);
  parts.stats = reinterpret_cast<float2*>(bytes);
  bytes += round_up<int64_t>(slots * heads * 8, 256);
  parts.partial = reinterpret_cast<float*>(bytes);
  parts.units = units;
  parts.items_wanted = static_cast<int>(items_wanted);
  return parts;
}

}  // namespace fathom::ops::cuda
