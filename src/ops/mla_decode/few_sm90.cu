// mla_decode for many heads and few queries: the work of a CTA of mla_decode_wide's, one unit of a query for
// 64 heads, shared by a cluster of four, and the same bits. Eight tiles at a time: each warpgroup computes
// the scores of one of them; their maxima, and then the tiles' weights, go to all four CTAs, each of which
// sums 128 columns of the values, tile by tile in order. A unit of 512 places so takes as long as two tiles'
// scores and a quarter of the outputs.
#include "base/check.h"
#include "device/cuda/shared_memory.h"
#include "ops/mla_decode/wide.cuh"

namespace fathom::ops::cuda {
namespace {

using namespace wide;  // NOLINT: its own

constexpr int kCluster = 4;
constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kGroups = kThreads / 128;                 // warpgroups
constexpr int kTiles = kCluster * kGroups;              // of a round
constexpr int kColumnBlocks = kLatent / 64 / kCluster;  // of a CTA: one a warpgroup
static_assert(kColumnBlocks == kGroups && kWarps == kTiles);

struct Shared {
  // The queries; once all scores of a round are known, the weights of its tiles and the sums of these.
  unsigned char queries[kBlocks][kBlockBytes];
  // The entries of the warpgroups' own tiles; once the scores are known, the CTA's columns of all tiles.
  unsigned char entries[kGroups][kBlocks][kBlockBytes];
  float tops[2][kTiles][kHeads];  // of a tile's scores; by the round's parity
  float group_sums[kGroups][kHeads];
  uint64_t queries_full, entries_full[kGroups], tops_full, columns_full, weights_full;
  SplitPlan plan;

  using Sums = float[kTiles][kHeads][4];  // of a tile's weights, by row and thread of the row
  __device__ Sums& sums() { return *reinterpret_cast<Sums*>(queries[kTiles]); }
};
static_assert(kTiles < kBlocks && sizeof(Shared::Sums) <= kBlockBytes);
constexpr int kSharedBytes = sizeof(Shared) + 1024;  // and room to align
static_assert(kSharedBytes <= 227 << 10);

// To the same place of another CTA of the cluster, counted by its barrier.
__device__ void push_to(uint32_t cta, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.shared::cta.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(
          cluster_address(from, cta)),
      "r"(shared_address(from)), "r"(bytes), "r"(cluster_address(barrier, cta))
      : "memory");
}

// A thread has rows lane / 4 and that + 8 of its warp's sixteen, as in mla_decode_wide.
class Unit {
 public:
  __device__ Unit(Shared& shared, const Params& params, const SplitItem& item, int first_head)
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
        own_(rank_ * kGroups + group_) {}

  __device__ void run() {
    const int tiles = (item_.end - item_.begin + kKeys - 1) / kKeys;
    float values[32];
    for (int first = 0; first < tiles; first += kTiles) {
      const int here = min(tiles - first, kTiles);
      const uint32_t parity = static_cast<uint32_t>(first / kTiles) & 1U;
      // Looked up long before it is needed.
      const int page = lane_ == 0 && warp_ < here ? page_of(first + warp_) : 0;
      expect_and_load(first, here);
      float scores[32], rescale[kTiles][2];
      if (own_ < here) score(scores, first, parity);
      fence_async();
      __syncthreads();  // neither queries nor entries are read any more
      // Whoever has no tile says so, too, that it is done with the last round.
      push(0, shared_.tops[parity][own_], sizeof(shared_.tops[0][0]), &shared_.tops_full);
      load_columns(first, here, page);
      barrier_wait(&shared_.tops_full, parity);
      if (own_ < here) weigh(scores, parity);
      follow_tops(rescale, first, here, parity);
      barrier_wait(&shared_.weights_full, parity);
      barrier_wait(&shared_.columns_full, parity);
      clear_columns(first, here);
      fence_async();
      __syncthreads();  // and the CTA's own weights are there
      add(values, rescale, first, here);
      __syncthreads();  // what the next round brings takes their place
    }
    float sum[2];
    finish(sum);
    write(values, sum);
  }

