// mla_decode for few heads (V2-Lite: 16), where reading the cache is what costs: the sixteen heads are the
// rows of mma.sync tiles. One warp has entries copied into a ring in shared memory; eight warps share a tile
// of 64: for the scores each has half of the keys and a quarter of the 576 values of q and keys, and for the
// outputs 64 of the 512 columns of the values.
#include <type_traits>

#include "base/check.h"
#include "base/math.h"
#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/attention/hopper.cuh"
#include "ops/attention/tails.cuh"
#include "ops/attention/values.cuh"
#include "ops/attention/widen_f8.cuh"
#include "ops/mla_decode/kernels.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kHeads = 16, kLatent = 512, kWidth = 576;
constexpr int kWarps = 8;  // that compute
constexpr int kConsumers = kWarps * 32;
constexpr int kThreads =
    kConsumers + 128;  // registers move between warpgroups, so the producer has a whole one
constexpr int kStageRows = 32;
constexpr int kStages = 4;
constexpr int kRowBytes = kWidth * 2, kHalfBytes = kStageRows * kRowBytes;  // of half a tile in bf16
constexpr int kQueryPitch = kWidth * 2 + 16;       // odd in units of 16: no bank conflicts
constexpr int kWeightPitch = kSplitTile * 2 + 16;  // of the weights' rows
constexpr int kColumns = kLatent / kWarps;         // of a warp
constexpr int kQuarters = 4, kQuarterSteps = kWidth / 16 / kQuarters;  // of a score's products, 16 at once

template <class T>
struct Shared {
  static constexpr bool kConverted = sizeof(T) == 1;  // FP8 entries are widened to f16 in a tile of their own
  static constexpr int kEntryBytes = kWidth * static_cast<int>(sizeof(T));

  unsigned char ring[kStages][kStageRows * kEntryBytes];
  unsigned char converted[2][kConverted ? kHalfBytes : 16];
  float top_node[kColumns / 2 + 4][kConsumers];  // each consumer's part of the node of level 3
  unsigned char q[kHeads * kQueryPitch];
  unsigned char weights[kHeads * kWeightPitch];
  float4 parts[kQuarters][kWarps][32];  // of the scores of eight keys, as mma.sync leaves them
  float tops[kHeads][kWarps];
  uint64_t full[kStages], empty[kStages];
  SplitPlan plan;
};
template <class T>
constexpr int kSharedBytes = sizeof(Shared<T>) + 1024;  // and room to align

struct Params {
  CUtensorMap boxes;    // bf16 entries, box_rows at once
  CUtensorMap entries;  // one by one
  const void* cache;
  const __nv_bfloat16* q;
  __nv_bfloat16* out;
  int64_t q_stride, out_stride;
  int page_size, box_rows;
  const int32_t* positions;
  const int32_t* slots;
  const int32_t* block_tables;
  int64_t table_stride;
  Branches branches;
  int tokens, heads, groups;
  float scale;  // for base 2
  SplitWorkspace workspace;
};

// A place in the ring, which producer and consumers walk through alike.
struct Cursor {
  int stage = 0;
  uint32_t parity = 0;
  __device__ void next() {
    if (++stage == kStages) stage = 0, parity ^= 1;
  }
};

// The same, but the compiler knows not: what depends on it is computed anew where it is used, instead of once
// in registers that are not there.
__device__ inline int recomputed(int value) {
  asm volatile("" : "+r"(value));
  return value;
}

// Byte of chunk `chunk` (16 bytes) of a row of half a tile: row_map_16bit's order.
__device__ inline int chunk_at(int row, int chunk) {
  const int piece = chunk / 8;
  return row * kRowBytes + piece * 128 + ((chunk % 8 ^ (row + piece) % 8) * 16);
}
static_assert(kRowBytes / 128 % 8 == 1, "a row's first piece is the row'th but for multiples of eight");

