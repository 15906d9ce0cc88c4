// mla_decode for many heads (V3: 128), where the tensor cores are what binds: 64 heads are the rows of wgmma
// tiles of 64 entries. Of four warpgroups one brings tiles with the copy engine, two at a time; one turns a
// tile into weights; two sum half of the 512 columns of the values each, of the tile before it. A tile comes
// and goes in two parts, so that the next one's scores begin before it is whole. Two CTAs with different
// heads of one query form a cluster and share the tiles that they bring.
#include <type_traits>
#include <utility>

#include "base/check.h"
#include "device/cuda/shared_memory.h"
#include "ops/mla_decode/wide.cuh"

namespace fathom::ops::cuda {
namespace {

using namespace wide;  // NOLINT: its own

constexpr int kThreads = 512;
constexpr int kSummers = 256;  // threads that sum values
constexpr int kStages = 2;
constexpr int kParts = 2;                // of a tile: what the summers are done with first, and the rest
constexpr int kRopeBlock = kBlocks - 1;  // once a tile's scores are known, its weights take this one's place
constexpr int kFolded = 8;               // groups of four values that come back at once to be folded
constexpr int kKept = 16;                // steps of the queries' columns that the weigher keeps in registers

// Named barriers: of the weigher's threads, and kSummer + a warpgroup's index of those of one that sums.
constexpr int kWeighers = 1, kSummer = 2;

struct Shared {
  unsigned char q[kBlocks][kBlockBytes];
  unsigned char tiles[kStages][kBlocks][kBlockBytes];
  float rescale[kStages][kHeads];          // what was summed before the stage's tile is multiplied by it
  float tops[2][kHeads], sums[2][kHeads];  // of a unit; by its parity
  uint64_t full[kStages][kParts], empty[kStages][kParts];
  uint64_t weighed[kStages], followed[kStages];  // what goes with the weights has been written, has been read
  uint64_t q_full, q_empty;
  SplitPlan plan;
};
constexpr int kSharedBytes = sizeof(Shared) + 1024;  // and room to align
static_assert(kSharedBytes <= 227 << 10);

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

// By one lane of each of four warps, which share out a tile's blocks of columns; of two CTAs each brings half
// of them to both.
template <int kCluster>
class Producer {
 public:
  __device__ Producer(Shared& shared, const Params& params)
      : shared_(shared), params_(params), warp_(static_cast<int>(threadIdx.x) % 128 / 32) {}

  __device__ void run() {
    const Turns<kCluster> turns(params_, shared_.plan);
    uint32_t items = 0;
    for (int index = turns.first; turns.has(shared_.plan, index); index += turns.step, ++items) {
      const SplitItem item = turns.item(shared_.plan, index);
      const int32_t* table = params_.block_tables + item.sequence * params_.table_stride;
      const TokenTail tail = tail_of(params_.branches, item.token);
      // The place that `begin` is in its page, and that page's entry of the table.
      int in_page = item.begin % params_.page_size;
      const int32_t* page = table + item.begin / params_.page_size;
      for (int begin = item.begin; begin < item.end; begin += kKeys) {
        if (params_.box_rows == kKeys && min(begin + kKeys, item.end) <= tail.start) {
          const int row = *page * params_.page_size + in_page;
          bring(kKeys * 128, turns.rank, [&](const auto& copy) { copy(0, &params_.cache, row); });
        } else {
          const TileCopies copies(params_, tail, begin, item.end);
          bring(copies.bytes(params_) / kBlocks, turns.rank,
                [&](const auto& copy) { copies.run(params_, tail, table, *page, copy); });
        }
        in_page += kKeys;
        while (in_page >= params_.page_size) {
          in_page -= params_.page_size;
          ++page;
        }
        if (begin > item.begin) continue;
        // Once the last item's scores are there, while its outputs are still summed.
        barrier_wait(&shared_.q_empty, (items & 1) ^ 1);
        if (warp_ == 0) barrier_expect(&shared_.q_full, kBlocks * kBlockBytes);
        for (int i = warp_; i < kBlocks; i += 4)
          copy_tile(shared_.q[i], &params_.queries, &shared_.q_full, i * 64, turns.first_head(index),
                    item.token);
      }
    }
    if constexpr (kCluster > 1) {
      if (warp_ == 0) wait_for_last_releases();
    }
  }

