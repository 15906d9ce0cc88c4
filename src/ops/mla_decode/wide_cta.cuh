// What the kernels for many heads and many queries have in common (wide_sm90.cu, wide_f8_sm90.cu). Of a CTA's
// four warpgroups one brings tiles of entries, two at a time; one turns a tile into weights; two sum half of
// the 512 columns of the values each, of the tile before it. A tile comes and goes in two parts, so that the
// next one's scores begin before it is whole.
#pragma once

#include <type_traits>
#include <utility>

#include "device/cuda/shared_memory.h"
#include "ops/mla_decode/wide.cuh"

namespace fathom::ops::cuda::wide {

constexpr int kThreads = 512;
constexpr int kSummers = 256;  // threads that sum values
constexpr int kStages = 2;
constexpr int kParts = 2;                // of a tile: what the summers are done with first, and the rest
constexpr int kRopeBlock = kBlocks - 1;  // once a tile's scores are known, its weights take this one's place
constexpr int kFolded = 4;               // groups of eight values that come back at once to be folded
// Of 16 bytes for each summing thread, of a level of the tree: its values, and what goes with them.
constexpr int kStatsLine = 16, kAsideLines = kStatsLine + 1;
constexpr int kKept = 16;  // steps of the queries' columns that the weigher keeps in registers
static_assert(kKept == kFirstBlocks * 4);

// Named barriers: of the weigher's threads, and kSummer + a warpgroup's index of those of one that sums.
constexpr int kWeighers = 1, kSummer = 2;

// Behind what begins at a multiple of 1024 bytes, and has as many. A kernel's own adds
//   Product: what a tile's values are;
//   kWeighedEach: of the four threads of a row, those that say that its weights are there;
//   kWeigherClears: rows behind a sequence's end are cleared by the weigher, or else by the summers;
//   kNearLines, near[kNearLines][kSummers]: of the 16 bytes that a summing thread puts aside at once, those
//   that stay here and do not go to memory.
template <class Front>
struct SharedTiles : Front {
  static_assert(sizeof(Front) % 1024 == 0);
  unsigned char tiles[kStages][kBlocks][kBlockBytes];
  float rescale[kStages][kHeads];          // what was summed before the stage's tile is multiplied by it
  float tops[2][kHeads], sums[2][kHeads];  // of a unit; by its parity
  uint64_t full[kStages][kParts], empty[kStages][kParts];
  uint64_t weighed[kStages], followed[kStages];  // what goes with the weights has been written, has been read
  uint64_t q_full;
  SplitPlan plan;

  // By one thread. `full_arrivals`: of each part; `sharers`: CTAs whose summers give tiles back to this one;
  // `weighed_each`: kWeighedEach.
  __device__ void initialize(const int (&full_arrivals)[kParts], int sharers, int weighed_each) {
    for (int i = 0; i < kStages; ++i) {
      for (int part = 0; part < kParts; ++part) {
        barrier_init(&full[i][part], full_arrivals[part]);
        barrier_init(&empty[i][part], kSummers / 32 * sharers);
      }
      barrier_init(&weighed[i], 4 * 8 * weighed_each);
      barrier_init(&followed[i], kSummers / 32 * 8);
    }
    barrier_init(&q_full, 1);
  }
};

// What the CTAs of a cluster do in turns: items for as many groups of heads as there are CTAs; where there
// are few, two clusters each, for half of the values' columns, which both need all scores for.
template <int kCluster>
struct Turns {
  const Params& params;
  const int rank, pairs, first, step;
  const int parts;  // that an item's columns are cut into

  __device__ Turns(const Params& all, const SplitPlan& plan)
      : params(all),
        rank(kCluster > 1 ? static_cast<int>(rank_in_cluster()) : 0),
        pairs(all.groups / kCluster),
        first(static_cast<int>(blockIdx.x) / kCluster),
        step(static_cast<int>(gridDim.x) / kCluster),
        parts(2 * plan.items * pairs <= step ? 2 : 1) {}