// By one warp, before the kernel ahead has ended as far as entries are settled. Rows of a stage after the
// item's last place hold whatever there was.
template <class T>
__device__ void produce(Shared<T>& shared, const Params& params) {
  using S = Shared<T>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  Cursor cursor;
  bool waited = false;
  for (int index = static_cast<int>(blockIdx.x); index < shared.plan.items * params.groups;
       index += static_cast<int>(gridDim.x)) {
    const SplitItem item = split_item(shared.plan, params.tokens, index / params.groups);
    const int32_t* table = params.block_tables + item.sequence * params.table_stride;
    const TokenTail tail = tail_of(params.branches, item.token);
    const auto row_of = [&](int place) {
      return tail.has(place) ? static_cast<int>(tail.entry(place))
                             : table[place / params.page_size] * params.page_size + place % params.page_size;
    };
    const int stages = (item.end - item.begin + kSplitTile - 1) / kSplitTile * (kSplitTile / kStageRows);
    for (int i = 0; i < stages; ++i, cursor.next()) {
      const int begin = item.begin + i * kStageRows, places = max(min(kStageRows, item.end - begin), 0);
      uint64_t* full = &shared.full[cursor.stage];
      // A branch's entries lie anywhere: one by one, as are all of pages that boxes do not fit.
      const bool single = params.box_rows == 1 || tail.has(begin + places - 1);
      const int rows = single ? 1 : params.box_rows;
      const int boxes = (places + rows - 1) / rows;
      const int row = lane < boxes ? row_of(begin + lane * rows) : 0;
      if (!waited && begin + places > item.settled) {
        if (lane < places)
          prefetch_lines(static_cast<const T*>(params.cache) + int64_t{row_of(begin + lane)} * kWidth,
                         S::kEntryBytes);
        device::cuda::wait_for_previous();
        waited = true;
      }
      barrier_wait(&shared.empty[cursor.stage], cursor.parity ^ 1);
      if (lane == 0) barrier_expect(full, static_cast<uint32_t>(boxes * rows * S::kEntryBytes));
      __syncwarp();
      if (lane >= boxes) continue;
      unsigned char* to = shared.ring[cursor.stage] + lane * rows * S::kEntryBytes;
      if constexpr (S::kConverted) {
        bulk_copy_once(to, static_cast<const T*>(params.cache) + int64_t{row} * kWidth,
                       static_cast<uint32_t>(rows * S::kEntryBytes), full);
      } else {
        copy_rows_once(to, single ? &params.entries : &params.boxes, full, row);
      }
    }
  }
}

// A thread's part of the sixteen heads' results: rows lane / 4 and that + 8; of each eight of the warp's
// columns the two at lane % 4 * 2.
struct State {
  float values[kColumns / 8][4];
  float top[2], sum[2];

  using Rows = float[kColumns / 2 + 4][kConsumers];
  __device__ void store(Rows& to, unsigned thread) const {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) to[i][thread] = values[i / 4][i % 4];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      to[kColumns / 2 + i][thread] = top[i];
      to[kColumns / 2 + 2 + i][thread] = sum[i];
    }
  }
  __device__ void load(const Rows& from, unsigned thread) {
#pragma unroll
    for (int i = 0; i < kColumns / 2; ++i) values[i / 4][i % 4] = from[i][thread];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      top[i] = from[kColumns / 2 + i][thread];
      sum[i] = from[kColumns / 2 + 2 + i][thread];
    }
  }

  __device__ void fold(const State& other) {
    const Fold folds[2] = {Fold(top[0], other.top[0]), Fold(top[1], other.top[1])};
#pragma unroll
    for (int n = 0; n < kColumns / 8; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) values[n][i] = folds[i / 2](values[n][i], other.values[n][i]);
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      sum[i] = folds[i](sum[i], other.sum[i]);
      top[i] = folds[i].top;
    }
  }
};

template <class T>
class Consumer {
  using S = Shared<T>;
  using P = ProductType<T>;

 public:
  __device__ Consumer(Shared<T>& shared, const Params& params)
      : shared_(shared),
        params_(params),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_(static_cast<int>(threadIdx.x) / 32) {}

  __device__ void run() {
    device::cuda::wait_for_previous();
    if (blockIdx.x == 0)
      publish_split_plan(shared_.plan, params_.tokens, params_.workspace, static_cast<int>(threadIdx.x),
                         kConsumers);
    for (int index = static_cast<int>(blockIdx.x); index < shared_.plan.items * params_.groups;
         index += static_cast<int>(gridDim.x)) {
      attend(split_item(shared_.plan, params_.tokens, index / params_.groups),
             index % params_.groups * kHeads);
    }
  }

