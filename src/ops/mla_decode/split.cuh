// How the places of the batch's queries are cut into items of work, and how the items' results are merged.
//
// A query of `length` places is cut into at most 64 units of equal length that begin at multiples of it; the
// unit's length depends on the query's and on the kernel. Each unit is computed from nothing. Four units
// in a row, from the left, are folded into a node, four nodes into a node of the next level, and so on: a
// tree of fixed shape. A CTA computes one node of the level that gives the whole GPU work, whatever that is
// today, and the combine kernel folds what is left of the tree; so the cut into items never shows in the
// result.
#pragma once

#include <cuda_fp16.h>

#include <cstdint>

#include "device/cuda/launch_kernel.h"

namespace fathom::ops::cuda {

inline constexpr int kSplitTile = 64;     // places; units are multiples of it
inline constexpr int kSplitTop = 3;       // level of the whole query: 4^3 units
inline constexpr int kSplitTokens = 256;  // queries of one launch, at most

inline constexpr int kSettledTokens = 32;  // of a launch, that may know which places are settled

inline constexpr int kSplitFanBits = 2;  // a node of the tree has four children

// Units are `least` places or a multiple, and at most `most` of a query; of one of more than `brief` places
// long_least and long_most. All but `brief` are powers of two.
struct SplitUnits {
  int least = 0, most = 0;
  int brief = 0x7fffffff;
  int long_least = 0, long_most = 0;

  __host__ __device__ static int nodes(int units, int level) {
    return (units + (1 << (kSplitFanBits * level)) - 1) >> (kSplitFanBits * level);
  }

  __device__ int places(int length) const {
    const bool is_long = length > brief;
    return (is_long ? long_least : least) * multiple(length, is_long);
  }
  // Of a query of at most max_context places.
  __host__ __device__ int most_units(int64_t max_context) const {
    return max_context > brief ? long_most : most;
  }
  __device__ int count(int length) const {
    if (length <= 0) return 0;
    const bool is_long = length > brief;
    const auto least_units = static_cast<unsigned>(ceil_shift(length, is_long ? long_least : least));
    const auto each = static_cast<unsigned>(multiple(length, is_long));
    return static_cast<int>((least_units + each - 1) / each);
  }

