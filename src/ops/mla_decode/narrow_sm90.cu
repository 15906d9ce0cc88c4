// mla_decode for few heads (V2-Lite: 16), where reading the cache is what costs: the sixteen heads are the
// rows of mma.sync tiles. One warp copies entries into a ring in shared memory; eight warps share the keys of
// a tile of 64 for the scores and the 512 columns for the values.
#include <type_traits>

#include "base/check.h"
#include "base/math.h"
#include "ops/attention/hopper.cuh"
#include "ops/attention/tails.cuh"
#include "ops/attention/values.cuh"
#include "ops/mla_decode/kernels.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kHeads = 16, kLatent = 512, kWidth = 576;
constexpr int kWarps = 8;  // that compute
constexpr int kConsumers = kWarps * 32;
constexpr int kThreads =
    kConsumers + 128;  // registers move between warpgroups, so the producer has a whole one
constexpr int kStageRows = 32;
constexpr int kStages = 5;
constexpr int kPitch = kWidth * 2 + 16;  // bytes of a row of bf16; odd in units of 16: no bank conflicts
constexpr int kWeightPitch = kSplitTile * 2 + 16;  // of the weights' rows
constexpr int kColumns = kLatent / kWarps;         // of a warp

template <class T>
struct Shared {
  static constexpr bool kConverted = sizeof(T) == 1;  // FP8 entries are widened into a tile of their own
  static constexpr int kRowBytes = kWidth * static_cast<int>(sizeof(T));
  static constexpr int kRowPitch = kConverted ? kRowBytes : kPitch;

  alignas(128) unsigned char ring[kStages][kStageRows * kRowPitch];
  unsigned char converted[kConverted ? kSplitTile * kPitch : 16];
  unsigned char q[kHeads * kPitch];
  unsigned char weights[kHeads * kWeightPitch];
  float tops[kWarps][kHeads];
  uint64_t full[kStages], empty[kStages];
  SplitPlan plan;
};

struct Params {
  const __nv_bfloat16* q;
  __nv_bfloat16* out;
  int64_t q_stride, out_stride;
  const void* cache;
  int64_t page_size;
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

template <class T>
__device__ void produce(Shared<T>& shared, const Params& params) {
  using S = Shared<T>;
  const int lane = static_cast<int>(threadIdx.x) % 32;
  const T* cache = static_cast<const T*>(params.cache);
  const auto page_size = static_cast<uint32_t>(params.page_size);
  Cursor cursor;
  for (int index = static_cast<int>(blockIdx.x); index < shared.plan.items * params.groups;
       index += static_cast<int>(gridDim.x)) {
    const SplitItem item = split_item(shared.plan, params.tokens, index / params.groups);
    const int32_t* table = params.block_tables + item.sequence * params.table_stride;
    const TokenTail tail = tail_of(params.branches, item.token);
    const int tiles = (item.end - item.begin + kSplitTile - 1) / kSplitTile;
    for (int i = 0; i < tiles * (kSplitTile / kStageRows); ++i, cursor.next()) {
      // Past the end the last entry stands in: its weight is zero, but must not meet a NaN.
      const auto place = static_cast<uint32_t>(min(item.begin + i * kStageRows + lane, item.end - 1));
      const int64_t at = tail.has(static_cast<int>(place))
                             ? tail.entry(static_cast<int>(place))
                             : static_cast<int64_t>(table[place / page_size]) * page_size + place % page_size;
      const T* entry = cache + at * kWidth;
      barrier_wait(&shared.empty[cursor.stage], cursor.parity ^ 1);
      if (lane == 0) barrier_expect(&shared.full[cursor.stage], kStageRows * S::kRowBytes);
      __syncwarp();
      bulk_copy(shared.ring[cursor.stage] + lane * S::kRowPitch, entry, S::kRowBytes,
                &shared.full[cursor.stage]);
    }
  }
}

// A thread's part of the sixteen heads' results: rows lane / 4 and that + 8; of each eight of the warp's
// columns the two at lane % 4 * 2.
struct State {
  float values[kColumns / 8][4];
  float top[2], sum[2];

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

 public:
  __device__ Consumer(Shared<T>& shared, const Params& params)
      : shared_(shared),
        params_(params),
        lane_(static_cast<int>(threadIdx.x) % 32),
        warp_(static_cast<int>(threadIdx.x) / 32) {}

  __device__ void run() {
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
    State nodes[kSplitTop];  // levels 1 to 3 of the tree
    State state;
    const int units = (item.end - item.begin + item.unit_places - 1) / item.unit_places;
    for (int u = 0; u < units; ++u) {
      const int begin = item.begin + u * item.unit_places, end = min(begin + item.unit_places, item.end);
      for (int place = begin; place < end; place += kSplitTile) add_tile(state, end - place, place == begin);
      bool complete = units > 1;
#pragma unroll
      for (int up = 0; up < kSplitTop; ++up) {
        if (!complete) continue;
        const int child = (u >> (2 * up)) & 3;
        if (child == 0)
          nodes[up] = state;
        else
          nodes[up].fold(state);
        state = nodes[up];
        complete = child == 3 || u == units - 1;
      }
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
      *reinterpret_cast<uint4*>(shared_.q + head * kPitch + chunk * 16) = bits;
    }
    named_barrier_sync(1, kConsumers);
  }