 private:
  // The warp's share of a tile of block_bytes a block: run(copy) copies all of a block's rows.
  template <class Run>
  __device__ void bring(uint32_t block_bytes, int rank, const Run& run) {
    uint64_t* full = shared_.full[ring_.stage];
    uint64_t* empty = shared_.empty[ring_.stage];
    if (warp_ == 0) {
      barrier_wait(&empty[0], ring_.phase ^ 1);
      barrier_expect(&full[0], block_bytes * kFirstBlocks);
    }
#pragma unroll 1
    for (int at = warp_ * kCluster + rank; at < kBlocks; at += 4 * kCluster) {
      const int part = at < kFirstBlocks ? 0 : 1, block = block_in_order(at);
      unsigned char* to = shared_.tiles[ring_.stage][block];
      barrier_wait(&empty[part], ring_.phase ^ 1);
      run([&](int offset, const CUtensorMap* map, int32_t row) {
        if constexpr (kCluster > 1)
          copy_tile_to_cluster_once(to + offset, map, &full[part], block * 64, row, (1 << kCluster) - 1);
        else
          copy_tile_once(to + offset, map, &full[part], block * 64, row);
      });
    }
    if (warp_ == 0) {
      barrier_wait(&empty[1], ring_.phase ^ 1);
      barrier_expect(&full[1], block_bytes * (kBlocks - kFirstBlocks));
    }
    ring_.next();
    ++tiles_;
  }

  // As wait_for_releases (ops/wgmma.cuh).
  __device__ void wait_for_last_releases() const {
    for (int part = 0; part < kParts; ++part) {
      for (int tile = max(tiles_ - kStages, 0); tile < tiles_; ++tile)
        barrier_wait(&shared_.empty[tile % kStages][part], static_cast<uint32_t>(tile / kStages) & 1U);
    }
  }

  Shared& shared_;
  const Params& params_;
  const int warp_;
  Ring<kStages> ring_;
  int tiles_ = 0;
};

// Of the 64 heads, a thread has rows lane / 4 and that + 8 of its warp's sixteen.
template <int kCluster>
class Weigher {
 public:
  __device__ Weigher(Shared& shared, const Params& params)
      : shared_(shared),
        params_(params),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4) {}

  __device__ void run() {
    const Turns<kCluster> turns(params_, shared_.plan);
    uint32_t items = 0, units = 0;
    for (int index = turns.first; turns.has(shared_.plan, index); index += turns.step, ++items) {
      const SplitItem item = turns.item(shared_.plan, index);
      barrier_wait(&shared_.q_full, items & 1U);
      const int row = row_ - lane_ / 4 + lane_ % 16;
#pragma unroll
      for (int i = 0; i < kKept; ++i) {
        load_matrix4(queries_[i], shared_address(shared_.q[block_in_order(i / 4)]) +
                                      static_cast<uint32_t>(swizzled(row, i % 4 * 2 + lane_ / 16)));
      }
      for (int begin = item.begin; begin < item.end; begin += item.unit_places, ++units)
        weigh_unit(begin, min(begin + item.unit_places, item.end), item.end, units % 2);
    }
  }