 private:
  __device__ int begin_of(int tile) const { return item_.begin + tile * kKeys; }
  __device__ int page_of(int tile) const { return table_[begin_of(tile) / params_.page_size]; }
  __device__ TileCopies copies_of(int tile) const {
    return TileCopies(params_, tail_, begin_of(tile), item_.end);
  }

  // Of the `here` tiles of a round, how many others compute.
  __device__ uint32_t of_others(int here) const {
    return static_cast<uint32_t>(here - min(max(here - rank_ * kGroups, 0), kGroups));
  }

  // Every warp brings a part: what one thread does for a copy takes its time.
  __device__ void expect_and_load(int first, int here) {
    if (lane_ != 0) return;
    if (warp_ == 0) {
      barrier_expect(&shared_.tops_full,
                     (kTiles - kGroups) * static_cast<uint32_t>(sizeof(shared_.tops[0][0])));
      barrier_expect(&shared_.weights_full,
                     of_others(here) * static_cast<uint32_t>(kBlockBytes + sizeof(shared_.sums()[0])));
    }
    if (rank_ * kGroups < here) {
      if (warp_ == 0) barrier_expect(&shared_.queries_full, kBlocks * kBlockBytes);
      for (int i = warp_; i < kBlocks; i += kWarps)
        copy_tile(shared_.queries[i], &params_.queries, &shared_.queries_full, i * 64, first_head_,
                  item_.token);
    }
    if (own_ >= here) return;
    constexpr int kEach = kWarps / kGroups;  // warps of a tile
    const TileCopies copies = copies_of(first + own_);
    if (warp_ % kEach == 0) barrier_expect(&shared_.entries_full[group_], copies.bytes(params_));
    copies.run(
        params_, tail_, table_, page_of(first + own_), [&](int offset, const CUtensorMap* map, int32_t row) {
          for (int i = warp_ % kEach; i < kBlocks; i += kEach)
            copy_tile(shared_.entries[group_][i] + offset, map, &shared_.entries_full[group_], i * 64, row);
        });
  }

  // Where the CTA's block `block` of columns of a tile lies: an own tile's where it is, others' in blocks
  // that are no longer needed.
  __device__ unsigned char* columns_of(int tile, int block) {
    const int first_own = rank_ * kGroups, first_block = rank_ * kColumnBlocks;
    if (tile >= first_own && tile < first_own + kGroups)
      return shared_.entries[tile - first_own][first_block + block];
    const int other = tile < first_own ? tile : tile - kGroups;
    constexpr int kEach = (kTiles - kGroups) / kGroups;  // others' tiles among an own one's blocks
    const int free = other % kEach * kColumnBlocks + block;
    return shared_.entries[other / kEach][free < first_block ? free : free + kColumnBlocks];
  }
  static_assert((kTiles - kGroups) / kGroups * kColumnBlocks <= kBlocks - kColumnBlocks);

  // A warp brings those of a tile, if that is not the CTA's own. `page`: of the tile's first place.
  __device__ void load_columns(int first, int here, int page) {
    if (lane_ != 0) return;
    const bool brings = warp_ < here && warp_ / kGroups != rank_;
    const TileCopies copies = copies_of(brings ? first + warp_ : first);
    barrier_expect(&shared_.columns_full, brings ? copies.bytes(params_) / kBlocks * kColumnBlocks : 0);
    if (!brings) return;
    copies.run(params_, tail_, table_, page, [&](int offset, const CUtensorMap* map, int32_t row) {
      for (int i = 0; i < kColumnBlocks; ++i) {
        copy_tile(columns_of(warp_, i) + offset, map, &shared_.columns_full, (rank_ * kColumnBlocks + i) * 64,
                  row);
      }
    });
  }

  // To the same place of the other CTAs, counted by their barriers; by a warp of the warpgroup, a lane each.
  __device__ void push(int by, const void* from, uint32_t bytes, uint64_t* barrier) const {
    if (warp_ % (kWarps / kGroups) == by && lane_ < kCluster && lane_ != rank_)
      push_to(static_cast<uint32_t>(lane_), from, bytes, barrier);
  }