  // The next kSplitTile entries of the ring, the first `count` of which are places of the unit.
  __device__ void add_tile(State& state, int count, bool first) {
    Cursor cursors[2] = {cursor_};
    cursor_.next();
    cursors[1] = cursor_;
    cursor_.next();
    uint32_t rows[2];  // addresses of the tile's two halves
    if constexpr (Shared<T>::kConverted) {
      named_barrier_sync(1, kConsumers);  // the last tile is no longer read
      convert(cursors);
      named_barrier_sync(1, kConsumers);
      rows[0] = shared_address(shared_.converted);
      rows[1] = rows[0] + kStageRows * kPitch;
    } else {
      rows[0] = shared_address(shared_.ring[cursors[0].stage]);
      rows[1] = shared_address(shared_.ring[cursors[1].stage]);
      barrier_wait(&shared_.full[cursors[0].stage], cursors[0].parity);
      barrier_wait(&shared_.full[cursors[1].stage], cursors[1].parity);
    }

    // Scores of the warp's eight keys.
    float sums[4][4] = {};  // chains of products that do not wait for one another
    const uint32_t q = shared_address(shared_.q) + lane_ % 16 * kPitch + lane_ / 16 * 16;
    const uint32_t keys = rows[warp_ / 4] + (warp_ % 4 * 8 + lane_ % 8) * kPitch + lane_ / 8 * 16;
#pragma unroll
    for (int k = 0; k < kWidth / 32; ++k) {
      uint32_t a[4], b[4];
      load_matrix4(b, keys + k * 64);
      load_matrix4(a, q + k * 64);
      mma_bf16(sums[k % 2 * 2], a, b);
      load_matrix4(a, q + k * 64 + 32);
      mma_bf16(sums[k % 2 * 2 + 1], a, b + 2);
    }
    float scores[4], top[2];
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const int key = warp_ * 8 + lane_ % 4 * 2 + i % 2;
      scores[i] =
          key < count ? (sums[0][i] + sums[1][i] + (sums[2][i] + sums[3][i])) * params_.scale : -INFINITY;
    }
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      top[i] = fmaxf(scores[2 * i], scores[2 * i + 1]);
      top[i] = fmaxf(top[i], __shfl_xor_sync(0xffffffffU, top[i], 1));
      top[i] = fmaxf(top[i], __shfl_xor_sync(0xffffffffU, top[i], 2));
      if (lane_ % 4 == 0) shared_.tops[warp_][lane_ / 4 + 8 * i] = top[i];
    }
    named_barrier_sync(1, kConsumers);
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      float all = first ? -INFINITY : state.top[i];
#pragma unroll
      for (int w = 0; w < kWarps; ++w) all = fmaxf(all, shared_.tops[w][lane_ / 4 + 8 * i]);
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
          pack_bf16(exp2_fast(scores[2 * i] - all), exp2_fast(scores[2 * i + 1] - all));
    }
    named_barrier_sync(1, kConsumers);

    // The warp's columns. The sums of the weights are a product with ones.
    const uint32_t weights = shared_address(shared_.weights) + lane_ % 16 * kWeightPitch + lane_ / 16 * 16;
    const uint32_t value_offset = (lane_ % 16) * kPitch + warp_ * kColumns * 2 + lane_ / 16 * 16;
    const uint32_t ones[2] = {0x3f803f80U, 0x3f803f80U};
    float totals[4] = {state.sum[0], state.sum[0], state.sum[1], state.sum[1]};
