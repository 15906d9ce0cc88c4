// mla_decode for many heads (V3: 128), where the tensor cores are what binds: 64 heads are the rows of wgmma
// tiles. One thread brings tiles of 64 entries with the copy engine, two at a time. Two warpgroups take turns
// in computing a tile's weights, and each has half of the 512 columns of the values. Two CTAs with different
// heads of one query form a cluster and share the tiles that they bring.
#include <type_traits>

#include "base/check.h"
#include "device/cuda/shared_memory.h"
#include "ops/mla_decode/wide.cuh"

namespace fathom::ops::cuda {
namespace {

using namespace wide;  // NOLINT: its own

constexpr int kConsumers = 256;
constexpr int kThreads = kConsumers + 128;
constexpr int kStages = 2;
constexpr int kRopeBlock = kBlocks - 1;  // once a tile's scores are known, its weights take this one's place

struct Shared {
  unsigned char q[kBlocks][kBlockBytes];
  unsigned char keys[kStages][kBlocks][kBlockBytes];
  float tops[2][kHeads], rescale[2][kHeads];  // by the tile's parity
  float sums[2][kHeads];                      // by warpgroup
  uint64_t full[kStages], empty[kStages];
  uint64_t q_full, q_empty;
  SplitPlan plan;
};
constexpr int kSharedBytes = sizeof(Shared) + 1024;  // and room to align
static_assert(kSharedBytes <= 227 << 10);

// What the CTAs of a cluster do in turns: items for as many groups of heads as there are CTAs.
template <int kCluster>
struct Turns {
  const Params& params;
  const int rank, pairs, first, step;

  __device__ explicit Turns(const Params& all)
      : params(all),
        rank(kCluster > 1 ? static_cast<int>(rank_in_cluster()) : 0),
        pairs(all.groups / kCluster),
        first(static_cast<int>(blockIdx.x) / kCluster),
        step(static_cast<int>(gridDim.x) / kCluster) {}

  __device__ bool has(const SplitPlan& plan, int index) const { return index < plan.items * pairs; }
  __device__ SplitItem item(const SplitPlan& plan, int index) const {
    return split_item(plan, params.tokens, index / pairs);
  }
  __device__ int first_head(int index) const { return (index % pairs * kCluster + rank) * kHeads; }
};

// Of two CTAs each brings half of a tile's columns to both.
template <int kCluster>
__device__ void produce(Shared& shared, const Params& params) {
  const Turns<kCluster> turns(params);
  const auto copy = [&](unsigned char(&to)[kBlocks][kBlockBytes], int offset, const CUtensorMap* map,
                        uint64_t* full, int32_t row) {
#pragma unroll
    for (int i = 0; i < kBlocks; ++i) {
      if (i % kCluster != turns.rank) continue;
      if constexpr (kCluster > 1)
        copy_tile_to_cluster_once(to[i] + offset, map, full, i * 64, row, (1 << kCluster) - 1);
      else
        copy_tile_once(to[i] + offset, map, full, i * 64, row);
    }
  };
  int tile = 0;
  uint32_t items = 0;
  for (int index = turns.first; turns.has(shared.plan, index); index += turns.step, ++items) {
    const SplitItem item = turns.item(shared.plan, index);
    const int32_t* table = params.block_tables + item.sequence * params.table_stride;
    const TokenTail tail = tail_of(params.branches, item.token);
    for (int begin = item.begin; begin < item.end; begin += kKeys, ++tile) {
      const int stage = tile % kStages;
      const int page = table[begin / params.page_size];
      barrier_wait(&shared.empty[stage], (static_cast<uint32_t>(tile / kStages) & 1U) ^ 1);
      const TileCopies copies(params, tail, begin, item.end);
      barrier_expect(&shared.full[stage], copies.bytes(params));
      copies.run(params, tail, table, page, [&](int offset, const CUtensorMap* map, int32_t row) {
        copy(shared.keys[stage], offset, map, &shared.full[stage], row);
      });
      if (begin > item.begin) continue;
      // Once the last item's scores are there, while its outputs are still summed.
      barrier_wait(&shared.q_empty, (items & 1) ^ 1);
      barrier_expect(&shared.q_full, kBlocks * kBlockBytes);
#pragma unroll
      for (int i = 0; i < kBlocks; ++i) {
        copy_tile(shared.q[i], &params.queries, &shared.q_full, i * 64, turns.first_head(index), item.token);
      }
    }
  }
  if constexpr (kCluster > 1) wait_for_releases<kStages>(shared.empty, tile);
}

// A thread has rows lane / 4 and that + 8 of its warp's sixteen.
template <int kCluster>
class Consumer {
 public:
  __device__ Consumer(Shared& shared, const Params& params, float4* aside)
      : shared_(shared),
        params_(params),
        aside_(aside + int64_t{blockIdx.x} * 32 * kConsumers + threadIdx.x),
        group_(static_cast<int>(threadIdx.x) / 128),
        lane_(static_cast<int>(threadIdx.x) % 32),
        row_(static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4),
        their_empty_(cluster_address(shared.empty, static_cast<uint32_t>(lane_ % kCluster))) {}

