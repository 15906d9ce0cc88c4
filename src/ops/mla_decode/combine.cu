#include <algorithm>

#include "base/check.h"
#include "base/math.h"
#include "ops/mla_decode/combine.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kNodes = 4;  // of level 2 in a query
constexpr int kThreads = kNodes * 32;

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

// A warp folds a node of level 2, at most 16 items, for 128 columns; then the first warp folds the nodes.
__global__ void __launch_bounds__(kThreads) split_combine_kernel(SplitCombineArgs args) {
#if __CUDA_ARCH__ >= 900
  cudaGridDependencySynchronize();  // launched before the items are done
#endif
  __shared__ Partial nodes[kNodes][32];
  const int t = static_cast<int>(blockIdx.y);
  const int first = args.workspace.first_items[t];
  const int items = args.workspace.first_items[t + 1] - first;
  if (items <= 1) return;
  const int level = *args.workspace.level;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int values = args.heads * args.latent;
  const int index = (static_cast<int>(blockIdx.x) * 32 + lane) * 4;
  const bool inside = index < values;
  const int head = inside ? index / args.latent : 0;

  const int node_items = level == 0 ? 16 : level == 1 ? 4 : 1;
  const int begin = warp * node_items, count = min(node_items, items - begin);
  if (count > 0 && inside) {
    Partial loaded[16];
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (i >= count) continue;
      const int64_t slot = first + begin + i;
      const float2 stats = args.workspace.stats[slot * args.heads + head];
      loaded[i] = {stats.x, stats.y,
                   *reinterpret_cast<const float4*>(args.workspace.partial + slot * values + index)};
    }
    Partial result = {}, unfinished[kSplitTop];  // of levels 1 and 2
#pragma unroll
    for (int i = 0; i < 16; ++i) {
      if (i >= count) continue;
      result = loaded[i];
      bool complete = true;
#pragma unroll
      for (int up = 1; up < kSplitTop; ++up) {
        if (up > level && complete) {
          const int child = (i >> (2 * (up - 1 - level))) & 3;
          unfinished[up] = child == 0 ? result : fold(unfinished[up], result);
          complete = child == 3 || i == count - 1;
          result = unfinished[up];
        }
      }
    }
    nodes[warp][lane] = result;
  }
  __syncthreads();
  if (warp > 0 || !inside) return;
  Partial result = nodes[0][lane];
  for (int i = 1; i * node_items < items; ++i) result = fold(result, nodes[i][lane]);
  const float inverse = __frcp_rn(result.sum);
  const int64_t to = t * args.out_stride + index;
  args.out.store(to, __fmul_rn(result.values.x, inverse));
  args.out.store(to + 1, __fmul_rn(result.values.y, inverse));
  args.out.store(to + 2, __fmul_rn(result.values.z, inverse));
  args.out.store(to + 3, __fmul_rn(result.values.w, inverse));
}

// A level is taken when the next one has fewer items than are wanted, so it has at most four times as many;
// and there are never more than all queries' units.
int64_t split_slots(int64_t tokens, int64_t max_context, SplitUnits units, int64_t items_wanted) {
  const int64_t most = std::min<int64_t>(units.most, ceil_div<int64_t>(max_context, units.least));
  return std::min(std::min<int64_t>(tokens, kSplitTokens) * most, 4 * items_wanted);
}

}  // namespace

void split_combine(device::cuda::Stream& stream, const SplitCombineArgs& args) {
  FATHOM_CHECK(args.latent % 4 == 0, "latent {}", args.latent);
  const dim3 grid(static_cast<unsigned>(ceil_div(args.heads * args.latent, 4 * 32)),
                  static_cast<unsigned>(args.tokens));
  cudaLaunchAttribute early{};
  early.id = cudaLaunchAttributeProgrammaticStreamSerialization;
  early.val.programmaticStreamSerializationAllowed = 1;
  cudaLaunchConfig_t launch{};
  launch.gridDim = grid;
  launch.blockDim = dim3(kThreads);
  launch.stream = stream.handle();
  launch.attrs = &early;
  launch.numAttrs = stream.gpu().major >= 9 ? 1 : 0;
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