 private:
  __device__ void attend(const SplitItem& item, int first_head) {
    const int heads = min(kHeads, params_.heads - first_head);
    load_queries(item.token, first_head, heads);
    State nodes[kSplitTop - 1];  // levels 1 and 2 of the tree; level 3's would not fit beside them
    State state;
    const int units = (item.end - item.begin + item.unit_places - 1) / item.unit_places;
    for (int u = 0; u < units; ++u) {
      const int begin = item.begin + u * item.unit_places, end = min(begin + item.unit_places, item.end);
      for (int place = begin; place < end; place += kSplitTile) add_tile(state, end - place, place == begin);
      bool complete = units > 1;
#pragma unroll
      for (int up = 0; up < kSplitTop - 1; ++up) {
        if (!complete) continue;
        const int child = (u >> (2 * up)) & 3;
        if (child == 0)
          nodes[up] = state;
        else
          nodes[up].fold(state);
        state = nodes[up];
        complete = child == 3 || u == units - 1;
      }
      constexpr int kTopChild = 1 << (2 * (kSplitTop - 1));
      if (!complete || units <= kTopChild) continue;
      if (u >= kTopChild) {
        State node;
        node.load(shared_.top_node, threadIdx.x);
        node.fold(state);
        state = node;
      }
      if (u < units - 1) state.store(shared_.top_node, threadIdx.x);
    }
    write(state, item, first_head, heads);
  }

  __device__ void load_queries(int token, int first_head, int heads) {
    const __nv_bfloat16* q = params_.q + token * params_.q_stride + int64_t{first_head} * kWidth;
    constexpr int kChunks = kWidth / 8;
    named_barrier_sync(1, kConsumers);  // the last item's queries are no longer read
    for (int i = static_cast<int>(threadIdx.x); i < kHeads * kChunks; i += kConsumers) {
      const int head = i / kChunks, chunk = i % kChunks;
      uint4 bits = {};
      if (head < heads) bits = *reinterpret_cast<const uint4*>(q + head * kWidth + chunk * 8);
      bits = make_uint4(query_pair<T>(bits.x), query_pair<T>(bits.y), query_pair<T>(bits.z),
                        query_pair<T>(bits.w));
      *reinterpret_cast<uint4*>(shared_.q + head * kQueryPitch + chunk * 16) = bits;
    }
    named_barrier_sync(1, kConsumers);
  }

