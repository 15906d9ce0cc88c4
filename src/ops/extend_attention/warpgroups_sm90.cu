// extend_attention for keys of 128 + 64 and values of 128 in bf16 (V2 and V3): one warp brings tiles of 128
// keys with the copy engine, two warpgroups have 64 queries each. A warpgroup's products of the next scores
// and of the last values are in flight together, and the two take turns, so that one's softmax lies under the
// other's products. The weights stay in registers between the two products.
#include <algorithm>

#include "base/check.h"
#include "base/math.h"
#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/attention/hopper.cuh"
#include "ops/extend_attention/kernels.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kNope = 128, kRope = 64, kValue = 128, kKey = kNope + kRope;
constexpr int kQueries = 128, kKeys = 128;  // of a tile
constexpr int kConsumers = 2;               // warpgroups, of 64 queries
constexpr int kThreads = 128 * (kConsumers + 1);
constexpr int kStages = 2;
constexpr int kBlock = 128 * 64;  // elements: what one copy brings, 64 columns
constexpr int kBlockBytes = kBlock * 2;
constexpr int kKeyBlocks = kKey / 64, kValueBlocks = kValue / 64;
constexpr int kHeadGroup = 16;  // heads whose keys and values stay in the L2 cache together

struct Shared {
  __nv_bfloat16 q[kKeyBlocks][kBlock];
  __nv_bfloat16 k[kStages][kKeyBlocks][kBlock];
  __nv_bfloat16 v[kStages][kValueBlocks][kBlock];
  uint64_t q_full, k_full[kStages], k_empty[kStages], v_full[kStages], v_empty[kStages];
};
constexpr int kSharedBytes = sizeof(Shared) + 1024;  // and room to align

struct Params {
  CUtensorMap q, kv, k_rope;
  const ExtendRow* rows;
  int heads, query_tiles;  // tiles of the longest row
  float scale;             // for base 2
  __nv_bfloat16* out;
  int64_t out_stride;
  float* partial;
  float* lse;
};

// What a CTA does: `queries` first .. of the row, against `tiles` tiles of keys.
struct Work {
  ExtendRow row;
  int head, first, tiles;
};

__device__ void produce(Shared& shared, const Params& params, const Work& work) {
  const auto copy = [](void* to, const CUtensorMap& map, uint64_t* barrier, int column, int row) {
    copy_tile(to, &map, barrier, column, row);
  };
  barrier_expect(&shared.q_full, kKeyBlocks * kBlockBytes);
  for (int i = 0; i < kKeyBlocks; ++i) {
    copy(shared.q[i], params.q, &shared.q_full, work.head * kKey + i * 64, work.row.first + work.first);
  }
  const int column = work.head * (kNope + kValue);
  for (int tile = 0; tile < work.tiles; ++tile) {
    const int stage = tile % kStages;
    const uint32_t parity = static_cast<uint32_t>(tile / kStages) & 1U;
    const int key_row = work.row.key_row + tile * kKeys;
    barrier_wait(&shared.k_empty[stage], parity ^ 1);
    barrier_expect(&shared.k_full[stage], kKeyBlocks * kBlockBytes);
    copy(shared.k[stage][0], params.kv, &shared.k_full[stage], column, key_row);
    copy(shared.k[stage][1], params.kv, &shared.k_full[stage], column + 64, key_row);
    copy(shared.k[stage][2], params.k_rope, &shared.k_full[stage], 0, key_row);
    barrier_wait(&shared.v_empty[stage], parity ^ 1);
    barrier_expect(&shared.v_full[stage], kValueBlocks * kBlockBytes);
    copy(shared.v[stage][0], params.kv, &shared.v_full[stage], column + kNope, key_row);
    copy(shared.v[stage][1], params.kv, &shared.v_full[stage], column + kNope + 64, key_row);
  }
}