  __device__ bool has(const SplitPlan& plan, int index) const { return index < plan.items * pairs * parts; }
  __device__ SplitItem item(const SplitPlan& plan, int index) const {
    return split_item(plan, params.tokens, index / parts / pairs);
  }
  __device__ int first_head(int index) const { return (index / parts % pairs * kCluster + rank) * kHeads; }
  __device__ int part(int index) const { return index % parts; }
};

// A weigher's thread's queries of the columns that are kept, from global memory: convert(a pair of bf16).
template <class Convert>
__device__ inline void load_queries(uint32_t (&kept)[kKept][4], const Params& params, int token,
                                    int first_head, const Convert& convert) {
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const int row = first_head + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane / 4;
  const __nv_bfloat16* q = params.q + token * params.q_stride + lane % 4 * 2;
#pragma unroll
  for (int i = 0; i < kKept; ++i) {
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int head = row + j % 2 * 8;
      const int column = block_in_order(i / 4) * 64 + i % 4 * 16 + j / 2 * 8;
      kept[i][j] = head < params.heads
                       ? convert(*reinterpret_cast<const uint32_t*>(q + int64_t{head} * kWidth + column))
                       : 0;
    }
  }
}

// Of the 64 heads, a thread has rows lane / 4 and that + 8 of its warp's sixteen.
// Queries: where they come from (`load`, with the item's number), which block of shared memory has those of a
// block of columns that is not kept (`block`), and what is to be done once an item's scores are all there
// (`read`).
template <int kCluster, class Shared, class Queries>
class Weigher {
  using P = typename Shared::Product;

 public:
  __device__ Weigher(Shared& shared, const Params& params)
      : shared_(shared),
        params_(params),
        queries_(shared, params),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4) {}

  __device__ void run() {
    const Turns<kCluster> turns(params_, shared_.plan);
    queries_.begin(turns);
    uint32_t items = 0, units = 0;
    for (int index = turns.first; turns.has(shared_.plan, index); index += turns.step, ++items) {
      const SplitItem item = turns.item(shared_.plan, index);
      queries_.load(kept_, item.token, turns.first_head(index), items);
      for (int begin = item.begin; begin < item.end; begin += item.unit_places, ++units)
        weigh_unit(turns, index, begin, min(begin + item.unit_places, item.end), item.end, units % 2);
    }
  }

 private:
  __device__ void weigh_unit(const Turns<kCluster>& turns, int index, int begin, int end, int item_end,
                             uint32_t parity) {
    float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    for (int place = begin; place < end; place += kKeys) {
      float scores[32];
      score(scores);
      mask_scores(scores, item_end - place, lane_);
      float rescale[2] = {1.0F, 1.0F}, parts[2];
      follow_tops(top, rescale, scores);
      uint32_t weights[2][8];
      weights_of<P>(weights, parts, scores, params_.scale, top);
      // All warps have read the tile and the queries: the weights take the rope columns' place.
      named_barrier_sync(kWeighers, 128);
      if (place + kKeys >= item_end) queries_.read(turns, index);
      barrier_wait(&shared_.followed[ring_.stage], ring_.phase ^ 1);
      if (Shared::kWeigherClears && item_end - place < kKeys) clear_rows(item_end - place);
      store_weights(shared_.tiles[ring_.stage][kRopeBlock], row_, lane_, weights);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        sum[half] = fmaf(sum[half], rescale[half], parts[half]);
        if (lane_ % 4 == 0) shared_.rescale[ring_.stage][row_ + 8 * half] = rescale[half];
      }
      if (place + kKeys >= end) publish(top, sum, parity);
      fence_async();
      __syncwarp();
      if (lane_ % 4 < Shared::kWeighedEach) barrier_arrive(&shared_.weighed[ring_.stage]);
      ring_.next();
    }
  }

  // Mostly there is nothing to follow, which the warp knows before it knows the rows' largest scores.
  __device__ void follow_tops(float (&top)[2], float (&rescale)[2], const float (&scores)[32]) const {
    float tops[2];
    own_tops(tops, scores);
#pragma unroll
    for (float& tile_top : tops) tile_top *= params_.scale;
    const bool moves = next_top(top[0], tops[0]) != top[0] || next_top(top[1], tops[1]) != top[1];
    if (!__any_sync(0xffffffffU, moves)) return;
    row_tops(tops);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float old = top[half];
      top[half] = next_top(old, tops[half]);
      rescale[half] = exp2_fast(old - top[half]);
    }
  }

  __device__ void score(float (&scores)[32]) {
    const uint64_t q = wgmma_tile(shared_.q), k = wgmma_tile(shared_.tiles[ring_.stage]);
    barrier_wait(&shared_.full[ring_.stage][0], ring_.phase);
    settle(scores);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kWidth / 16; ++i) {
      const uint64_t at = block_in_order(i / 4) * (kBlockBytes / 16) + i % 4 * 2;
      if (i == kFirstBlocks * 4) barrier_wait(&shared_.full[ring_.stage][1], ring_.phase);
      if (i < kKept)
        wgmma_registers<P>(scores, kept_[i], k + at, i > 0);
      else
        wgmma_shared<false, P>(scores, q + Queries::block(i / 4) * (kBlockBytes / 16) + i % 4 * 2, k + at,
                               true);
    }
    wgmma_commit();
    wgmma_wait<0>();
    settle(scores);
  }

  // As the Summer's, of all columns of the values.
  __device__ void clear_rows(int count) const {
    const uint32_t tile = shared_address(shared_.tiles[ring_.stage]);
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x) % 128; i < (kKeys - count) * 8; i += 128) {
      const uint32_t row = tile + static_cast<uint32_t>(swizzled(count + i / 8, i % 8));
#pragma unroll
      for (uint32_t block = 0; block < kRopeBlock; ++block) store_zeros(row + block * kBlockBytes);
    }
  }

  // A unit's maxima and sums.
  __device__ void publish(const float (&top)[2], const float (&sum)[2], uint32_t parity) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float all = sum[half];
      all += __shfl_xor_sync(0xffffffffU, all, 1);
      all += __shfl_xor_sync(0xffffffffU, all, 2);
      if (lane_ % 4 != 0) continue;
      shared_.tops[parity][row_ + 8 * half] = top[half];
      shared_.sums[parity][row_ + 8 * half] = all;
    }
  }

  Shared& shared_;
  const Params& params_;
  Queries queries_;
  const int lane_, row_;
  Ring<kStages> ring_;
  uint32_t kept_[kKept][4];
};