 private:
  __device__ void weigh_unit(int begin, int end, int item_end, uint32_t parity) {
    float top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    for (int place = begin; place < end; place += kKeys) {
      float scores[32];
      score(scores);
      // All warps have read the tile and the queries: the weights take the rope columns' place.
      named_barrier_sync(kWeighers, 128);
      if (place + kKeys >= item_end && threadIdx.x % 128 == 0) barrier_arrive(&shared_.q_empty);
      mask_scores(scores, item_end - place, lane_);
      float rescale[2], parts[2], tops[2];
      tops_of(tops, scores);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const float old = top[half];
        top[half] = fmaxf(tops[half] * params_.scale, old);
        rescale[half] = place > begin ? exp2_fast(old - top[half]) : 0.0F;
      }
      uint32_t weights[2][8];
      weights_of(weights, parts, scores, params_.scale, top);
      barrier_wait(&shared_.followed[ring_.stage], ring_.phase ^ 1);
      store_weights(shared_.tiles[ring_.stage][kRopeBlock], row_, lane_, weights);
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        sum[half] = fmaf(sum[half], rescale[half], parts[half]);
        if (lane_ % 4 == 0) shared_.rescale[ring_.stage][row_ + 8 * half] = rescale[half];
      }
      if (place + kKeys >= end) publish(top, sum, parity);
      fence_async();
      __syncwarp();
      if (lane_ % 4 == 0) barrier_arrive(&shared_.weighed[ring_.stage]);
      ring_.next();
    }
  }

  __device__ void score(float (&scores)[32]) {
    const uint64_t q = wgmma_tile(shared_.q[0]), k = wgmma_tile(shared_.tiles[ring_.stage][0]);
    barrier_wait(&shared_.full[ring_.stage][0], ring_.phase);
    settle(scores);
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < kWidth / 16; ++i) {
      const uint64_t at = block_in_order(i / 4) * (kBlockBytes / 16) + i % 4 * 2;
      if (i == kFirstBlocks * 4) barrier_wait(&shared_.full[ring_.stage][1], ring_.phase);
      if (i < kKept)
        wgmma_registers(scores, queries_[i], k + at, i > 0);
      else
        wgmma_shared(scores, q + at, k + at, true);
    }
    wgmma_commit();
    wgmma_wait<0>();
    settle(scores);
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
  const int lane_, row_;
  Ring<kStages> ring_;
  uint32_t queries_[kKept][4];
};