#pragma unroll
    for (int k = 0; k < kSplitTile / 16; ++k) {
      uint32_t a[4];
      load_matrix4(a, weights + k * 32);
      mma_bf16(totals, a, ones);
      const uint32_t values = rows[k / 2] + k % 2 * 16 * kPitch + value_offset;
#pragma unroll
      for (int n = 0; n < kColumns / 16; ++n) {
        uint32_t b[4];
        load_matrix4_transposed(b, values + n * 32);
        mma_bf16(state.values[2 * n], a, b);
        mma_bf16(state.values[2 * n + 1], a, b + 2);
      }
    }
    state.sum[0] = totals[0];
    state.sum[1] = totals[2];
    if constexpr (!Shared<T>::kConverted) release(cursors);
  }

  __device__ void release(const Cursor (&cursors)[2]) {
    barrier_arrive(&shared_.empty[cursors[0].stage]);
    barrier_arrive(&shared_.empty[cursors[1].stage]);
  }

  // FP8 entries of the two stages, into a tile of bf16.
  __device__ void convert(const Cursor (&cursors)[2]) {
    constexpr int kChunks = kWidth / 16, kSteps = kStageRows * kChunks * 2 / kConsumers;
    static_assert(kSteps * kConsumers == kStageRows * kChunks * 2);
    barrier_wait(&shared_.full[cursors[0].stage], cursors[0].parity);
    barrier_wait(&shared_.full[cursors[1].stage], cursors[1].parity);
    bool special = false;
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int i = static_cast<int>(threadIdx.x) + step * kConsumers;
      const int row = i / kChunks, chunk = i % kChunks;
      const uint4 bytes = *reinterpret_cast<const uint4*>(shared_.ring[cursors[row / kStageRows].stage] +
                                                          row % kStageRows * S::kRowPitch + chunk * 16);
      uint4 wide[2];
      special |= widen(bytes.x, wide[0].x, wide[0].y);
      special |= widen(bytes.y, wide[0].z, wide[0].w);
      special |= widen(bytes.z, wide[1].x, wide[1].y);
      special |= widen(bytes.w, wide[1].z, wide[1].w);
      auto* to = reinterpret_cast<uint4*>(shared_.converted + row * kPitch + chunk * 32);
      to[0] = wide[0];
      to[1] = wide[1];
    }
    if (special) convert_specials(cursors);
    release(cursors);
  }

  // Four values to bf16; exact, but for the NaNs and infinities, where it answers true. The bits moved into a
  // bf16's places make the value times a power of two.
  __device__ static bool widen(uint32_t bytes, uint32_t& low, uint32_t& high) {
    if constexpr (std::is_same_v<T, __nv_fp8_e4m3>) {
      fp8x4_to_bf16x4(bytes, low, high);
      return ((bytes & 0x7f7f7f7fU) + 0x01010101U & 0x80808080U) != 0;
    } else {
      const auto two = [](uint32_t pair) {  // bytes in bits 0-7 and 16-23
        const uint32_t moved = (pair << 5 & 0x0fe00fe0U) | (pair << 8 & 0x80008000U);
        constexpr uint32_t kFactor = 0x77807780U;  // 2^112
        const __nv_bfloat162 value = __hmul2(*reinterpret_cast<const __nv_bfloat162*>(&moved),
                                             *reinterpret_cast<const __nv_bfloat162*>(&kFactor));
        return *reinterpret_cast<const uint32_t*>(&value);
      };
      low = two(__byte_perm(bytes, 0, 0x4140));
      high = two(__byte_perm(bytes, 0, 0x4342));
      return ((bytes & 0x7f7f7f7fU) + 0x04040404U & 0x80808080U) != 0;
    }
  }

  // The thread's part of the tile again, by way of float32.
  __device__ void convert_specials(const Cursor (&cursors)[2]) {
    constexpr int kChunks = kWidth / 16;
#pragma unroll 1
    for (int i = static_cast<int>(threadIdx.x); i < 2 * kStageRows * kChunks; i += kConsumers) {
      const int row = i / kChunks, chunk = i % kChunks;
      const unsigned char* from =
          shared_.ring[cursors[row / kStageRows].stage] + row % kStageRows * S::kRowPitch + chunk * 16;
#pragma unroll 1
      for (int half = 0; half < 2; ++half) {
        float values[8];
        load8(reinterpret_cast<const T*>(from + half * 8), values);
        store8(reinterpret_cast<__nv_bfloat16*>(shared_.converted + row * kPitch + chunk * 32 + half * 16),
               values);
      }
    }
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
        float* partial = params_.workspace.partial + int64_t{item.slot} * params_.heads * kLatent + column;
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
  extern __shared__ __align__(128) unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared<T>*>(memory);
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
  params.cache = args.cache.data;
  params.page_size = args.cache.page_size;
  params.positions = args.batch.positions;
  params.slots = args.batch.slots;
  params.block_tables = args.batch.block_tables;
  params.table_stride = args.batch.table_stride;
  params.branches = args.branches;
  params.tokens = static_cast<int>(args.batch.tokens);
  params.heads = static_cast<int>(args.heads);
  params.groups = static_cast<int>(ceil_div<int64_t>(args.heads, kHeads));
  params.scale = args.scale * kLog2E;
  params.workspace = workspace;
  params.workspace.weighed_groups = params.groups;
  const int64_t most_items = workspace.units.most * args.batch.tokens;
  const int64_t grid = std::min<int64_t>(stream.gpu().multiprocessors, most_items * params.groups);
  with_cache_type(args.cache.dtype, [&]<class T>(const T*) {
    if constexpr (sizeof(T) <= 2) {
      constexpr int kBytes = sizeof(Shared<T>);
      static_assert(kBytes <= 227 << 10);
      auto* kernel = &mla_decode_narrow_kernel<T>;
      stream.note(cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes),
                  "mla_decode");
      device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(grid)), dim3(kThreads), kBytes,
                                 params);
    }
  });
  stream.launched("mla_decode");
}

}  // namespace fathom::ops::cuda