// Sums kHalves * 256 columns of the values, half of them each warpgroup. Rows as a Weigher's. A tile is given
// back to kSharers CTAs of the cluster: all that bring it, or the own one.
// kLong: queries may be longer than kLargeUnits.brief, and have nodes of nodes, which takes registers.
template <int kCluster, int kHalves, int kSharers, bool kLong, class Shared>
class Summer {
  using P = typename Shared::Product;

 public:
  __device__ Summer(Shared& shared, const Params& params, float4* aside)
      : shared_(shared),
        params_(params),
        aside_(aside + int64_t{blockIdx.x} * (kSplitTop * kAsideLines) * kSummers + threadIdx.x % kSummers),
        group_(static_cast<int>(threadIdx.x) % kSummers / 128),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4),
        their_empty_(kSharers > 1 ? cluster_address(shared.empty, static_cast<uint32_t>(lane_ % kSharers))
                                  : shared_address(shared.empty)) {
    static_assert(kSharers == 1 || kSharers == kCluster);
  }

  __device__ void run() {
    if (blockIdx.x == 0)
      publish_split_plan(shared_.plan, params_.tokens, params_.workspace,
                         static_cast<int>(threadIdx.x) % kSummers, kSummers);
    float values[kHalves][64];
    const Turns<kCluster> turns(params_, shared_.plan);
    uint32_t units = 0;
    for (int index = turns.first; turns.has(shared_.plan, index); index += turns.step) {
      const SplitItem item = turns.item(shared_.plan, index);
      first_block_ = (turns.part(index) * 2 + group_) * 2 * kHalves;
      if constexpr (kLong)
        sum_tree(values, item, turns.first_head(index), units);
      else
        sum_chain(values, item, turns.first_head(index), units);
    }
  }

 private:
  // What goes with the values of the thread's two rows.
  struct Rows {
    float top[2], sum[2];
  };

  // An item of up to four units, one node.
  __device__ void sum_chain(float (&values)[kHalves][64], const SplitItem& item, int first_head,
                            uint32_t& units) {
    Rows node;
    for (int begin = item.begin; begin < item.end; begin += item.unit_places, ++units) {
      const int end = min(begin + item.unit_places, item.end);
      const Rows unit = add_unit(values, end - begin, units % 2);
      node = begin > item.begin ? fold(values, node, unit, near_lines(), aside_) : unit;
      if (end < item.end) put_aside(values, near_lines(), aside_);
    }
    write(values, node, item, first_head);
  }
  // Of any number: into its node, and what that completes into the next. Each level has lines of its own
  // aside.
  __device__ void sum_tree(float (&values)[kHalves][64], const SplitItem& item, int first_head,
                           uint32_t& units) {
    Rows node;
    int unit = 0;  // of the item
    for (int begin = item.begin; begin < item.end; begin += item.unit_places, ++units, ++unit) {
      const int end = min(begin + item.unit_places, item.end);
      node = add_unit(values, end - begin, units % 2);
      const bool last = end >= item.end;
      int level = 0;
      for (int child = unit; level < kSplitTop; ++level, child >>= kSplitFanBits) {
        constexpr int kLastChild = (1 << kSplitFanBits) - 1;
        if ((child & kLastChild) != 0) {
          const float4* aside = aside_of(level);
          const float4 stats = load_kept<kStatsLine * kGroupStride>(aside, keep_policy());
          node = fold(values, {{stats.x, stats.y}, {stats.z, stats.w}}, node, near_of(level), aside);
        }
        if (!last && (child & kLastChild) != kLastChild) break;
      }
      if (last) continue;
      put_aside(values, near_of(level), aside_of(level));
      const float stats[4] = {node.top[0], node.top[1], node.sum[0], node.sum[1]};
      store_kept<kStatsLine * kGroupStride>(aside_of(level), stats, keep_policy());
    }
    write(values, node, item, first_head);
  }
  __device__ float4* aside_of(int level) const { return aside_ + level * (kAsideLines * kSummers); }
  // Of nodes above units, of which there are few, all goes to memory.
  __device__ float4* near_of(int level) const {
    return level == 0 ? near_lines() : aside_of(level) + kFarGroups * kSummers;
  }
  __device__ float4* near_lines() const {
    if constexpr (kNearGroups > 0)
      return &shared_.near[0][threadIdx.x % kSummers];
    else
      return nullptr;
  }

  // The means of a unit.
  __device__ Rows add_unit(float (&values)[kHalves][64], int places, uint32_t parity) {
    Rows unit;
    for (int done = 0; done < places; done += kKeys) {
      unsigned char(&tile)[kBlocks][kBlockBytes] = shared_.tiles[ring_.stage];
      barrier_wait(&shared_.full[ring_.stage][0], ring_.phase);
      barrier_wait(&shared_.full[ring_.stage][1], ring_.phase);
      barrier_wait(&shared_.weighed[ring_.stage], ring_.phase);
      if (!Shared::kWeigherClears && places - done < kKeys) clear_rows(tile, places - done);
      float rescale[2];
      read_rows(rescale, shared_.rescale[ring_.stage]);
      const bool rescales = __any_sync(0xffffffffU, rescale[0] != 1.0F || rescale[1] != 1.0F);
      const uint64_t weights = wgmma_tile(tile[kRopeBlock]);
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        if (done > 0 && rescales) {
#pragma unroll
          for (int i = 0; i < 64; ++i) values[half][i] *= rescale[i / 2 % 2];
        }
        const uint64_t columns = wgmma_columns_tile(tile[first_block_ + half * 2], kBlockBytes);
        settle(values[half]);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kKeys / 16; ++k) {
          wgmma_shared<true, P>(values[half], weights + k * 2, columns + k * (2048 / 16), done > 0 || k > 0);
        }
        wgmma_commit();
      }
      wgmma_wait<kHalves - 1>();
      settle(values[0]);
      release(0);
      if constexpr (kHalves > 1) {
        wgmma_wait<0>();
        settle(values[1]);
      }
      if (done + kKeys >= places) {
        // Before the stage is given back: the next unit but one takes their place.
        read_rows(unit.top, shared_.tops[parity]);
        read_rows(unit.sum, shared_.sums[parity]);
      }
      if (lane_ % 4 == 0) barrier_arrive(&shared_.followed[ring_.stage]);
      release(1);
      ring_.next();
    }
    const float inverses[2] = {__frcp_rn(unit.sum[0]), __frcp_rn(unit.sum[1])};