// A thread has rows lane / 4 and that + 8 of its warp's sixteen.
class Consumer {
 public:
  __device__ Consumer(Shared& shared, const Params& params, const Work& work)
      : shared_(shared),
        params_(params),
        work_(work),
        group_(static_cast<int>(threadIdx.x) / 128),
        lane_(static_cast<int>(threadIdx.x) % 32) {
    query_ = work.first + group_ * 64 + static_cast<int>(threadIdx.x) % 128 / 32 * 16 + lane_ / 4;
  }

  __device__ void run() {
    float scores[64], values[64];
    uint32_t weights[32];
    const uint64_t q = wgmma_tile(shared_.q[0] + group_ * 64 * 64);
    if (group_ == 1) named_barrier_arrive(kTurn, 256);  // the first turn is the other's
    barrier_wait(&shared_.q_full, 0);

    await_turn();
    barrier_wait(&shared_.k_full[0], 0);
    wgmma_fence();
    start_scores(scores, q, 0);
    wgmma_commit();
    give_turn();
    wgmma_wait<0>();
    settle(scores);
    release(shared_.k_empty[0]);
    mask(scores, 0);
    float rescale[2];
    weigh(scores, rescale);
    pack(weights, scores);

    for (int tile = 1; tile < work_.tiles; ++tile) {
      await_turn();
      barrier_wait(&shared_.k_full[tile % kStages], parity(tile));
      settle(values);
      wgmma_fence();
      start_scores(scores, q, tile % kStages);
      wgmma_commit();
      barrier_wait(&shared_.v_full[(tile - 1) % kStages], parity(tile - 1));
      start_values(values, weights, (tile - 1) % kStages, tile > 1);
      wgmma_commit();
      give_turn();
      wgmma_wait<1>();
      settle(scores);
      release(shared_.k_empty[tile % kStages]);
      mask(scores, tile);
      weigh(scores, rescale);
      wgmma_wait<0>();
      settle(values);
      release(shared_.v_empty[(tile - 1) % kStages]);
#pragma unroll
      for (int i = 0; i < 64; ++i) values[i] *= rescale[i / 2 % 2];
      pack(weights, scores);
    }
    const int last = work_.tiles - 1;
    barrier_wait(&shared_.v_full[last % kStages], parity(last));
    settle(values);
    wgmma_fence();
    start_values(values, weights, last % kStages, last > 0);
    wgmma_commit();
    wgmma_wait<0>();
    settle(values);
    write(values);
  }

 private:
  static constexpr int kTurn = 1;  // named barriers kTurn + group

  __device__ void await_turn() const { named_barrier_sync(kTurn + group_, 256); }
  __device__ void give_turn() const { named_barrier_arrive(kTurn + (group_ ^ 1), 256); }
  __device__ static uint32_t parity(int tile) { return static_cast<uint32_t>(tile / kStages) & 1U; }
  __device__ void release(uint64_t& barrier) const {
    if (lane_ == 0) barrier_arrive(&barrier);
  }

  __device__ void start_scores(float (&scores)[64], uint64_t q, int stage) const {
    const uint64_t k = wgmma_tile(shared_.k[stage][0]);
#pragma unroll
    for (int i = 0; i < kKey / 16; ++i) {
      const uint64_t offset = i / 4 * (kBlockBytes / 16) + i % 4 * 2;
      wgmma_shared(scores, q + offset, k + offset, i > 0);
    }
  }
  __device__ void start_values(float (&values)[64], const uint32_t (&weights)[32], int stage,
                               bool add) const {
    const uint64_t v = wgmma_columns_tile(shared_.v[stage][0], kBlockBytes);
#pragma unroll
    for (int i = 0; i < kKeys / 16; ++i) {
      wgmma_values_n128(values, weights + 4 * i, v + i * (2048 / 16), add || i > 0);
    }
  }

  __device__ int position(int row) const { return work_.row.start + query_ + 8 * row; }