  __device__ void run() {
    float values[2][64];  // of the warpgroup's columns, the lower and the upper 128
    const Turns<kCluster> turns(params_);
    for (int index = turns.first; turns.has(shared_.plan, index); index += turns.step) {
      const SplitItem item = turns.item(shared_.plan, index);
      const int first_head = turns.first_head(index);
      const int heads = min(kHeads, params_.heads - first_head);
      barrier_wait(&shared_.q_full, items_++ & 1);
      float top[2], sum[2];  // folded
      for (int begin = item.begin; begin < item.end; begin += item.unit_places) {
        const int end = min(begin + item.unit_places, item.end);
        add_unit(values, begin, end, end == item.end);
        float unit_top[2], unit_sum[2];
        finish_unit((end - begin + kKeys - 1) / kKeys, unit_top, unit_sum);
        if (begin > item.begin) {
          fold(values, top, sum, unit_top, unit_sum);
        } else {
#pragma unroll
          for (int i = 0; i < 2; ++i) top[i] = unit_top[i], sum[i] = unit_sum[i];
        }
        if (end < item.end) put_aside(values);
      }
      write(values, top, sum, item, first_head, heads);
    }
  }

 private:
  __device__ void synchronize() const { named_barrier_sync(1, kConsumers); }

  __device__ void add_unit(float (&values)[2][64], int begin, int end, bool last_of_item) {
    sum_[0] = sum_[1] = 0;
    for (int i = 0; begin + i * kKeys < end; ++i) {
      const int stage = tile_ % kStages;
      const int count = end - begin - i * kKeys;
      unsigned char(&keys)[kBlocks][kBlockBytes] = shared_.keys[stage];
      barrier_wait(&shared_.full[stage], static_cast<uint32_t>(tile_ / kStages) & 1U);
      const bool mine = i % 2 == group_;
      if (mine)
        weigh(keys, i, count);
      else if (count < kKeys)
        clear_rows(keys, count);
      fence_async();
      synchronize();
      if (last_of_item && count <= kKeys && threadIdx.x == 0) barrier_arrive(&shared_.q_empty);
      if (i > 0) {
#pragma unroll
        for (int row = 0; row < 2; ++row) {
          const float rescale = shared_.rescale[i % 2][row_ + 8 * row];
          if (!mine) sum_[row] *= rescale;
#pragma unroll
          for (int j = 0; j < 32; ++j) {
            const int at = j / 2 * 4 + row * 2 + j % 2;
            values[0][at] *= rescale;
            values[1][at] *= rescale;
          }
        }
      }
      const uint64_t weights = wgmma_tile(keys[kRopeBlock]);
      settle(values[0]);
      settle(values[1]);
      wgmma_fence();
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint64_t columns = wgmma_columns_tile(keys[group_ * 4 + half * 2], kBlockBytes);
#pragma unroll
        for (int k = 0; k < kKeys / 16; ++k) {
          wgmma_shared_values_n128(values[half], weights + k * 2, columns + k * (2048 / 16), i > 0 || k > 0);
        }
      }
      wgmma_commit();
      wgmma_wait<0>();
      settle(values[0]);
      settle(values[1]);
      if (lane_ < kCluster) barrier_arrive_at(their_empty_ + static_cast<uint32_t>(stage * sizeof(uint64_t)));
      ++tile_;
    }
  }

  // Places after the sequence's end have weight zero, but must not meet a NaN there.
  __device__ void clear_rows(unsigned char (&keys)[kBlocks][kBlockBytes], int count) const {
    for (int i = static_cast<int>(threadIdx.x) % 128; i < (kKeys - count) * 8 * (kLatent / 64); i += 128) {
      const int block = i % (kLatent / 64), chunk = i / (kLatent / 64) % 8;
      const int row = count + i / (kLatent / 8);
      *reinterpret_cast<uint4*>(keys[block] + swizzled(row, chunk)) = uint4{};
    }
  }

  // The weights of tile i of the unit, the first `count` of whose places count.
  __device__ void weigh(unsigned char (&keys)[kBlocks][kBlockBytes], int i, int count) {
    float scores[32];
    score_tile(scores, shared_.q[0], keys[0], count, lane_);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = row_ + 8 * half;
      float top = top_of(scores, half) * params_.scale;
      float rescale = 0;
      if (i > 0) {
        const float old = shared_.tops[(i - 1) % 2][row];
        top = fmaxf(top, old);
        rescale = exp2_fast(old - top);
      }
      const float sum = store_weights(keys[kRopeBlock], row, lane_, scores, half, params_.scale, top);
      sum_[half] = fmaf(sum_[half], rescale, sum);
      if (lane_ % 4 == 0) {
        shared_.tops[i % 2][row] = top;
        shared_.rescale[i % 2][row] = rescale;
      }
    }
  }