 private:
  // Of the least unit's places, a unit's.
  __device__ int multiple(int length, bool is_long) const {
    return ceil_shift(length, is_long ? long_least * long_most : least * most);
  }
  // ceil(value / power), by a shift: a division takes the GPU as long as all the rest.
  __device__ static int ceil_shift(int value, int power) {
    return (value + power - 1) >> (31 - __clz(power));
  }
};
inline constexpr SplitUnits kSmallUnits = {64, 64};
// For kernels that fold through global memory: few, but where a query alone is work for all of the GPU.
inline constexpr SplitUnits kLargeUnits = {512, 4, 16384, 2048, 64};

// What a node's values are, but for a query's last, which is its output.
enum class Nodes {
  kSums,   // float32, not divided by the weights' sum
  kMeans,  // divided, then f16: half the bytes for kernels that fold through global memory
};

// What the kernel of the items leaves for the combine kernel, in the workspace. Partial results: the nodes'
// values [slots, Nh, Dc], float32 or f16, and [slots, Nh] what their weights count from, in base 2 (the
// largest score, or a little less), and the weights' sum; a slot is an item's index.
struct SplitWorkspace {
  int32_t* first_items = nullptr;  // [T + 1] index of each query's first item
  float2* stats = nullptr;
  void* partial = nullptr;
  Nodes nodes = Nodes::kSums;
  int items_wanted = 0;  // the level is the highest with this many items; 0: a query is one item
  // Or a higher one, if the items take that many CTAs less time; 0: not asked. An item is of `groups` CTAs.
  int weighed_groups = 0;
  bool settled = false;  // MlaDecodeArgs::settled, for kernels that ask for it
  SplitUnits units;
};

struct SplitPlan {
  int level;
  int items;
  SplitUnits units;
  int first_items[kSplitTokens + 1];
  int lengths[kSplitTokens];
  int slots[kSplitTokens];
  bool settles;
  int settled[kSettledTokens];  // of so few queries, places before the first of their sequence's in the batch
  // Where levels are weighed.
  int counts[kSplitTop + 1];
  int tiles, longest, longest_unit;  // of all queries; of one query; of a unit; in tiles
};

// Microseconds, about, that the items of a level take (16 heads on an H100: a tile 2 to 3, an item's
// beginning and end two more, and its partial result twice through memory).
__device__ inline float split_cost(const SplitPlan& plan, int level, int groups, int tokens) {
  constexpr float kTile = 2.4F, kItem = 4.8F, kPartial = 0.05F;
  const int items = plan.counts[level];
  const auto rounds =
      static_cast<float>((items * groups + static_cast<int>(gridDim.x) - 1) / static_cast<int>(gridDim.x));
  const float mean = static_cast<float>(plan.tiles) / static_cast<float>(items);
  const auto longest = static_cast<float>(min(plan.longest, plan.longest_unit << (kSplitFanBits * level)));
  const float partials = items > tokens ? kPartial * static_cast<float>(items * groups) : 0.0F;
  return fmaxf(rounds * mean, longest) * kTile + rounds * kItem + partials;
}

// By one warp: what its lanes' queries come to.
__device__ inline void plan_items(SplitPlan& plan, int tokens, const SplitWorkspace& workspace) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const bool settles = workspace.settled && tokens <= kSettledTokens;
  int counts[kSplitTop + 1] = {}, tiles = 0, longest = 0, longest_unit = 0;
#pragma unroll 1
  for (int t = lane; t < tokens; t += 32) {
    const int length = plan.lengths[t], units = workspace.units.count(length);
    plan.first_items[t] = units;
#pragma unroll
    for (int level = 0; level <= kSplitTop; ++level) counts[level] += workspace.units.nodes(units, level);
    const int query_tiles = (length + kSplitTile - 1) / kSplitTile;
    tiles += query_tiles;
    longest = max(longest, query_tiles);
    longest_unit = max(longest_unit, workspace.units.places(length) / kSplitTile);
  }
  int level = kSplitTop;
#pragma unroll
  for (int l = 0; l <= kSplitTop; ++l) counts[l] = __reduce_add_sync(0xffffffffU, counts[l]);
#pragma unroll
  for (int l = kSplitTop; l > 0; --l) {
    if (level == l && counts[l] < workspace.items_wanted) --level;
  }
  if (workspace.weighed_groups > 0) {
    plan.tiles = __reduce_add_sync(0xffffffffU, tiles);
    plan.longest = __reduce_max_sync(0xffffffffU, longest);
    plan.longest_unit = __reduce_max_sync(0xffffffffU, longest_unit);
    for (int l = 0; l <= kSplitTop; ++l) plan.counts[l] = counts[l];
    __syncwarp();
    const auto cost = [&](int l) { return split_cost(plan, l, workspace.weighed_groups, tokens); };
    while (level < kSplitTop && plan.counts[level + 1] > 0 && cost(level + 1) < cost(level)) ++level;
  }
  int before = 0;
#pragma unroll 1
  for (int begin = 0; begin < tokens; begin += 32) {
    const int t = begin + lane;
    const int items = t < tokens ? workspace.units.nodes(plan.first_items[t], level) : 0;
    int sum = items;
#pragma unroll
    for (int step = 1; step < 32; step *= 2) {
      const int other = __shfl_up_sync(0xffffffffU, sum, step);
      if (lane >= step) sum += other;
    }
    if (t < tokens) plan.first_items[t] = before + sum - items;
    before += __shfl_sync(0xffffffffU, sum, 31);
  }
  if (lane == 0) {
    plan.level = level;
    plan.units = workspace.units;
    plan.items = before;
    plan.first_items[tokens] = before;
    plan.settles = settles;
  }
  if (!settles) return;
  int settled = lane < tokens ? plan.lengths[lane] - 1 : 0;
#pragma unroll 1
  for (int t = 0; t < tokens; ++t) {
    const bool same = lane < tokens && plan.lengths[t] > 0 && plan.slots[t] == plan.slots[lane];
    if (same) settled = min(settled, plan.lengths[t] - 1);
  }
  plan.settled[lane] = settled;
}