  // The next kSplitTile entries of the ring, the first `count` of which are places of the unit.
  __device__ void add_tile(State& state, int count, bool first) {
    Cursor cursors[2] = {cursor_};
    cursor_.next();
    cursors[1] = cursor_;
    cursor_.next();
    uint32_t halves[2];  // addresses of the tile's
    if constexpr (Shared<T>::kConverted) {
      named_barrier_sync(1, kConsumers);  // the last tile is no longer read
      convert(cursors, count);
      named_barrier_sync(1, kConsumers);
      halves[0] = shared_address(shared_.converted[0]);
      halves[1] = shared_address(shared_.converted[1]);
    } else {
      halves[0] = shared_address(shared_.ring[cursors[0].stage]);
      halves[1] = shared_address(shared_.ring[cursors[1].stage]);
      barrier_wait(&shared_.full[cursors[0].stage], cursors[0].parity);
      barrier_wait(&shared_.full[cursors[1].stage], cursors[1].parity);
    }

    add_scores(halves[warp_ / kQuarters]);
    named_barrier_sync(1, kConsumers);
    if (!Shared<T>::kConverted && count < kSplitTile) clear_rows(cursors, count);

    // The warp's eight keys.
    float4 parts[kQuarters];
#pragma unroll
    for (int i = 0; i < kQuarters; ++i) parts[i] = shared_.parts[i][warp_][lane_];
    const float sums[4] = {(parts[0].x + parts[1].x) + (parts[2].x + parts[3].x),
                           (parts[0].y + parts[1].y) + (parts[2].y + parts[3].y),
                           (parts[0].z + parts[1].z) + (parts[2].z + parts[3].z),
                           (parts[0].w + parts[1].w) + (parts[2].w + parts[3].w)};
    float scores[4], top[2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = warp_ * 8 + lane_ % 4 * 2 + i % 2;
      scores[i] = key < count ? sums[i] * params_.scale : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      top[i] = fmaxf(scores[2 * i], scores[2 * i + 1]);
      top[i] = fmaxf(top[i], __shfl_xor_sync(0xffffffffU, top[i], 1));
      top[i] = fmaxf(top[i], __shfl_xor_sync(0xffffffffU, top[i], 2));
      if (lane_ % 4 == 0) shared_.tops[lane_ / 4 + 8 * i][warp_] = top[i];
    }
    named_barrier_sync(1, kConsumers);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float all = first ? -INFINITY : state.top[i];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) all = fmaxf(all, shared_.tops[lane_ / 4 + 8 * i][w]);
      const float rescale = first ? 0.0F : exp2_fast(state.top[i] - all);
      state.top[i] = all;
      state.sum[i] = first ? 0.0F : state.sum[i] * rescale;
#pragma unroll
      for (int n = 0; n < kColumns / 8; ++n) {
        state.values[n][2 * i] = first ? 0.0F : state.values[n][2 * i] * rescale;
        state.values[n][2 * i + 1] = first ? 0.0F : state.values[n][2 * i + 1] * rescale;
      }
      *reinterpret_cast<uint32_t*>(shared_.weights + (lane_ / 4 + 8 * i) * kWeightPitch +
                                   (warp_ * 8 + lane_ % 4 * 2) * 2) =
          pack_pair<P>(exp2_fast(scores[2 * i] - all), exp2_fast(scores[2 * i + 1] - all));
    }
    named_barrier_sync(1, kConsumers);

    // The warp's columns. The sums of the weights are a product with ones.
    const uint32_t weights = shared_address(shared_.weights) + lane_ % 16 * kWeightPitch + lane_ / 16 * 16;
    const int lane = recomputed(lane_);
    constexpr uint32_t kOnes = std::is_same_v<P, __half> ? 0x3c003c00U : 0x3f803f80U;
    const uint32_t ones[2] = {kOnes, kOnes};
    float totals[4] = {state.sum[0], state.sum[0], state.sum[1], state.sum[1]};