  // Hides the keys that a query may not see.
  __device__ void mask(float (&scores)[64], int tile) const {
    const int begin = work_.row.key_begin + tile * kKeys;
    const int first_position = work_.row.start + work_.first + group_ * 64;
    if (begin + kKeys - 1 <= first_position && begin + kKeys <= work_.row.key_end) return;
    const int ends[2] = {min(position(0) + 1, work_.row.key_end) - begin,
                         min(position(1) + 1, work_.row.key_end) - begin};
#pragma unroll
    for (int i = 0; i < 64; ++i) {
      if (i / 4 * 8 + lane_ % 4 * 2 + i % 2 >= ends[i / 2 % 2]) scores[i] = -INFINITY;
    }
  }

  // Scores become weights; what was summed up before is to be multiplied by `rescale`.
  __device__ void weigh(float (&scores)[64], float (&rescale)[2]) {
#pragma unroll
    for (int row = 0; row < 2; ++row) {
      float top = top_[row];
#pragma unroll
      for (int i = 0; i < 16; ++i) {
        top = fmaxf(top, fmaxf(scores[4 * i + 2 * row], scores[4 * i + 2 * row + 1]));
      }
      top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 1));
      top = fmaxf(top, __shfl_xor_sync(0xffffffffU, top, 2));
      const float base = top * params_.scale;
      // Exactly 1 when the maximum stays: a tile that a query sees nothing of must not change a bit.
      rescale[row] = exp2_fast((top_[row] - top) * params_.scale);
      top_[row] = top;
      float sum = sum_[row] * rescale[row];
#pragma unroll
      for (int i = 0; i < 16; ++i) {
#pragma unroll
        for (int j = 0; j < 2; ++j) {
          float& score = scores[4 * i + 2 * row + j];
          score = exp2_fast(fmaf(score, params_.scale, -base));
          sum += score;
        }
      }
      sum_[row] = sum;
    }
  }

  __device__ static void pack(uint32_t (&weights)[32], const float (&scores)[64]) {
#pragma unroll
    for (int i = 0; i < 32; ++i) weights[i] = pack_bf16(scores[2 * i], scores[2 * i + 1]);
  }

  __device__ void write(const float (&values)[64]) {
    const ExtendRow& row = work_.row;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float sum = sum_[i];
      sum += __shfl_xor_sync(0xffffffffU, sum, 1);
      sum += __shfl_xor_sync(0xffffffffU, sum, 2);
      const float inverse = 1.0F / sum;
      const float lse = top_[i] * params_.scale + log2f(sum);
      const int query = query_ + 8 * i;
      const bool mine = query < row.count && !ExtendEpilogue::done(row, position(i));
      const int64_t t = row.first + min(query, row.count - 1);
      const int64_t stat = t * params_.heads + work_.head;
      const ExtendMerge merge = row.merge != 0 ? ExtendMerge(params_.lse[stat], lse) : ExtendMerge(lse);
      __syncwarp();  // every thread of the query has read lse before one of them writes it
      if (!mine) continue;
      const bool last = ExtendEpilogue::last(row, position(i));
      float* partial = params_.partial + stat * kValue + lane_ % 4 * 2;
      __nv_bfloat16* out = params_.out + t * params_.out_stride + work_.head * kValue + lane_ % 4 * 2;
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        float2 pair = {values[4 * j + 2 * i] * inverse, values[4 * j + 2 * i + 1] * inverse};
        if (row.merge != 0) {
          const float2 old = *reinterpret_cast<const float2*>(partial + 8 * j);
          pair.x = fmaf(old.x, merge.old_share, pair.x * merge.new_share);
          pair.y = fmaf(old.y, merge.old_share, pair.y * merge.new_share);
        }
        if (last)
          *reinterpret_cast<uint32_t*>(out + 8 * j) = pack_bf16(pair.x, pair.y);
        else
          *reinterpret_cast<float2*>(partial + 8 * j) = pair;
      }
      if (!last && lane_ % 4 == 0) params_.lse[stat] = merge.lse;
    }
  }

  Shared& shared_;
  const Params& params_;
  const Work& work_;
  const int group_, lane_;
  int query_;  // of the row: the thread's first
  float top_[2] = {-INFINITY, -INFINITY}, sum_[2] = {0, 0};
};