// By the whole CTA; `plan` in shared memory. Positions and slots must be older than the kernel before this
// one: it need not have ended.
__device__ inline void make_split_plan(SplitPlan& plan, const int32_t* positions, const int32_t* slots,
                                       int tokens, const SplitWorkspace& workspace) {
  for (int t = static_cast<int>(threadIdx.x); t < tokens; t += static_cast<int>(blockDim.x)) {
    plan.lengths[t] = positions[t] + 1;
    plan.slots[t] = slots[t];
  }
  __syncthreads();
  if (threadIdx.x < 32) plan_items(plan, tokens, workspace);
  __syncthreads();
}

// The plan for the kernels behind; by `threads` threads of one CTA, that before this kernel has ended.
__device__ inline void publish_split_plan(const SplitPlan& plan, int tokens, const SplitWorkspace& workspace,
                                          int thread, int threads) {
  for (int t = thread; t <= tokens; t += threads) workspace.first_items[t] = plan.first_items[t];
}

struct SplitItem {
  int token;
  int sequence;     // its slot
  int begin, end;   // places
  int unit_places;  // of the query
  int settled;      // places whose entries may be read before the kernel ahead has ended
  int slot;         // of the partial results; -1: the query's only item
};

__device__ inline SplitItem split_item(const SplitPlan& plan, int tokens, int index) {
  int low = 0, high = tokens;  // the last token whose first item is at or before `index`
  while (high - low > 1) {
    const int middle = (low + high) / 2;
    (plan.first_items[middle] <= index ? low : high) = middle;
  }
  const int length = plan.lengths[low];
  const int unit = plan.units.places(length);
  const int span = unit << (kSplitFanBits * plan.level);
  const int begin = (index - plan.first_items[low]) * span;
  const bool alone = plan.first_items[low + 1] - plan.first_items[low] == 1;
  const int settled = plan.settles ? plan.settled[low] : 0;
  return {low, plan.slots[low], begin, min(begin + span, length), unit, settled, alone ? -1 : index};
}

// The factors that let the weights of two nodes count from the same. Every merge, in whatever kernel, is
// this: the same operations, none of which may be contracted differently.
struct Fold {
  float top, scale_a, scale_b;

  __device__ Fold(float top_a, float top_b)
      : top(fmaxf(top_a, top_b)), scale_a(exp2f(top_a - top)), scale_b(exp2f(top_b - top)) {}
  __device__ float operator()(float a, float b) const { return __fmaf_rn(a, scale_a, __fmul_rn(b, scale_b)); }
};
// Of means, which are rounded before: what they weigh.
struct MeanFold : Fold {
  float sum;

  __device__ MeanFold(float top_a, float sum_a, float top_b, float sum_b) : Fold(top_a, top_b) {
    const float weight_a = __fmul_rn(sum_a, scale_a), weight_b = __fmul_rn(sum_b, scale_b);
    sum = __fadd_rn(weight_a, weight_b);
    const float inverse = __frcp_rn(sum);
    scale_a = __fmul_rn(weight_a, inverse);
    scale_b = __fmul_rn(weight_b, inverse);
  }
};

// A mean as its node has it. A convex combination of the cache's values: what is beyond f16's 65504 there
// becomes infinite.
__device__ inline uint32_t pack_means(float low, float high) {
  const __half2 pair = __floats2half2_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}
__device__ inline float2 unpack_means(uint32_t pair) {
  return __half22float2(*reinterpret_cast<const __half2*>(&pair));
}

// Of the queries of one launch: what its workspace is for.
struct SplitShape {
  int64_t tokens, heads, latent;
  int64_t max_context;  // places of a query, at most
  SplitUnits units = kSmallUnits;
  Nodes nodes = Nodes::kSums;
  int64_t items_wanted = 0;
};
int64_t split_workspace_bytes(const SplitShape& shape);
SplitWorkspace split_workspace(void* workspace, const SplitShape& shape);

}  // namespace fathom::ops::cuda