#pragma unroll
    for (int k = 0; k < kSplitTile / 16; ++k) {
      uint32_t a[4];
      load_matrix4(a, weights + k * 32);
      mma_16bit<P>(totals, a, ones);
#pragma unroll
      for (int n = 0; n < kColumns / 16; ++n) {
        uint32_t b[4];
        load_matrix4_transposed(
            b, halves[k / 2] + chunk_at(k % 2 * 16 + lane % 16, warp_ * 8 + n * 2 + lane / 16));
        mma_16bit<P>(state.values[2 * n], a, b);
        mma_16bit<P>(state.values[2 * n + 1], a, b + 2);
      }
    }
    state.sum[0] = totals[0];
    state.sum[1] = totals[2];
    if constexpr (!Shared<T>::kConverted) release(cursors);
  }

  // The warp's quarter of the products of half a tile's keys.
  __device__ void add_scores(uint32_t keys) {
    // Two chains of products for each eight keys, which do not wait for one another.
    float sums[2][kQuarters][4] = {};
    const int lane = recomputed(lane_);
    const uint32_t q = shared_address(shared_.q) + lane % 16 * kQueryPitch + lane / 16 * 16 +
                       warp_ % kQuarters * kQuarterSteps * 32;
#pragma unroll
    for (int k = 0; k < kQuarterSteps; ++k) {
      const int chunk = (warp_ % kQuarters * kQuarterSteps + k) * 2 + lane / 8 % 2;
      uint32_t a[4];
      load_matrix4(a, q + k * 32);
#pragma unroll
      for (int pair = 0; pair < 2; ++pair) {
        const int row = pair * 16 + lane / 16 * 8 + lane % 8;
        uint32_t b[4];
        load_matrix4(b, keys + chunk_at(row, chunk));
        mma_16bit<P>(sums[k % 2][2 * pair], a, b);
        mma_16bit<P>(sums[k % 2][2 * pair + 1], a, b + 2);
      }
    }
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      shared_.parts[warp_ % kQuarters][warp_ / kQuarters * 4 + i][lane_] =
          make_float4(sums[0][i][0] + sums[1][i][0], sums[0][i][1] + sums[1][i][1],
                      sums[0][i][2] + sums[1][i][2], sums[0][i][3] + sums[1][i][3]);
    }
  }

  // Places after the sequence's end have weight zero, but must not meet a NaN in the values.
  __device__ void clear_rows(const Cursor (&cursors)[2], int count) {
    constexpr int kChunks = kLatent / 8;
    for (int i = static_cast<int>(threadIdx.x); i < (kSplitTile - count) * kChunks; i += kConsumers) {
      const int row = count + i / kChunks, chunk = i % kChunks;
      *reinterpret_cast<uint4*>(shared_.ring[cursors[row / kStageRows].stage] +
                                chunk_at(row % kStageRows, chunk)) = uint4{};
    }
    fence_async();  // the copy engine writes there next
  }

  __device__ void release(const Cursor (&cursors)[2]) {
    barrier_arrive(&shared_.empty[cursors[0].stage]);
    barrier_arrive(&shared_.empty[cursors[1].stage]);
  }

  __device__ const uint4* stored(const Cursor (&cursors)[2], int row, int chunk) const {
    return reinterpret_cast<const uint4*>(shared_.ring[cursors[row / kStageRows].stage] +
                                          row % kStageRows * S::kEntryBytes + chunk * 16);
  }
  // Sixteen values of a row are two chunks in f16.
  __device__ uint4* widened(int row, int chunk, int half) {
    return reinterpret_cast<uint4*>(shared_.converted[row / kStageRows] +
                                    chunk_at(row % kStageRows, chunk * 2 + half));
  }

  // FP8 entries of the two stages, into a tile of f16; zeros after the first `count`.
  __device__ void convert(const Cursor (&cursors)[2], int count) {
    constexpr int kChunks = kWidth / 16, kSteps = kStageRows * kChunks * 2 / kConsumers;
    static_assert(kSteps * kConsumers == kStageRows * kChunks * 2);
    barrier_wait(&shared_.full[cursors[0].stage], cursors[0].parity);
    barrier_wait(&shared_.full[cursors[1].stage], cursors[1].parity);
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int i = static_cast<int>(threadIdx.x) + step * kConsumers;
      const int row = i / kChunks, chunk = i % kChunks;
      const uint4 bytes = row < count ? *stored(cursors, row, chunk) : uint4{};
      uint4 wide[2];
      widen_f8x16<T>(bytes, wide);
      *widened(row, chunk, 0) = wide[0];
      *widened(row, chunk, 1) = wide[1];
    }
    release(cursors);
  }

  __device__ void write(const State& state, const SplitItem& item, int first_head, int heads) {
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const int row = lane_ / 4 + 8 * i;
      if (row >= heads) continue;
      const int head = first_head + row;
      const int64_t column = int64_t{head} * kLatent + warp_ * kColumns + lane_ % 4 * 2;
      if (item.slot < 0) {
        const float inverse = __frcp_rn(state.sum[i]);
        __nv_bfloat16* out = params_.out + item.token * params_.out_stride + column;
#pragma unroll
        for (int n = 0; n < kColumns / 8; ++n) {
          *reinterpret_cast<uint32_t*>(out + n * 8) = pack_bf16(
              __fmul_rn(state.values[n][2 * i], inverse), __fmul_rn(state.values[n][2 * i + 1], inverse));
        }
      } else {
        float* partial = static_cast<float*>(params_.workspace.partial) +
                         int64_t{item.slot} * params_.heads * kLatent + column;
#pragma unroll
        for (int n = 0; n < kColumns / 8; ++n) {
          *reinterpret_cast<float2*>(partial + n * 8) =
              make_float2(state.values[n][2 * i], state.values[n][2 * i + 1]);
        }
        if (warp_ == 0 && lane_ % 4 == 0) {
          params_.workspace.stats[int64_t{item.slot} * params_.heads + head] =
              make_float2(state.top[i], state.sum[i]);
        }
      }
    }
  }

  Shared<T>& shared_;
  const Params& params_;
  const int lane_, warp_;
  Cursor cursor_;
};