  // The scores of the warpgroup's tile, and their maxima.
  __device__ void score(float (&scores)[32], int first, uint32_t parity) {
    barrier_wait(&shared_.queries_full, parity);
    barrier_wait(&shared_.entries_full[group_], parity);
    score_tile(scores, shared_.queries[0], shared_.entries[group_][0], item_.end - begin_of(first + own_),
               lane_);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float top = top_of(scores, half);
      if (lane_ % 4 == 0) shared_.tops[parity][own_][row_ + 8 * half] = top * params_.scale;
    }
  }

  // For the thread's rows, the factors that bring what was summed before a tile to the maximum with it.
  __device__ void follow_tops(float (&rescale)[kTiles][2], int first, int here, uint32_t parity) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        float top = top_[half];
        if (tile < here) top = fmaxf(shared_.tops[parity][tile][row_ + 8 * half], top);
        rescale[tile][half] = first + tile > 0 ? exp2_fast(top_[half] - top) : 0.0F;
        top_[half] = top;
      }
    }
  }

  // The warpgroup's tile's weights, to all.
  __device__ void weigh(const float (&scores)[32], uint32_t parity) {
    unsigned char* weights = shared_.queries[own_];
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_ + 8 * half;
      float top = top_[half];
#pragma unroll
      for (int tile = 0; tile < kTiles; ++tile) {
        if (tile <= own_) top = fmaxf(shared_.tops[parity][tile][row], top);
      }
      shared_.sums()[own_][row][lane_ % 4] =
          store_weights(weights, row, lane_, scores, half, params_.scale, top);
    }
    fence_async();
    named_barrier_sync(1 + group_, 128);
    push(0, weights, kBlockBytes, &shared_.weights_full);
    push(1, shared_.sums()[own_], sizeof(shared_.sums()[0]), &shared_.weights_full);
  }

  // Places after the sequence's end have weight zero, but must not meet a NaN there.
  __device__ void clear_columns(int first, int here) {
    const int count = item_.end - begin_of(first + here - 1);
    if (count >= kKeys) return;
    unsigned char* columns = columns_of(here - 1, group_);
    for (int i = static_cast<int>(threadIdx.x) % 128; i < (kKeys - count) * 8; i += 128)
      *reinterpret_cast<uint4*>(columns + swizzled(count + i / 8, i % 8)) = uint4{};
  }

  __device__ void add(float (&values)[32], const float (&rescale)[kTiles][2], int first, int here) {
#pragma unroll
    for (int tile = 0; tile < kTiles; ++tile) {
      if (tile >= here) break;
      const bool fresh = first + tile == 0;
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float factor = rescale[tile][half];
        if (tile % kGroups == group_) {
          sum_[half] = fmaf(sum_[half], factor, shared_.sums()[tile][row_ + 8 * half][lane_ % 4]);
        } else if (!fresh) {
          sum_[half] *= factor;
        }
        if (fresh) continue;
#pragma unroll
        for (int j = 0; j < 16; ++j) values[j / 2 * 4 + half * 2 + j % 2] *= factor;
      }
      const uint64_t weights = wgmma_tile(shared_.queries[tile]);
      const uint64_t columns = wgmma_columns_tile(columns_of(tile, group_), kBlockBytes);
      settle(values);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kKeys / 16; ++k)
        wgmma_shared_values_n64(values, weights + k * 2, columns + k * (2048 / 16), !fresh || k > 0);
      wgmma_commit();
      wgmma_wait<0>();
      settle(values);
    }
  }

  __device__ void finish(float (&sum)[2]) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      float part = sum_[half];
      part += __shfl_xor_sync(0xffffffffU, part, 1);
      part += __shfl_xor_sync(0xffffffffU, part, 2);
      if (lane_ % 4 == 0) shared_.group_sums[group_][row_ + 8 * half] = part;
    }
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; ++half)
      sum[half] = shared_.group_sums[0][row_ + 8 * half] + shared_.group_sums[1][row_ + 8 * half];
  }

  __device__ void write(const float (&values)[32], const float (&sum)[2]) const {
    const int heads = min(kHeads, params_.heads - first_head_);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_ + 8 * half;
      if (row >= heads) continue;
      const int head = first_head_ + row;
      const int64_t column = int64_t{head} * kLatent + (rank_ * kColumnBlocks + group_) * 64 + lane_ % 4 * 2;
      const float inverse = __frcp_rn(sum[half]);
#pragma unroll
      for (int j = 0; j < 8; ++j) {
        const float a = values[j * 4 + half * 2], b = values[j * 4 + half * 2 + 1];
        if (item_.slot < 0) {
          *reinterpret_cast<uint32_t*>(params_.out + item_.token * params_.out_stride + column + j * 8) =
              pack_bf16(__fmul_rn(a, inverse), __fmul_rn(b, inverse));
        } else {
          *reinterpret_cast<float2*>(params_.workspace.partial +
                                     int64_t{item_.slot} * params_.heads * kLatent + column + j * 8) =
              make_float2(a, b);
        }
      }
      if (item_.slot >= 0 && rank_ == 0 && group_ == 0 && lane_ % 4 == 0)
        params_.workspace.stats[int64_t{item_.slot} * params_.heads + head] =
            make_float2(top_[half], sum[half]);
    }
  }

  Shared& shared_;
  const Params& params_;
  const SplitItem item_;
  const TokenTail tail_;
  const int32_t* table_;
  const int first_head_, rank_, group_, warp_, lane_, row_;
  const int own_;                          // the warpgroup's tile of a round
  float top_[2] = {-INFINITY, -INFINITY};  // of the unit so far
  float sum_[2] = {0.0F, 0.0F};            // of the weights of every other tile, the thread's share
};