#pragma unroll
    for (int half = 0; half < kHalves; ++half) {
#pragma unroll
      for (int i = 0; i < 64; ++i) values[half][i] = __fmul_rn(values[half][i], inverses[i / 2 % 2]);
    }
    return unit;
  }

  // Of the thread's two rows. Whoever reads says when it has, and one of the four threads of a row is enough.
  __device__ void read_rows(float (&values)[2], const float (&rows)[kHeads]) const {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float value = lane_ % 4 == 0 ? rows[row_ + 8 * half] : 0.0F;
      values[half] = __shfl_sync(0xffffffffU, value, lane_ & ~3);
    }
  }

  // A part of the tile, to all that bring it.
  __device__ void release(int part) const {
    __syncwarp();
    const uint32_t empty =
        their_empty_ + static_cast<uint32_t>((ring_.stage * kParts + part) * sizeof(uint64_t));
    if constexpr (kSharers > 1) {
      if (lane_ < kSharers) barrier_arrive_at(empty);
    } else {
      if (lane_ == 0) barrier_arrive(empty);
    }
  }

  // Places after the sequence's end have weight zero, but must not meet a NaN there. The warpgroup's columns.
  __device__ void clear_rows(unsigned char (&tile)[kBlocks][kBlockBytes], int count) const {
    constexpr int kEach = 16 * kHalves;  // 16 bytes each
    for (int i = static_cast<int>(threadIdx.x) % 128; i < (kKeys - count) * kEach; i += 128) {
      unsigned char* block = tile[first_block_ + i % kEach / 8];
      *reinterpret_cast<uint4*>(block + swizzled(count + i / kEach, i % 8)) = uint4{};
    }
    fence_async();
    named_barrier_sync(kSummer + group_, 128);
  }

  // Groups of eight values: group i is values[i / 8][i % 8 * 8] and the next seven. The last are put near,
  // the others far.
  static constexpr int kGroups = 8 * kHalves;
  static constexpr int kNearGroups = Shared::kNearLines < kGroups ? Shared::kNearLines : kGroups;
  static constexpr int kFarGroups = kGroups - kNearGroups;
  static constexpr int kGroupStride = kSummers * 16;  // bytes between a thread's groups aside

  // each(i) for i = 0 to kCount - 1, as constants.
  template <int kCount, class Each>
  __device__ static void unrolled(const Each& each) {
    [&]<int... i>(std::integer_sequence<int, i...>) {
      (each(std::integral_constant<int, i>()), ...);
    }(std::make_integer_sequence<int, kCount>());
  }

  __device__ void put_aside(const float (&values)[kHalves][64], float4* near, float4* far) const {
    const uint64_t policy = keep_policy();
    unrolled<kGroups>([&]<int i>(std::integral_constant<int, i>) {
      const float* value = values[i / 8] + i % 8 * 8;
      float pairs[4];
#pragma unroll
      for (int j = 0; j < 4; ++j) pairs[j] = __uint_as_float(pack_means(value[j * 2], value[j * 2 + 1]));
      if constexpr (i < kFarGroups)
        store_kept<i * kGroupStride>(far, pairs, policy);
      else
        near[(i - kFarGroups) * kSummers] = make_float4(pairs[0], pairs[1], pairs[2], pairs[3]);
    });
  }
  // What was put aside with `old`, and what is in `values` with `node` folded into it.
  __device__ Rows fold(float (&values)[kHalves][64], const Rows& old, const Rows& node, const float4* near,
                       const float4* far) const {
    const MeanFold folds[2] = {MeanFold(old.top[0], old.sum[0], node.top[0], node.sum[0]),
                               MeanFold(old.top[1], old.sum[1], node.top[1], node.sum[1])};
    const uint64_t policy = keep_policy();
    const auto fold_group = [&]<int i>(std::integral_constant<int, i>, const float4& four) {
      const float pairs[4] = {four.x, four.y, four.z, four.w};
      float* value = values[i / 8] + i % 8 * 8;
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const float2 a = unpack_means(__float_as_uint(pairs[j]));
        const float2 b = unpack_means(pack_means(value[j * 2], value[j * 2 + 1]));
        value[j * 2] = folds[j % 2](a.x, b.x);
        value[j * 2 + 1] = folds[j % 2](a.y, b.y);
      }
    };
    constexpr int kRounds = (kFarGroups > kNearGroups ? kFarGroups : kNearGroups) / kFolded;
    static_assert(kFarGroups % kFolded == 0 && kNearGroups % kFolded == 0);
    // What is near while what is far comes.
    unrolled<kRounds>([&]<int round>(std::integral_constant<int, round>) {
      constexpr int kFirst = round * kFolded;
      __syncwarp();  // no more of them in registers at once
      float4 fours[kFolded];
      if constexpr (kFirst < kFarGroups)
        unrolled<kFolded>([&]<int i>(std::integral_constant<int, i>) {
          fours[i] = load_kept<(kFirst + i) * kGroupStride>(far, policy);
        });
      if constexpr (kFirst < kNearGroups)
        unrolled<kFolded>([&]<int i>(std::integral_constant<int, i>) {
          fold_group(std::integral_constant<int, kFarGroups + kFirst + i>(), near[(kFirst + i) * kSummers]);
        });
      if constexpr (kFirst < kFarGroups)
        unrolled<kFolded>([&]<int i>(std::integral_constant<int, i>) {
          fold_group(std::integral_constant<int, kFirst + i>(), fours[i]);
        });
    });
    return {{folds[0].top, folds[1].top}, {folds[0].sum, folds[1].sum}};
  }

  __device__ void write(const float (&values)[kHalves][64], const Rows& node, const SplitItem& item,
                        int first_head) const {
    const int heads = min(kHeads, params_.heads - first_head);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = row_ + 8 * i, head = first_head + row;
      // Four lanes together have eight columns of a row in each of four places; each gets those of one
      // place.
      uint16_t* to = outputs_of(params_, item) + int64_t{head} * kLatent + first_block_ * 64 + lane_ % 4 * 8;
#pragma unroll
      for (int j = 0; j < 16 * kHalves; j += 4) {
        uint32_t words[4];
#pragma unroll
        for (int k = 0; k < 4; ++k) {
          const float* value = values[j / 16] + (j + k) % 16 * 4 + i * 2;
          words[k] = item.slot < 0 ? pack_bf16(value[0], value[1]) : pack_means(value[0], value[1]);
        }
        transpose_quad(words);
        if (row < heads)
          *reinterpret_cast<uint4*>(to + j * 8) = make_uint4(words[0], words[1], words[2], words[3]);
      }
      if (item.slot >= 0 && row < heads && first_block_ == 0 && lane_ % 4 == 0)
        params_.workspace.stats[int64_t{item.slot} * params_.heads + head] =
            make_float2(node.top[i], node.sum[i]);
    }
  }

  // Of four lanes in a row, lane i gets word i of each, in their order.
  __device__ void transpose_quad(uint32_t (&words)[4]) const {
#pragma unroll
    for (int step = 1; step < 4; step *= 2) {
      const bool upper = (lane_ & step) != 0;
#pragma unroll
      for (int k = 0; k < 4; ++k) {
        if ((k & step) != 0) continue;
        const uint32_t other = __shfl_xor_sync(0xffffffffU, upper ? words[k] : words[k + step], step);
        (upper ? words[k] : words[k + step]) = other;
      }
    }
  }

  Shared& shared_;
  const Params& params_;
  float4* aside_;  // what is folded so far: [CTAs, kSplitTop, kAsideLines, kSummers]
  const int group_, lane_, row_;
  const uint32_t their_empty_;
  int first_block_ = 0;  // of the warpgroup's columns
  Ring<kStages> ring_;
};