  // The maxima and sums of a unit of `tiles` tiles.
  __device__ void finish_unit(int tiles, float (&top)[2], float (&sum)[2]) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float part = sum_[i];
      part += __shfl_xor_sync(0xffffffffU, part, 1);
      part += __shfl_xor_sync(0xffffffffU, part, 2);
      if (lane_ % 4 == 0) shared_.sums[group_][row_ + 8 * i] = part;
      top[i] = shared_.tops[(tiles - 1) % 2][row_ + 8 * i];
    }
    synchronize();
#pragma unroll
    for (int i = 0; i < 2; ++i) sum[i] = shared_.sums[0][row_ + 8 * i] + shared_.sums[1][row_ + 8 * i];
  }

  __device__ void put_aside(const float (&values)[2][64]) const {
    float4* to = aside_;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const float* from = values[i / 16] + i % 16 * 4;
      store_kept(to + i * kConsumers, make_float4(from[0], from[1], from[2], from[3]));
    }
  }
  // What was put aside, with the unit in `values` folded into it.
  __device__ void fold(float (&values)[2][64], float (&top)[2], float (&sum)[2], const float (&unit_top)[2],
                       const float (&unit_sum)[2]) const {
    const Fold folds[2] = {Fold(top[0], unit_top[0]), Fold(top[1], unit_top[1])};
    const float4* from = aside_;
#pragma unroll
    for (int i = 0; i < 32; ++i) {
      const float4 old = load_kept(from + i * kConsumers);
      float* value = values[i / 16] + i % 16 * 4;
      value[0] = folds[0](old.x, value[0]);
      value[1] = folds[0](old.y, value[1]);
      value[2] = folds[1](old.z, value[2]);
      value[3] = folds[1](old.w, value[3]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sum[i] = folds[i](sum[i], unit_sum[i]);
      top[i] = folds[i].top;
    }
  }

  __device__ void write(const float (&values)[2][64], const float (&top)[2], const float (&sum)[2],
                        const SplitItem& item, int first_head, int heads) const {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = row_ + 8 * i;
      if (row >= heads) continue;
      const int head = first_head + row;
      const int64_t column = int64_t{head} * kLatent + group_ * 256 + lane_ % 4 * 2;
      const float inverse = __frcp_rn(sum[i]);
#pragma unroll
      for (int j = 0; j < 32; ++j) {
        const float a = values[j / 16][j % 16 * 4 + i * 2], b = values[j / 16][j % 16 * 4 + i * 2 + 1];
        if (item.slot < 0) {
          *reinterpret_cast<uint32_t*>(params_.out + item.token * params_.out_stride + column + j * 8) =
              pack_bf16(__fmul_rn(a, inverse), __fmul_rn(b, inverse));
        } else {
          *reinterpret_cast<float2*>(params_.workspace.partial +
                                     int64_t{item.slot} * params_.heads * kLatent + column + j * 8) =
              make_float2(a, b);
        }
      }
      if (item.slot >= 0 && group_ == 0 && lane_ % 4 == 0) {
        params_.workspace.stats[int64_t{item.slot} * params_.heads + head] = make_float2(top[i], sum[i]);
      }
    }
  }

  Shared& shared_;
  const Params& params_;
  float4* aside_;  // what is folded so far: [CTAs, 32, kConsumers]
  const int group_, lane_, row_;
  const uint32_t their_empty_;
  int tile_ = 0;                 // of the CTA
  uint32_t items_ = 0;           // the same
  float sum_[2] = {0.0F, 0.0F};  // of the thread's share of the weights it computed
};

template <int kCluster>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    mla_decode_wide_kernel(const __grid_constant__ Params params, float4* aside) {
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(&shared.full[i], 1);
      barrier_init(&shared.empty[i], kConsumers / 32 * kCluster);
    }
    barrier_init(&shared.q_full, 1);
    barrier_init(&shared.q_empty, 1);
    barrier_init_fence();
  }
  if constexpr (kCluster > 1) cluster_sync();
  device::cuda::let_next_start();  // as mla_decode_narrow_kernel
  make_split_plan(shared.plan, params.positions, params.slots, params.tokens, params.workspace);
  if (threadIdx.x >= kConsumers) {
    fewer_registers<24>();
    if (threadIdx.x == kConsumers) produce<kCluster>(shared, params);
  } else {
    more_registers<240>();
    Consumer<kCluster>(shared, params, aside).run();
  }
}

}  // namespace

bool mla_decode_wide_takes(const device::cuda::Gpu& gpu, const MlaDecodeArgs& args) {
  using device::DType;
  const int64_t page = args.cache.page_size;
  return gpu.hopper() && args.heads > 48 && args.latent == kLatent && args.cache.width == kWidth &&
         args.q.dtype == DType::kBF16 && args.out.dtype == DType::kBF16 && args.cache.dtype == DType::kBF16 &&
         args.q.stride % 8 == 0 && args.out.stride % 2 == 0 &&
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
    const int64_t grid = std::min<int64_t>(stream.gpu().multiprocessors, most_items) / kCluster * kCluster;
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
