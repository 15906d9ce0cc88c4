#include "base/check.h"
#include "base/math.h"
#include "ops/mla_decode/combine.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 128;

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

__global__ void __launch_bounds__(kThreads) split_combine_kernel(SplitCombineArgs args) {
  const int t = static_cast<int>(blockIdx.y);
  const int first = args.workspace.first_items[t];
  const int items = args.workspace.first_items[t + 1] - first;
  if (items <= 1) return;
  const int level = *args.workspace.level;
  const int index = static_cast<int>(blockIdx.x * kThreads + threadIdx.x) * 4;
  const int values = args.heads * args.latent;
  if (index >= values) return;
  const int head = index / args.latent;

  Partial nodes[kSplitTop + 1];  // unfinished, by level
  Partial result = {};
  for (int begin = 0; begin < items; begin += 4) {
    Partial loaded[4];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int64_t slot = first + min(begin + i, items - 1);
      const float2 stats = args.workspace.stats[slot * args.heads + head];
      loaded[i] = {stats.x, stats.y,
                   *reinterpret_cast<const float4*>(args.workspace.partial + slot * values + index)};
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int item = begin + i;
      if (item >= items) break;
      result = loaded[i];
      bool complete = true;
#pragma unroll
      for (int up = 1; up <= kSplitTop; ++up) {
        if (up > level && complete) {
          const int child = (item >> (2 * (up - 1 - level))) & 3;
          nodes[up] = child == 0 ? result : fold(nodes[up], result);
          complete = child == 3 || item == items - 1;
          result = nodes[up];
        }
      }
    }
  }
  const float inverse = __frcp_rn(result.sum);
  const int64_t to = t * args.out_stride + index;
  args.out.store(to, __fmul_rn(result.values.x, inverse));
  args.out.store(to + 1, __fmul_rn(result.values.y, inverse));
  args.out.store(to + 2, __fmul_rn(result.values.z, inverse));
  args.out.store(to + 3, __fmul_rn(result.values.w, inverse));
}

// A level is taken when the next one has fewer items than are wanted, so it has at most four times as many;
// and there are never more than all queries' units.
int64_t split_slots(int64_t tokens, int64_t max_context, int64_t items_wanted) {
  const int64_t units = split_units(static_cast<int>(max_context));
  return std::min(std::min<int64_t>(tokens, kSplitTokens) * units, 4 * items_wanted);
}

}  // namespace

void split_combine(device::cuda::Stream& stream, const SplitCombineArgs& args) {
  FATHOM_CHECK(args.latent % 4 == 0, "latent {}", args.latent);
  const dim3 grid(static_cast<unsigned>(ceil_div(args.heads * args.latent, 4 * kThreads)),
                  static_cast<unsigned>(args.tokens));
  split_combine_kernel<<<grid, kThreads, 0, stream.handle()>>>(args);
  stream.launched("mla_decode's combine");
}

int64_t split_workspace_bytes(int64_t tokens, int64_t heads, int64_t latent, int64_t max_context,
                              int64_t items_wanted) {
  const int64_t slots = split_slots(tokens, max_context, items_wanted);
  const int64_t head = round_up<int64_t>((2 + kSplitTokens) * 4, 256);
  return head + round_up<int64_t>(slots * heads * 8, 256) + slots * heads * latent * 4;
}

SplitWorkspace split_workspace(void* workspace, int64_t tokens, int64_t heads, int64_t latent,
                               int64_t max_context, int64_t items_wanted) {
  FATHOM_CHECK(latent % 4 == 0, "latent {}", latent);
  const int64_t slots = split_slots(tokens, max_context, items_wanted);
  auto* bytes = static_cast<uint8_t*>(workspace);
  SplitWorkspace parts;
  parts.level = reinterpret_cast<int32_t*>(bytes);
  parts.first_items = parts.level + 1;
  bytes += round_up<int64_t>((2 + kSplitTokens) * 4, 256);
  parts.stats = reinterpret_cast<float2*>(bytes);
  bytes += round_up<int64_t>(slots * heads * 8, 256);
  parts.partial = reinterpret_cast<float*>(bytes);
  parts.items_wanted = static_cast<int>(items_wanted);
  return parts;
}

}  // namespace fathom::ops::cuda
