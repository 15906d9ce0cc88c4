// mla_decode for many heads and few queries: the work of a CTA of mla_decode_wide's, one unit of a query for
// 64 heads, shared by a cluster of four or eight (FP8 cache: eight), and the same bits. Eight tiles at a
// time: a warpgroup computes the scores of one of them; their maxima, and then the tiles' weights, go to all
// CTAs of the cluster, each of which sums its share of the values' columns, tile by tile in order. A unit of
// 512 places so takes as long as one or two tiles' scores and an eighth or a quarter of the outputs.
#include <type_traits>

#include "base/check.h"
#include "device/cuda/shared_memory.h"
#include "ops/mla_decode/wide.cuh"

namespace fathom::ops::cuda {
namespace {

using namespace wide;  // NOLINT: its own

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kGroups = kThreads / 128;  // warpgroups
constexpr int kTiles = 8;                // of a round
// Named barriers: from kSenders on of the warps that send a tile, from kSummers on of a warpgroup that sums.
constexpr int kSenders = 1, kSummers = kSenders + kGroups;
static_assert(kWarps == kTiles);

// With 8 CTAs a tile and 64 columns each, with 4 two of both. Entries of another type than bf16 come as they
// are and are widened once they are there.
template <int kCluster, class T>
struct Share {
  static constexpr bool kWidens = sizeof(T) == 1;
  static constexpr int kOwn = kTiles / kCluster;                 // tiles of a round, one a warpgroup
  static constexpr int kColumnBlocks = kLatent / 64 / kCluster;  // one a warpgroup
  static constexpr int kAhead = kCluster == 8 ? 1 : 0;           // rounds whose tile is brought beforehand
  static constexpr int kFirstSummer = kGroups - kColumnBlocks;   // warpgroup
  static_assert(kOwn <= kGroups && kColumnBlocks <= kGroups);
  static constexpr int kBuffers = kWidens ? kOwn : kGroups;  // of entries
};

// A tile's weights and the sums of these, by row and thread of the row, as they are sent.
struct Weights {
  unsigned char block[kBlockBytes];
  float sums[kHeads][4];
};

// Blocks that are still to be widened.
struct Raw {
  unsigned char own[kBlocks][kRawBytes];
  unsigned char columns[kTiles - 1][kRawBytes];  // of the others' tiles
};
struct Nothing {};

template <int kCluster, class T>
struct Shared {
  using S = Share<kCluster, T>;
  union {
    unsigned char queries[kBlocks][kBlockBytes];
    Weights weights[kTiles];  // once all scores of a round are known
  };
  // The entries of the CTA's own tiles; once the scores are known, its columns of all tiles.
  unsigned char entries[S::kBuffers][kBlocks][kBlockBytes];
  std::conditional_t<S::kWidens, Raw, Nothing> raw;
  alignas(16) float tops[2][kTiles][kHeads];  // of a tile's scores; by the round's parity
  uint64_t queries_full, entries_full[kGroups], tops_full, columns_full, weights_full[kTiles];
  SplitPlan plan;
};
static_assert(sizeof(Weights) % 1024 == 0 && kTiles * sizeof(Weights) <= kBlocks * kBlockBytes);
template <int kCluster, class T>
constexpr int kSharedBytes = sizeof(Shared<kCluster, T>) + 1024;  // and room to align
static_assert(kSharedBytes<4, __nv_bfloat16> <= 227 << 10 && kSharedBytes<8, __nv_bfloat16> <= 227 << 10 &&
              kSharedBytes<8, __nv_fp8_e4m3> <= 227 << 10);

// To the same place of another CTA of the cluster, counted by its barrier.
__device__ void push_to(uint32_t cta, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          cluster_address(from, cta)),
      "r"(shared_address(from)), "r"(bytes), "r"(cluster_address(barrier, cta))
      : "memory");
}

// A thread has rows lane / 4 and that + 8 of its warp's sixteen, as in mla_decode_wide.
template <int kCluster, class T>
class Unit {
  using S = Share<kCluster, T>;
  using P = ProductType<T>;