template <class T>
__global__ void __launch_bounds__(kThreads, 1)
    mla_decode_narrow_kernel(const __grid_constant__ Params params) {
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared<T>*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    for (int i = 0; i < kStages; ++i) {
      barrier_init(&shared.full[i], 1);
      barrier_init(&shared.empty[i], kConsumers);
    }
    barrier_init_fence();
  }
  device::cuda::let_next_start();  // the combine kernel, which waits for this one's end
  make_split_plan(shared.plan, params.positions, params.slots, params.tokens, params.workspace);
  if (threadIdx.x >= kConsumers) {
    fewer_registers<24>();
    if (threadIdx.x < kConsumers + 32) produce<T>(shared, params);
  } else {
    more_registers<240>();
    Consumer<T>(shared, params).run();
  }
}

}  // namespace

bool mla_decode_narrow_takes(const device::cuda::Gpu& gpu, const MlaDecodeArgs& args) {
  using device::DType;
  return gpu.hopper() && args.latent == kLatent && args.cache.width == kWidth &&
         args.q.dtype == DType::kBF16 && args.out.dtype == DType::kBF16 && args.cache.dtype != DType::kF32 &&
         args.q.stride % 8 == 0 && args.out.stride % 2 == 0;
}

int64_t mla_decode_narrow_items(const device::cuda::Gpu& gpu, int64_t heads) {
  return ceil_div<int64_t>(gpu.multiprocessors * 3 / 4, ceil_div<int64_t>(heads, kHeads));
}

void mla_decode_narrow(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                       const SplitWorkspace& workspace) {
  Params params;
  params.q = static_cast<const __nv_bfloat16*>(args.q.data);
  params.out = static_cast<__nv_bfloat16*>(args.out.data);
  params.q_stride = args.q.stride;
  params.out_stride = args.out.stride;
  params.page_size = static_cast<int>(args.cache.page_size);
  // Boxes lie in one page and begin at multiples of eight rows of a stage.
  params.box_rows = 1;
  for (const int rows : {32, 16, 8}) {
    if (params.box_rows == 1 && params.page_size % rows == 0) params.box_rows = rows;
  }
  params.cache = args.cache.data;
  if (args.cache.dtype == device::DType::kBF16) {
    // How many pages there are is not known here; block tables name none that is not.
    constexpr int64_t kMost = int64_t{1} << 31;
    params.boxes = device::cuda::row_map_16bit(stream, args.cache.data, kMost, kWidth, params.box_rows);
    params.entries = device::cuda::row_map_16bit(stream, args.cache.data, kMost, kWidth, 1);
  }
  params.positions = args.batch.positions;
  params.slots = args.batch.slots;
  params.block_tables = args.batch.block_tables;
  params.table_stride = args.batch.table_stride;
  params.branches = args.branches;
  params.tokens = static_cast<int>(args.batch.tokens);
  params.heads = static_cast<int>(args.heads);
  params.groups = static_cast<int>(ceil_div<int64_t>(args.heads, kHeads));
  params.scale = score_scale(args.scale * kLog2E, args.cache.dtype);
  params.workspace = workspace;
  params.workspace.weighed_groups = params.groups;
  const int64_t most_items = workspace.units.most_units(args.max_context) * args.batch.tokens;
  const int64_t grid = std::min<int64_t>(stream.gpu().multiprocessors, most_items * params.groups);
  with_cache_type(args.cache.dtype, [&]<class T>(const T*) {
    if constexpr (sizeof(T) <= 2) {
      static_assert(kSharedBytes<T> <= 227 << 10);
      static device::cuda::SharedMemory memory;
      auto* kernel = &mla_decode_narrow_kernel<T>;
      if (!memory.allow(stream, kernel, kSharedBytes<T>)) return;
      device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(grid)), dim3(kThreads),
                                 kSharedBytes<T>, params);
    }
  });
  stream.launched("mla_decode");
}

}  // namespace fathom::ops::cuda