// The summing warpgroups' part of a kernel.
template <int kCluster, int kSharers, bool kLong, class Shared>
__device__ inline void sum_values(Shared& shared, const Params& params, float4* aside) {
  if (Turns<kCluster>(params, shared.plan).parts == 1)
    Summer<kCluster, 2, kSharers, kLong, Shared>(shared, params, aside).run();
  else
    Summer<kCluster, 1, kSharers, kLong, Shared>(shared, params, aside).run();
}

// Launches kernel_of(CTAs of a cluster, kLong), both as constants.
template <class KernelOf>
void launch_wide(device::cuda::Stream& stream, const MlaDecodeArgs& args, const SplitWorkspace& workspace,
                 void* scratch, int shared_bytes, const KernelOf& kernel_of) {
  const Params params = make_params(stream, args, workspace);
  const int64_t most_items = workspace.units.most_units(args.max_context) * args.batch.tokens * params.groups;
  const auto launch = [&]<int kCluster, bool kLong>(std::integral_constant<int, kCluster> cluster,
                                                    std::bool_constant<kLong> is_long) {
    const auto kernel = kernel_of(cluster, is_long);
    static device::cuda::SharedMemory memory;
    if (!memory.allow(stream, kernel, shared_bytes)) return;
    const int64_t grid =
        std::min<int64_t>(stream.gpu().multiprocessors, 2 * most_items) / kCluster * kCluster;
    device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(grid)), dim3(kThreads),
                               shared_bytes, params, static_cast<float4*>(scratch));
  };
  const auto launch_for = [&](auto is_long) {
    if (params.groups % 2 == 0)
      launch(std::integral_constant<int, 2>(), is_long);
    else
      launch(std::integral_constant<int, 1>(), is_long);
  };
  args.max_context > kLargeUnits.brief ? launch_for(std::true_type()) : launch_for(std::false_type());
  stream.launched("mla_decode");
}

}  // namespace fathom::ops::cuda::wide