 public:
  __device__ Unit(Shared<kCluster, T>& shared, const Params& params, const SplitItem& item, int first_head)
      : shared_(shared),
        params_(params),
        item_(item),
        tail_(tail_of(params.branches, item.token)),
        table_(params.block_tables + item.sequence * params.table_stride),
        first_head_(first_head),
        rank_(static_cast<int>(rank_in_cluster())),
        group_(static_cast<int>(threadIdx.x) / 128),
        warp_(static_cast<int>(threadIdx.x) / 32),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4),
        scores_(group_ < S::kOwn),
        sums_(group_ >= S::kFirstSummer),
        block_(group_ - S::kFirstSummer),
        own_(rank_ * S::kOwn + group_),
        sent_(rank_ * S::kOwn + group_ % S::kOwn) {}

  // What is settled comes before the kernel ahead has ended.
  __device__ void run() {
    const int tiles = (item_.end - item_.begin + kKeys - 1) / kKeys;
    float values[32];
    const int page = page_of_warp(0, min(tiles, kTiles));  // looked up long before it is needed
    load_own(0, tiles);
    if (has_room(0, tiles)) load_columns(0, tiles, page, true);
    for (int first = 0; first < tiles; first += kTiles) run_round(values, first, tiles, page);
    if (sums_) write(values);
  }

 private:
  __device__ int begin_of(int tile) const { return item_.begin + tile * kKeys; }
  __device__ int page_of(int tile) const { return table_[begin_of(tile) / params_.page_size]; }
  __device__ TileCopies copies_of(int tile) const {
    return TileCopies(params_, tail_, begin_of(tile), item_.end);
  }

  // `page`: as page_of_warp, of the first round.
  __device__ void run_round(float (&values)[32], int first, int tiles, int page) {
    const int here = min(tiles - first, kTiles);
    const uint32_t parity = static_cast<uint32_t>(first / kTiles) & 1U;
    const bool room = has_room(first, tiles);
    if (first == 0)
      device::cuda::wait_for_previous();
    else
      page = page_of_warp(first, here);
    expect_and_load(here);
    if (first > 0 && room) load_columns(first, here, page, true);
    if (S::kAhead == 0 && first > 0) load_own(first, tiles);
    if constexpr (S::kWidens) {
      load_columns(first, here, page, false);
      if (rank_ < here) widen_own(first, parity);
      load_own(first + kTiles, tiles);
    }
    float scores[32];
    if (scores_ && own_ < here) score(scores, first, parity);
    if (S::kAhead > 0 && !S::kWidens) load_own(first + kTiles, tiles);
    fence_async();
    __syncthreads();  // neither queries nor entries are read any more
    // Whoever has no tile says so, too, that it is done with the last round.
    push(shared_.tops[parity][sent_], sizeof(shared_.tops[0][0]), &shared_.tops_full);
    if constexpr (S::kWidens) {
      if (sums_) widen_columns(first, here, parity);
    } else if (!room) {
      load_columns(first, here, page, false);
    }
    barrier_wait(&shared_.tops_full, parity);
    if (scores_ && own_ < here) weigh(scores, parity);
    if (sent_ < here) {
      fence_async();
      synchronize_senders();
      push(&shared_.weights[sent_], sizeof(Weights), &shared_.weights_full[sent_]);
    }
    if (sums_) {
      barrier_wait(&shared_.columns_full, parity);
      prepare_columns(first, here, room);
      add(values, first, here, parity, room);
    } else {
      follow_tops(here, parity);
    }
    if (first + kTiles >= tiles) return;
    // What the next round brings takes the weights' place, here and where the own ones were sent.
    cluster_arrive();
    __syncthreads();
    cluster_wait();
  }

  // Of the round's first tiles each warp's page; those of its first lane are used.
  __device__ int page_of_warp(int first, int here) const {
    return lane_ == 0 && warp_ < here ? page_of(first + warp_) : 0;
  }
  __device__ bool is_own(int tile) const { return tile / S::kOwn == rank_; }

  // Every warp brings a part: what one thread does for a copy takes its time.
  __device__ void expect_and_load(int here) {
    if (lane_ != 0) return;
    if (rank_ * S::kOwn < here) {
      if (warp_ == 0) barrier_expect(&shared_.queries_full, kBlocks * kBlockBytes);
      for (int i = warp_; i < kBlocks; i += kWarps)
        copy_tile(shared_.queries[i], &params_.queries, &shared_.queries_full, i * 64, first_head_,
                  item_.token);
    }
    if (warp_ == kWarps - 1)
      barrier_expect(&shared_.tops_full,
                     (kTiles - S::kOwn) * static_cast<uint32_t>(sizeof(shared_.tops[0][0])));
    if (warp_ < here && !is_own(warp_)) barrier_expect(&shared_.weights_full[warp_], sizeof(Weights));
  }

  // Where the entries of an own tile of a round are.
  __device__ int buffer_of(int first, int own) const {
    return S::kAhead > 0 && !S::kWidens ? first / kTiles % 2 : own;
  }
  // A block of the columns of `to_row` and the rows behind it.
  __device__ void copy_rows(unsigned char* block, int to_row, int column_block, int32_t row, bool single,
                            uint64_t* full) const {
    if constexpr (!S::kWidens) {
      copy_tile(block + to_row * 128, single ? &params_.entries : &params_.cache, full, column_block * 64,
                row);
    } else if (single) {
      bulk_copy_once(
          block + to_row * 64,
          static_cast<const unsigned char*>(params_.cache_data) + int64_t{row} * kWidth + column_block * 64,
          64, full);
    } else {
      copy_tile(block + to_row * 64, &params_.cache, full, column_block * 64, row);
    }
  }

  // The warpgroup's tile of the round that begins with tile `first`, if there is one.
  __device__ void load_own(int first, int tiles) {
    const int tile = first + own_;
    if (!scores_ || tile >= tiles) return;
    if (min(begin_of(tile) + kKeys, item_.end) > item_.settled) {
      if (first == 0) prefetch_own(tile);
      device::cuda::wait_for_previous();
    }
    if (lane_ != 0) return;
    const int page = first == 0 ? page_of(tile) : next_page_;
    // Looked up now, for the next time.
    if (tile + kTiles < tiles) next_page_ = page_of(tile + kTiles);
    constexpr int kEach = kWarps / kGroups;  // warps of a tile
    const int buffer = buffer_of(first, group_);
    uint64_t* full = &shared_.entries_full[buffer];
    const TileCopies copies = copies_of(tile);
    if (warp_ % kEach == 0) barrier_expect(full, copies.rows(params_) * kWidth * sizeof(T));
    copies.run(params_, tail_, table_, page, [&](int to_row, int32_t row, bool single) {
      for (int i = warp_ % kEach; i < kBlocks; i += kEach) {
        if constexpr (S::kWidens)
          copy_rows(shared_.raw.own[i], to_row, i, row, single, full);
        else
          copy_rows(shared_.entries[buffer][i], to_row, i, row, single, full);
      }
    });
  }

  // What can come before the kernel ahead has ended of a tile that is not settled.
  __device__ void prefetch_own(int tile) const {
    const int place = begin_of(tile) + static_cast<int>(threadIdx.x) % 128 / 2;
    if (place >= item_.end) return;
    const int64_t row = tail_.has(place) ? tail_.entry(place)
                                         : int64_t{table_[place / params_.page_size]} * params_.page_size +
                                               place % params_.page_size;
    constexpr int kHalf = kWidth / 2;  // two threads have a row
    prefetch_lines(static_cast<const T*>(params_.cache_data) + row * kWidth + threadIdx.x % 2 * kHalf,
                   kHalf * sizeof(T));
  }

  // Whether others' columns have a buffer of their own: that of the next round's tile, in the last round.
  __device__ bool has_room(int first, int tiles) const {
    return S::kAhead > 0 && !S::kWidens && first + kTiles >= tiles;
  }
  // Where the CTA's block `block` of columns of a tile lies: an own tile's where it is, others' in blocks
  // that are no longer needed, or where there is room.
  __device__ unsigned char* columns_of(int first, int tile, int block, bool room) {
    const int first_own = rank_ * S::kOwn, first_block = rank_ * S::kColumnBlocks;
    if (tile >= first_own && tile < first_own + S::kOwn)
      return entries_of(first, tile - first_own)[first_block + block];
    const int other = tile < first_own ? tile : tile - S::kOwn;
    if (room) return shared_.entries[S::kBuffers - 1 - buffer_of(first, 0)][other * S::kColumnBlocks + block];
    constexpr int kEach = (kTiles - S::kOwn) / S::kOwn;  // others' tiles among an own one's blocks
    const int free = other % kEach * S::kColumnBlocks + block;
    return entries_of(first, other / kEach)[free < first_block ? free : free + S::kColumnBlocks];
  }
  __device__ unsigned char (&entries_of(int first, int own))[kBlocks][kBlockBytes] {
    return shared_.entries[buffer_of(first, own)];
  }
  static_assert((kTiles - S::kOwn) / S::kOwn * S::kColumnBlocks <= kBlocks - S::kColumnBlocks);

  // A warp brings those of a tile, if that is not the CTA's own. `page`: of the tile's first place.
  __device__ void load_columns(int first, int here, int page, bool room) {
    if (lane_ != 0) return;
    const bool brings = warp_ < here && !is_own(warp_);
    if (brings && min(begin_of(first + warp_) + kKeys, item_.end) > item_.settled)
      device::cuda::wait_for_previous();
    const TileCopies copies = copies_of(brings ? first + warp_ : first);
    constexpr uint32_t kBytes = 64 * S::kColumnBlocks * sizeof(T);  // of a row
    barrier_expect(&shared_.columns_full, brings ? copies.rows(params_) * kBytes : 0);
    if (!brings) return;
    copies.run(params_, tail_, table_, page, [&](int to_row, int32_t row, bool single) {
      for (int i = 0; i < S::kColumnBlocks; ++i) {
        const int block = rank_ * S::kColumnBlocks + i;
        if constexpr (S::kWidens)
          copy_rows(raw_columns(warp_), to_row, block, row, single, &shared_.columns_full);
        else
          copy_rows(columns_of(first, warp_, i, room), to_row, block, row, single, &shared_.columns_full);
      }
    });
  }

  // Bytes of another's tile.
  __device__ unsigned char* raw_columns(int tile) {
    return shared_.raw.columns[tile - (tile > rank_ ? 1 : 0)];
  }

  // The queries, and the CTA's tile of the round, by all: each warp eight rows.
  __device__ void widen_own(int first, uint32_t parity) {
    static_assert(kWarps * 8 == kKeys);
    barrier_wait(&shared_.queries_full, parity);
    convert_queries<T, sizeof(shared_.queries) / 16>(shared_.queries[0], static_cast<int>(threadIdx.x),
                                                     kThreads);
    barrier_wait(&shared_.entries_full[0], parity);
    const int count = item_.end - begin_of(first + rank_) - warp_ * 8;
    widen_rows<T, kBlocks>(shared_.raw.own[0] + warp_ * 512, kRawBytes, shared_.entries[0][0] + warp_ * 1024,
                           kBlockBytes, lane_, [&](int) { return count; });
    fence_async();
    __syncthreads();
  }
  // The CTA's columns of the others' tiles, by the warpgroup that sums them: each warp two tiles'.
  __device__ void widen_columns(int first, int here, uint32_t parity) {
    barrier_wait(&shared_.columns_full, parity);
#pragma unroll 1
    for (int tile = warp_ % 4; tile < here; tile += 4) {
      if (tile == rank_) continue;
      const int count = item_.end - begin_of(first + tile);
      widen_rows<T, kKeys / 8>(raw_columns(tile), 512, columns_of(first, tile, 0, false), 1024, lane_,
                               [&](int i) { return count - i * 8; });
    }
  }

  // Of what is sent of the tile sent_, to the same place of the other CTAs and counted by their barriers, a
  // warp's share: to the CTA before this one first, and so on, so that all do not send to the same one at
  // once.
  __device__ void push(const void* from, uint32_t bytes, uint64_t* barrier) const {
    constexpr int kWarpsEach = kWarps / S::kOwn;
    static_assert(kWarpsEach >= kCluster);
    const int turn = 1 + warp_ % kWarpsEach;
    if (lane_ == 0 && turn < kCluster)
      push_to(static_cast<uint32_t>(rank_ + kCluster - turn) % kCluster, from, bytes, barrier);
  }
  // The warps that send a tile's.
  __device__ void synchronize_senders() const {
    named_barrier_sync(kSenders + sent_ % S::kOwn, kThreads / S::kOwn);
  }

  // The scores of the warpgroup's tile, and their maxima.
  __device__ void score(float (&scores)[32], int first, uint32_t parity) {
    const int buffer = buffer_of(first, group_);
    if constexpr (!S::kWidens) {
      barrier_wait(&shared_.queries_full, parity);
      barrier_wait(&shared_.entries_full[buffer],
                   S::kAhead > 0 ? static_cast<uint32_t>(first / kTiles / 2) & 1U : parity);
    }
    score_tile<P>(scores, shared_.queries[0], shared_.entries[buffer][0], item_.end - begin_of(first + own_),
                  lane_);
    float tops[2];
    own_tops(tops, scores);
    row_tops(tops);
    if (lane_ % 4 != 0) return;
    shared_.tops[parity][own_][row_] = tops[0] * params_.scale;
    shared_.tops[parity][own_][row_ + 8] = tops[1] * params_.scale;
  }

  // What the weights of the thread's rows count from, behind the round.
  __device__ void follow_tops(int here, uint32_t parity) {
#pragma unroll 1
    for (int tile = 0; tile < here; ++tile) {
#pragma unroll
      for (int half = 0; half < 2; ++half)
        top_[half] = next_top(top_[half], shared_.tops[parity][tile][row_ + 8 * half]);
    }
  }

  // The warpgroup's tile's weights, to all.
  __device__ void weigh(const float (&scores)[32], uint32_t parity) {
    Weights& weights = shared_.weights[own_];
    float tops[2] = {top_[0], top_[1]}, sums[2];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        if (tile <= own_) tops[half] = next_top(tops[half], shared_.tops[parity][tile][row_ + 8 * half]);
      }
    }
    uint32_t pairs[2][8];
    weights_of<P>(pairs, sums, scores, params_.scale, tops);
    store_weights(weights.block, row_, lane_, pairs);
    weights.sums[row_][lane_ % 4] = sums[0];
    weights.sums[row_ + 8][lane_ % 4] = sums[1];
    fence_async();
    barrier_arrive(&shared_.weights_full[own_]);
  }

  // Places after the sequence's end have weight zero, but must not meet a NaN there. The warpgroup's columns.
  __device__ void prepare_columns(int first, int here, bool room) {
    const int count = item_.end - begin_of(first + here - 1);
    if (count < kKeys) {
      unsigned char* columns = columns_of(first, here - 1, block_, room);
      for (int i = static_cast<int>(threadIdx.x) % 128; i < (kKeys - count) * 8; i += 128)
        *reinterpret_cast<uint4*>(columns + swizzled(count + i / 8, i % 8)) = uint4{};
    }
    fence_async();  // as of what was widened
    named_barrier_sync(kSummers + group_, 128);
  }

  // What the weights of the thread's rows count from, behind a tile; what brings sums there.
  __device__ void follow_top(float (&factors)[2], int tile, uint32_t parity) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float top = next_top(top_[half], shared_.tops[parity][tile][row_ + 8 * half]);
      factors[half] = exp2_fast(top_[half] - top);
      top_[half] = top;
    }
  }

  // The round's tiles as their weights come. The code of one tile, for all: what runs but once waits for its
  // instructions.
  __device__ void add(float (&values)[32], int first, int here, uint32_t parity, bool room) {
    float factors[2];
    follow_top(factors, 0, parity);
#pragma unroll 1
    for (int tile = 0; tile < here; ++tile) {
      const bool fresh = first + tile == 0;
      const Weights& tile_weights = shared_.weights[tile];
      const uint64_t weights = wgmma_tile(tile_weights.block);
      const uint64_t columns = wgmma_columns_tile(columns_of(first, tile, block_, room), kBlockBytes);
      if (!fresh) {
#pragma unroll
        for (int i = 0; i < 32; ++i) values[i] *= factors[i / 2 % 2];
      }
      barrier_wait(&shared_.weights_full[tile], parity);
      settle(values);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kKeys / 16; ++k)
        wgmma_shared<true, P>(values, weights + k * 2, columns + k * (2048 / 16), !fresh || k > 0);
      wgmma_commit();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float part = tile_weights.sums[row_ + 8 * half][lane_ % 4];
        sum_[half] = fresh ? part : fmaf(sum_[half], factors[half], part);
      }
      if (tile + 1 < here) follow_top(factors, tile + 1, parity);
      wgmma_wait<0>();
      settle(values);
    }
  }

  __device__ void write(const float (&values)[32]) const {
    const int heads = min(kHeads, params_.heads - first_head_);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float sum = sum_[half];
      sum += __shfl_xor_sync(0xffffffffU, sum, 1);
      sum += __shfl_xor_sync(0xffffffffU, sum, 2);
      const int row = row_ + 8 * half;
      if (row >= heads) continue;
      const int head = first_head_ + row;
      const int64_t column =
          int64_t{head} * kLatent + (rank_ * S::kColumnBlocks + block_) * 64 + lane_ % 4 * 2;
      uint16_t* to = outputs_of(params_, item_) + column;
      const float inverse = __frcp_rn(sum);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float a = values[j * 4 + half * 2], b = values[j * 4 + half * 2 + 1];
        const float means[2] = {__fmul_rn(a, inverse), __fmul_rn(b, inverse)};
        *reinterpret_cast<uint32_t*>(to + j * 8) =
            item_.slot < 0 ? pack_bf16(means[0], means[1]) : pack_means(means[0], means[1]);
      }
      if (item_.slot >= 0 && rank_ == 0 && block_ == 0 && lane_ % 4 == 0)
        params_.workspace.stats[int64_t{item_.slot} * params_.heads + head] = make_float2(top_[half], sum);
    }
  }

  Shared<kCluster, T>& shared_;
  const Params& params_;
  const SplitItem item_;
  const TokenTail tail_;
  const int32_t* table_;
  const int first_head_, rank_, group_, warp_, lane_, row_;
  int next_page_ = 0;                      // of the next tile to be brought
  const bool scores_, sums_;               // whether the warpgroup does
  const int block_;                        // of columns that it sums
  const int own_;                          // the warpgroup's tile of a round
  const int sent_;                         // that whose weights the warp helps to send
  float top_[2] = {-INFINITY, -INFINITY};  // of the unit so far
  float sum_[2] = {0.0F, 0.0F};            // of the weights, the thread's share
};