// Sums kHalves * 256 columns of the values, half of them each warpgroup. Rows as a Weigher's.
template <int kCluster, int kHalves>
class Summer {
 public:
  __device__ Summer(Shared& shared, const Params& params, float4* aside)
      : shared_(shared),
        params_(params),
        aside_(aside + int64_t{blockIdx.x} * 32 * kSummers + threadIdx.x % kSummers),
        group_(static_cast<int>(threadIdx.x) % kSummers / 128),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4),
        their_empty_(cluster_address(shared.empty, static_cast<uint32_t>(lane_ % kCluster))) {}

  __device__ void run() {
    float values[kHalves][64];
    const Turns<kCluster> turns(params_, shared_.plan);
    uint32_t units = 0;
    for (int index = turns.first; turns.has(shared_.plan, index); index += turns.step) {
      const SplitItem item = turns.item(shared_.plan, index);
      first_block_ = (turns.part(index) * 2 + group_) * 2 * kHalves;
      float top[2], sum[2];  // folded
      for (int begin = item.begin; begin < item.end; begin += item.unit_places, ++units) {
        const int end = min(begin + item.unit_places, item.end);
        float unit_top[2], unit_sum[2];
        add_unit(values, unit_top, unit_sum, end - begin, units % 2);
        if (begin > item.begin) {
          fold(values, top, sum, unit_top, unit_sum);
        } else {
#pragma unroll
          for (int i = 0; i < 2; ++i) top[i] = unit_top[i], sum[i] = unit_sum[i];
        }
        if (end < item.end) put_aside(values);
      }
      write(values, top, sum, item, turns.first_head(index));
    }
  }

 private:
  __device__ void add_unit(float (&values)[kHalves][64], float (&top)[2], float (&sum)[2], int places,
                           uint32_t parity) {
    for (int done = 0; done < places; done += kKeys) {
      unsigned char(&tile)[kBlocks][kBlockBytes] = shared_.tiles[ring_.stage];
      barrier_wait(&shared_.full[ring_.stage][0], ring_.phase);
      barrier_wait(&shared_.full[ring_.stage][1], ring_.phase);
      barrier_wait(&shared_.weighed[ring_.stage], ring_.phase);
      if (places - done < kKeys) clear_rows(tile, places - done);
      float rescale[2];
      read_rows(rescale, shared_.rescale[ring_.stage]);
      const uint64_t weights = wgmma_tile(tile[kRopeBlock]);
#pragma unroll
      for (int half = 0; half < kHalves; ++half) {
        if (done > 0) {
#pragma unroll
          for (int i = 0; i < 64; ++i) values[half][i] *= rescale[i / 2 % 2];
        }
        const uint64_t columns = wgmma_columns_tile(tile[first_block_ + half * 2], kBlockBytes);
        settle(values[half]);
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kKeys / 16; ++k) {
          wgmma_shared<true>(values[half], weights + k * 2, columns + k * (2048 / 16), done > 0 || k > 0);
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
        read_rows(top, shared_.tops[parity]);
        read_rows(sum, shared_.sums[parity]);
      }
      if (lane_ % 4 == 0) barrier_arrive(&shared_.followed[ring_.stage]);
      release(1);
      ring_.next();
    }
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
    if (lane_ < kCluster)
      barrier_arrive_at(their_empty_ +
                        static_cast<uint32_t>((ring_.stage * kParts + part) * sizeof(uint64_t)));
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

  // Groups of four values: group i is values[i / 16][i % 16 * 4] and the next three.
  using Groups = std::make_integer_sequence<int, 16 * kHalves>;
  static constexpr int kGroupStride = kSummers * 16;  // bytes between a thread's groups aside

  __device__ void put_aside(const float (&values)[kHalves][64]) const {
    const uint64_t policy = keep_policy();
    [&]<int... i>(std::integer_sequence<int, i...>) {
      (store_kept<i * kGroupStride>(aside_, values[i / 16] + i % 16 * 4, policy), ...);
    }(Groups());
  }
  // What was put aside, with the unit in `values` folded into it.
  __device__ void fold(float (&values)[kHalves][64], float (&top)[2], float (&sum)[2],
                       const float (&unit_top)[2], const float (&unit_sum)[2]) const {
    const Fold folds[2] = {Fold(top[0], unit_top[0]), Fold(top[1], unit_top[1])};
    const uint64_t policy = keep_policy();
    const auto fold_group = [&]<int i>(std::integral_constant<int, i>) {
      if constexpr (i % kFolded == 0) __syncwarp();  // no more of them in registers at once
      const float4 old = load_kept<i * kGroupStride>(aside_, policy);
      float* value = values[i / 16] + i % 16 * 4;
      value[0] = folds[0](old.x, value[0]);
      value[1] = folds[0](old.y, value[1]);
      value[2] = folds[1](old.z, value[2]);
      value[3] = folds[1](old.w, value[3]);
    };
    [&]<int... i>(std::integer_sequence<int, i...>) {
      (fold_group(std::integral_constant<int, i>()), ...);
    }(Groups());
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sum[i] = folds[i](sum[i], unit_sum[i]);
      top[i] = folds[i].top;
    }
  }

  __device__ void write(const float (&values)[kHalves][64], const float (&top)[2], const float (&sum)[2],
                        const SplitItem& item, int first_head) const {
    const int heads = min(kHeads, params_.heads - first_head);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = row_ + 8 * i, head = first_head + row;
      if (item.slot < 0) {
        // Four lanes together have eight columns of a row in each of four places; each gets those of one
        // place.
        const float inverse = __frcp_rn(sum[i]);
        __nv_bfloat16* to = params_.out + item.token * params_.out_stride + int64_t{head} * kLatent +
                            first_block_ * 64 + lane_ % 4 * 8;
#pragma unroll
        for (int j = 0; j < 16 * kHalves; j += 4) {
          uint32_t words[4];
#pragma unroll
          for (int k = 0; k < 4; ++k) {
            const float* value = values[j / 16] + (j + k) % 16 * 4 + i * 2;
            words[k] = pack_bf16(__fmul_rn(value[0], inverse), __fmul_rn(value[1], inverse));
          }
          transpose_quad(words);
          if (row < heads)
            *reinterpret_cast<uint4*>(to + j * 8) = make_uint4(words[0], words[1], words[2], words[3]);
        }
      } else if (row < heads) {
        float* to = params_.workspace.partial + (int64_t{item.slot} * params_.heads + head) * kLatent +
                    first_block_ * 64 + lane_ % 4 * 2;
#pragma unroll
        for (int j = 0; j < 16 * kHalves; ++j) {
          const float* value = values[j / 16] + j % 16 * 4 + i * 2;
          *reinterpret_cast<float2*>(to + j * 8) = make_float2(value[0], value[1]);
        }
        if (first_block_ == 0 && lane_ % 4 == 0)
          params_.workspace.stats[int64_t{item.slot} * params_.heads + head] = make_float2(top[i], sum[i]);
      }
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
  float4* aside_;  // what is folded so far: [CTAs, 32, kSummers]
  const int group_, lane_, row_;
  const uint32_t their_empty_;
  int first_block_ = 0;  // of the warpgroup's columns
  Ring<kStages> ring_;
};