__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    mla_decode_few_kernel(const __grid_constant__ Params params) {
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    barrier_init(&shared.queries_full, 1);
    for (uint64_t& barrier : shared.entries_full) barrier_init(&barrier, 1);
    barrier_init(&shared.tops_full, 1);
    barrier_init(&shared.columns_full, kWarps);
    barrier_init(&shared.weights_full, 1);
    barrier_init_fence();
  }
  cluster_sync();
  device::cuda::let_next_start();  // as mla_decode_narrow_kernel
  make_split_plan(shared.plan, params.positions, params.slots, params.tokens, params.workspace);
  const int index = static_cast<int>(blockIdx.x) / kCluster;
  if (index >= shared.plan.items * params.groups) return;  // the whole cluster
  const SplitItem item = split_item(shared.plan, params.tokens, index / params.groups);
  Unit(shared, params, item, index % params.groups * kHeads).run();
  cluster_sync();  // the others have what they were sent from here
}

int64_t blocks(const MlaDecodeArgs& args, SplitUnits units) {
  return kCluster * units.most * args.batch.tokens * ceil_div<int64_t>(args.heads, kHeads);
}

}  // namespace

bool mla_decode_few_takes(const device::cuda::Gpu& gpu, const MlaDecodeArgs& args) {
  return mla_decode_wide_takes(gpu, args) && blocks(args, kLargeUnits) <= gpu.multiprocessors;
}

void mla_decode_few(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                    const SplitWorkspace& workspace) {
  const Params params = make_params(stream, args, workspace);
  // So few queries that each unit is an item.
  FATHOM_CHECK(workspace.units.most * args.batch.tokens < workspace.items_wanted,
               "{} tokens, {} items wanted", args.batch.tokens, workspace.items_wanted);
  static device::cuda::SharedMemory memory;
  if (!memory.allow(stream, &mla_decode_few_kernel, kSharedBytes)) return;
  device::cuda::launch_early(stream, &mla_decode_few_kernel,
                             dim3(static_cast<unsigned>(blocks(args, workspace.units))), dim3(kThreads),
                             kSharedBytes, params);
  stream.launched("mla_decode");
}

}  // namespace fathom::ops::cuda