template <int kCluster, class T>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    mla_decode_few_kernel(const __grid_constant__ Params params) {
  extern __shared__ unsigned char memory[];
  auto& shared =
      *reinterpret_cast<Shared<kCluster, T>*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    barrier_init(&shared.queries_full, 1);
    for (uint64_t& barrier : shared.entries_full) barrier_init(&barrier, 1);
    barrier_init(&shared.tops_full, 1);
    barrier_init(&shared.columns_full, kWarps);
    for (int i = 0; i < kTiles; ++i) {
      const bool own = i / Share<kCluster, T>::kOwn == static_cast<int>(rank_in_cluster());
      barrier_init(&shared.weights_full[i], own ? 128 : 1);
    }
    prefetch_map(&params.queries);
    barrier_init_fence();
  }
  cluster_sync();
  device::cuda::let_next_start();  // as mla_decode_narrow_kernel
  make_split_plan(shared.plan, params.positions, params.slots, params.tokens, params.workspace);
  const int index = static_cast<int>(blockIdx.x) / kCluster;
  const bool has_item = index < shared.plan.items * params.groups;  // the whole cluster
  if (has_item) {
    const SplitItem item = split_item(shared.plan, params.tokens, index / params.groups);
    Unit<kCluster, T>(shared, params, item, index % params.groups * kHeads).run();
  }
  if (blockIdx.x == 0 && threadIdx.x < 32) {
    device::cuda::wait_for_previous();
    publish_split_plan(shared.plan, params.tokens, params.workspace, static_cast<int>(threadIdx.x), 32);
  }
  if (has_item) cluster_sync();  // the others have what they were sent from here
}

