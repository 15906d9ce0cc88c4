#include <algorithm>

#include "base/check.h"
#include "base/math.h"
#include "ops/mla_decode/combine.cuh"
#include "ops/mla_decode/fold_items.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kWarps = 4;
constexpr int kThreads = kWarps * 32;
constexpr int kFan = kItemFan;
constexpr int kBlocksEach = 16;  // of a multiprocessor

__device__ void write(const SplitCombineArgs& args, int token, int column, const float4& values) {
  const int64_t to = token * args.out_stride + column;
  if (args.whole_stores) {
    args.out.store4(to, values);
  } else {
    args.out.store(to, values.x);
    args.out.store(to + 1, values.y);
    args.out.store(to + 2, values.z);
    args.out.store(to + 3, values.w);
  }
}

// How many threads share a query's items: a thread folds one node's, four threads of a warp fold four nodes,
// and so do four warps of a CTA.
enum class Share { kThread, kWarp, kBlock };

// The columns of one query, in turns between warps, or between CTAs for kBlock.
template <Share kShare, Nodes kNodes>
__device__ void combine(const SplitCombineArgs& args, int token, int first, int items,
                        Partial<kNodes> (&nodes)[kWarps][8]) {
  constexpr bool kBlock = kShare == Share::kBlock;
  constexpr int kParts = kShare == Share::kThread ? 1 : kFan;  // of a warp
  constexpr int kColumns = 128 / kParts;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int part = lane / (32 / kParts), place = lane % (32 / kParts);
  const int node = kBlock ? warp * kFan + part : part;
  const int nodes_here = (items - (kBlock ? warp * kFan * kFan : 0) + kFan - 1) / kFan;
  const int values = args.heads * args.latent, chunks = (values + kColumns - 1) / kColumns;
  const int begin = static_cast<int>(kBlock ? blockIdx.x : blockIdx.x + warp * gridDim.x);
  const int step = static_cast<int>(kBlock ? gridDim.x : gridDim.x * kWarps);
  for (int chunk = begin; chunk < chunks; chunk += step) {
    const int column = chunk * kColumns + place * 4;
    const int count = items - node * kFan;
    Partial<kNodes> result = {};
    if (count > 0 && column < values) {
      result =
          fold_items<kNodes>(args.workspace, args.heads, args.latent, first + node * kFan, count, column);
    }
    if constexpr (kParts > 1) result = fold_lanes(result, nodes_here);
    if constexpr (kBlock) {
      if (part == 0) nodes[warp][place] = result;
      __syncthreads();
      if (warp == 0) {
        for (int i = 1; i * kFan * kFan < items; ++i) result = fold(result, nodes[i][place]);
      }
      __syncthreads();
      if (warp > 0) continue;
    }
    if (part == 0 && column < values) write(args, token, column, result.output());
  }
}

// A row of CTAs for each query.
template <Nodes kNodes>
__global__ void __launch_bounds__(kThreads) split_combine_kernel(SplitCombineArgs args) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();  // it may have been launched before the items are done
  __shared__ Partial<kNodes> nodes[kWarps][8];
  const int token = static_cast<int>(blockIdx.y);
  const int first = args.workspace.first_items[token];
  const int items = args.workspace.first_items[token + 1] - first;
  if (items <= 1) return;
  if (items <= kFan)
    combine<Share::kThread, kNodes>(args, token, first, items, nodes);
  else if (items <= kFan * kFan)
    combine<Share::kWarp, kNodes>(args, token, first, items, nodes);
  else
    combine<Share::kBlock, kNodes>(args, token, first, items, nodes);
}

// A level is taken when the next one has fewer items than are wanted, so it has at most as many as those have
// children; and there are never more than all queries' units.
int64_t split_slots(const SplitShape& shape) {
  const int64_t most = std::min<int64_t>(shape.units.most_units(shape.max_context),
                                         ceil_div<int64_t>(shape.max_context, shape.units.least));
  return std::min(std::min<int64_t>(shape.tokens, kSplitTokens) * most, kFan * shape.items_wanted);
}

}  // namespace

void split_combine(device::cuda::Stream& stream, const SplitCombineArgs& args, bool early) {
  FATHOM_CHECK(args.latent % 4 == 0, "latent {}", args.latent);
  const int64_t values = int64_t{args.heads} * args.latent;
  // Of a CTA at once, the fewest. Many queries are few items each, whatever they might be.
  const bool shared = args.most_units > kFan * kFan && (args.workspace.units.most > kFan || args.tokens <= 8);
  const int64_t columns = shared ? 32 : kWarps * 128;
  const int64_t wave = ceil_div<int64_t>(kBlocksEach * stream.gpu().multiprocessors, args.tokens);
  const int64_t blocks = std::min(ceil_div(values, columns), wave);
  const dim3 grid(static_cast<unsigned>(blocks), static_cast<unsigned>(args.tokens));
  const auto kernel = args.workspace.nodes == Nodes::kMeans ? &split_combine_kernel<Nodes::kMeans>
                                                            : &split_combine_kernel<Nodes::kSums>;
  if (early)
    device::cuda::launch_early(stream, kernel, grid, dim3(kThreads), 0, args);
  else
    kernel<<<grid, kThreads, 0, stream.handle()>>>(args);
  stream.launched("mla_decode's combine");
}

int64_t split_workspace_bytes(const SplitShape& shape) {
  const int64_t stats = split_slots(shape) * shape.heads;
  const int64_t head = round_up<int64_t>((1 + kSplitTokens) * 4, 256);
  const int64_t value_bytes = shape.nodes == Nodes::kMeans ? 2 : 4;
  return head + round_up<int64_t>(stats * 8, 256) + stats * shape.latent * value_bytes;
}

SplitWorkspace split_workspace(void* workspace, const SplitShape& shape) {
  FATHOM_CHECK(shape.latent % 4 == 0, "latent {}", shape.latent);
  auto* bytes = static_cast<uint8_t*>(workspace);
  SplitWorkspace parts;
  parts.first_items = reinterpret_cast<int32_t*>(bytes);
  bytes += round_up<int64_t>((1 + kSplitTokens) * 4, 256);
  parts.stats = reinterpret_cast<float2*>(bytes);
  bytes += round_up<int64_t>(split_slots(shape) * shape.heads * 8, 256);
  parts.partial = bytes;
  parts.nodes = shape.nodes;
  parts.units = shape.units;
  parts.items_wanted = static_cast<int>(shape.items_wanted);
  return parts;
}

}  // namespace fathom::ops::cuda