__global__ void __launch_bounds__(kThreads, 1)
    extend_attention_warpgroups_kernel(const __grid_constant__ Params params) {
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  Work work;
  work.row = params.rows[blockIdx.z];
  const int heads = min(kHeadGroup, params.heads - static_cast<int>(blockIdx.y) * kHeadGroup);
  const int tile = params.query_tiles - 1 - static_cast<int>(blockIdx.x) / kHeadGroup;  // the longest first
  const int head = static_cast<int>(blockIdx.x) % kHeadGroup;
  work.head = static_cast<int>(blockIdx.y) * kHeadGroup + head;
  work.first = tile * kQueries;
  if (head >= heads || work.first >= work.row.count) return;
  const int last_position = work.row.start + min(work.first + kQueries, work.row.count) - 1;
  if (ExtendEpilogue::done(work.row, last_position)) return;
  work.tiles = (min(work.row.key_end, last_position + 1) - work.row.key_begin + kKeys - 1) / kKeys;
  if (threadIdx.x == 0) {
    barrier_init(&shared.q_full, 1);
    for (int i = 0; i < kStages; ++i) {
      barrier_init(&shared.k_full[i], 1);
      barrier_init(&shared.v_full[i], 1);
      barrier_init(&shared.k_empty[i], kConsumers * 4);
      barrier_init(&shared.v_empty[i], kConsumers * 4);
    }
    barrier_init_fence();
  }
  __syncthreads();
  if (threadIdx.x >= kConsumers * 128) {
    fewer_registers<24>();
    if (threadIdx.x == kConsumers * 128) produce(shared, params, work);
  } else {
    more_registers<240>();
    Consumer(shared, params, work).run();
  }
}

}  // namespace

bool extend_attention_warpgroups_takes(const device::cuda::Gpu& gpu, const ExtendAttentionArgs& args) {
  const auto aligned = [](const Matrix& matrix) {
    return matrix.stride % 8 == 0 && reinterpret_cast<uintptr_t>(matrix.data) % 16 == 0;
  };
  return gpu.hopper() && args.q.dtype == device::DType::kBF16 && args.nope == kNope && args.value == kValue &&
         args.k_rope.columns == kRope && aligned(args.q) && aligned(args.kv) && aligned(args.k_rope) &&
         args.out.stride % 2 == 0;
}

void extend_attention_warpgroups(device::cuda::Stream& stream, const ExtendAttentionArgs& args) {
  int32_t longest = 0, keys = 0;
  for (int64_t i = 0; i < args.num_rows; ++i) {
    const ExtendRow& row = args.host_rows[i];
    longest = std::max(longest, row.count);
    keys = std::max(keys, row.key_row + (row.key_end - row.key_begin));
  }
  // Rows after the last key read as zero: their weights are zero, but must not meet a NaN.
  const auto map = [&](const Matrix& matrix, int64_t rows) {
    return device::cuda::tile_map_16bit(stream, matrix.data, rows, matrix.columns, matrix.stride * 2, 128,
                                        64);
  };
  Params params;
  params.q = map(args.q, args.q.rows);
  params.kv = map(args.kv, keys);
  params.k_rope = map(args.k_rope, keys);
  params.rows = args.rows;
  params.heads = static_cast<int>(args.heads);
  params.query_tiles = ceil_div(longest, kQueries);
  params.scale = args.scale * kLog2E;
  params.out = static_cast<__nv_bfloat16*>(args.out.data);
  params.out_stride = args.out.stride;
  params.partial = args.partial;
  params.lse = args.lse;
  static device::cuda::SharedMemory memory;
  if (!memory.allow(stream, &extend_attention_warpgroups_kernel, kSharedBytes)) return;
  const dim3 grid(static_cast<unsigned>(params.query_tiles * kHeadGroup),
                  static_cast<unsigned>(ceil_div<int64_t>(args.heads, kHeadGroup)),
                  static_cast<unsigned>(args.num_rows));
  extend_attention_warpgroups_kernel<<<grid, kThreads, kSharedBytes, stream.handle()>>>(params);
  stream.launched("extend_attention");
}

}  // namespace fathom::ops::cuda