// Units of all queries at most, for 64 heads each.
int64_t most_works(const MlaDecodeArgs& args, SplitUnits units) {
  return units.most_units(args.max_context) * args.batch.tokens * ceil_div<int64_t>(args.heads, kHeads);
}
// Each part of the GPU has some multiprocessors left over: of its 132 an H100 has room for 15 clusters of
// eight and 30 of four at a time.
bool fits_eight(const device::cuda::Gpu& gpu, int64_t works) {
  return 8 * works <= gpu.multiprocessors * 7 / 8;
}

}  // namespace

int64_t mla_decode_brief_context(const device::cuda::Gpu& gpu, int64_t tokens, int64_t heads) {
  MlaDecodeArgs args;
  args.max_context = kLargeUnits.brief;
  args.batch.tokens = tokens;
  args.heads = heads;
  const bool differs =
      gpu.hopper() && heads >= kLeastWideHeads &&
      (tokens <= kMostValuesTokens || 4 * most_works(args, kLargeUnits) <= gpu.multiprocessors);
  return differs ? kLargeUnits.brief : 0;
}

bool mla_decode_few_takes(const device::cuda::Gpu& gpu, const MlaDecodeArgs& args) {
  const int64_t works = most_works(args, kLargeUnits);
  // Longer queries have units for all of the GPU, which mla_decode_wide gets through more of.
  return mla_decode_wide_takes(gpu, args) && args.max_context <= kLargeUnits.brief &&
         (args.cache.dtype == device::DType::kBF16 ? 4 * works <= gpu.multiprocessors
                                                   : fits_eight(gpu, works));
}