template <int kCluster>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    mla_decode_wide_kernel(const __grid_constant__ Params params, float4* aside) {
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      for (int part = 0; part < kParts; ++part) {
        barrier_init(&shared.full[i][part], 1);
        barrier_init(&shared.empty[i][part], kSummers / 32 * kCluster);
      }
      barrier_init(&shared.weighed[i], 4 * 8);
      barrier_init(&shared.followed[i], kSummers / 32 * 8);
    }
    barrier_init(&shared.q_full, 1);
    barrier_init(&shared.q_empty, 1);
    barrier_init_fence();
  }
  if constexpr (kCluster > 1) cluster_sync();
  device::cuda::let_next_start();  // as mla_decode_narrow_kernel
  make_split_plan(shared.plan, params.positions, params.slots, params.tokens, params.workspace);
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 0) {
    fewer_registers<24>();
    if (threadIdx.x % 32 == 0) Producer<kCluster>(shared, params).run();
  } else if (group == 1) {
    more_registers<136>();
    Weigher<kCluster>(shared, params).run();
  } else {
    more_registers<176>();
    if (Turns<kCluster>(params, shared.plan).parts == 1)
      Summer<kCluster, 2>(shared, params, aside).run();
    else
      Summer<kCluster, 1>(shared, params, aside).run();
  }
}

}  // namespace

bool mla_decode_wide_takes(const device::cuda::Gpu& gpu, const MlaDecodeArgs& args) {
  using device::DType;
  const int64_t page = args.cache.page_size;
  return gpu.hopper() && args.heads > 48 && args.latent == kLatent && args.cache.width == kWidth &&
         args.q.dtype == DType::kBF16 && args.out.dtype == DType::kBF16 && args.cache.dtype == DType::kBF16 &&
         args.q.stride % 8 == 0 && args.out.stride % 8 == 0 &&
         reinterpret_cast<uintptr_t>(args.out.data) % 16 == 0 &&
         (page == 8 || page == 16 || page == 32 || page % 64 == 0);
}

int64_t mla_decode_wide_items(const device::cuda::Gpu& gpu, int64_t heads) {
  return ceil_div<int64_t>(gpu.multiprocessors * 3 / 4, ceil_div<int64_t>(heads, kHeads));
}
int64_t mla_decode_wide_scratch(const device::cuda::Gpu& gpu) {
  return int64_t{gpu.multiprocessors} * kHeads * kLatent * 4;
}

void mla_decode_wide(device::cuda::Stream& stream, const MlaDecodeArgs& args, const SplitWorkspace& workspace,
                     void* scratch) {
  const Params params = make_params(stream, args, workspace);
  auto* aside = static_cast<float4*>(scratch);
  const int64_t most_items = workspace.units.most * args.batch.tokens * params.groups;
  const auto launch = [&]<int kCluster>(std::integral_constant<int, kCluster>) {
    auto* kernel = &mla_decode_wide_kernel<kCluster>;
    static device::cuda::SharedMemory memory;
    if (!memory.allow(stream, kernel, kSharedBytes)) return;
    const int64_t grid =
        std::min<int64_t>(stream.gpu().multiprocessors, 2 * most_items) / kCluster * kCluster;
    device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(grid)), dim3(kThreads),
                               kSharedBytes, params, aside);
  };
  if (params.groups % 2 == 0)
    launch(std::integral_constant<int, 2>());
  else
    launch(std::integral_constant<int, 1>());
  stream.launched("mla_decode");
}

}  // namespace fathom::ops::cuda