void mla_decode_few(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                    const SplitWorkspace& workspace) {
  const Params params = make_params(stream, args, workspace);
  // So few queries that each unit is an item.
  FATHOM_CHECK(workspace.units.most_units(args.max_context) * args.batch.tokens < workspace.items_wanted,
               "{} tokens, {} items wanted", args.batch.tokens, workspace.items_wanted);
  const int64_t works = most_works(args, workspace.units);
  const auto launch = [&]<int kCluster, class T>(std::integral_constant<int, kCluster>, const T*) {
    auto* kernel = &mla_decode_few_kernel<kCluster, T>;
    static device::cuda::SharedMemory memory;
    if (!memory.allow(stream, kernel, kSharedBytes<kCluster, T>)) return;
    device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(works * kCluster)), dim3(kThreads),
                               kSharedBytes<kCluster, T>, params);
  };
  constexpr std::integral_constant<int, 4> kFour;
  constexpr std::integral_constant<int, 8> kEight;
  switch (args.cache.dtype) {
    case device::DType::kF8E4M3:
      launch(kEight, static_cast<const __nv_fp8_e4m3*>(nullptr));
      break;
    case device::DType::kF8E5M2:
      launch(kEight, static_cast<const __nv_fp8_e5m2*>(nullptr));
      break;
    default:
      if (fits_eight(stream.gpu(), works))
        launch(kEight, static_cast<const __nv_bfloat16*>(nullptr));
      else
        launch(kFour, static_cast<const __nv_bfloat16*>(nullptr));
  }
  stream.launched("mla_decode");
}

}  // namespace fathom::ops::cuda
