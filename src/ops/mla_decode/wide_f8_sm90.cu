// mla_decode for many heads and an FP8 cache: as wide_sm90.cu, but that entries come as bytes, in blocks of
// 64 places and 64 columns that three warps widen to f16 into the tiles. The queries' columns that the
// weigher keeps in its registers come there from global memory and leave the room that the bytes take.
#include "ops/mla_decode/wide_cta.cuh"

namespace fathom::ops::cuda {
namespace {

using namespace wide;  // NOLINT: its own

constexpr int kWideners = 3;  // warps
constexpr int kOtherBlocks = kBlocks - kFirstBlocks;

struct SharedFront {
  unsigned char q[kOtherBlocks][kBlockBytes];  // in the order of the scores
  unsigned char raw[kBlocks][kRawBytes];       // likewise
};
struct Shared : SharedTiles<SharedFront> {
  using Product = __half;
  static constexpr int kWeighedEach = 4;        // all that wrote them, for threads write there next
  static constexpr bool kWeigherClears = true;  // likewise
  static constexpr int kNearLines = 0;
  uint64_t raw_full[kBlocks], raw_empty[kBlocks];
};
constexpr int kSharedBytes = sizeof(Shared) + 1024;  // and room to align
static_assert(kSharedBytes <= 227 << 10);

// One lane, which brings the blocks of one tile after another; of two CTAs each brings every other block to
// both.
template <int kCluster>
class Producer {
 public:
  __device__ Producer(Shared& shared, const Params& params) : shared_(shared), params_(params) {}

  __device__ void run() {
    const Turns<kCluster> turns(params_, shared_.plan);
    for (int index = turns.first; turns.has(shared_.plan, index); index += turns.step) {
      const SplitItem item = turns.item(shared_.plan, index);
      const int32_t* table = params_.block_tables + item.sequence * params_.table_stride;
      const TokenTail tail = tail_of(params_.branches, item.token);
      int page = table[item.begin / params_.page_size];
      for (int begin = item.begin; begin < item.end; begin += kKeys) {
        // Looked up now, for the next time.
        const int next = begin + kKeys < item.end ? table[(begin + kKeys) / params_.page_size] : 0;
        if (params_.box_rows == kKeys && min(begin + kKeys, item.end) <= tail.start) {
          const int row = page * params_.page_size + begin % params_.page_size;
          bring(kKeys, turns.rank, [&](const auto& copy) { copy(0, row, false); });
        } else {
          const TileCopies copies(params_, tail, begin, item.end);
          bring(copies.rows(params_), turns.rank,
                [&](const auto& copy) { copies.run(params_, tail, table, page, copy); });
        }
        page = next;
      }
    }
    // Whoever gives a block back last must find this CTA.
    if (tiles_) {
      for (uint64_t& empty : shared_.raw_empty) barrier_wait(&empty, phase_ ^ 1);
    }
  }

 private:
  // run(copy) copies all of a block's rows.
  template <class Run>
  __device__ void bring(uint32_t rows, int rank, const Run& run) {
#pragma unroll 1
    for (int i = 0; i < kBlocks; ++i) {
      uint64_t* full = &shared_.raw_full[i];
      barrier_wait(&shared_.raw_empty[i], phase_ ^ 1);
      barrier_expect(full, rows * 64);
      if (kCluster > 1 && i % kCluster != rank) continue;
      const int column = block_in_order(i) * 64;
      run([&](int to_row, int32_t row, bool single) {
        unsigned char* to = shared_.raw[i] + to_row * 64;
        const auto* from =
            static_cast<const unsigned char*>(params_.cache_data) + int64_t{row} * kWidth + column;
        constexpr uint16_t kAll = (1 << kCluster) - 1;
        if constexpr (kCluster > 1) {
          if (single)
            bulk_copy_to_cluster_once(to, from, 64, full, kAll);
          else
            copy_tile_to_cluster_once(to, &params_.cache, full, column, row, kAll);
        } else {
          if (single)
            bulk_copy_once(to, from, 64, full);
          else
            copy_tile_once(to, &params_.cache, full, column, row);
        }
      });
    }
    phase_ ^= 1U;
    tiles_ = true;
  }

  Shared& shared_;
  const Params& params_;
  uint32_t phase_ = 0;  // of the next tile's blocks
  bool tiles_ = false;
};

// Three warps, each with every third block of a tile.
template <int kCluster, class T>
class Widener {
 public:
  __device__ Widener(Shared& shared, const Params& params, int warp)
      : shared_(shared), params_(params), warp_(warp), lane_(static_cast<int>(threadIdx.x) % 32) {}

  __device__ void run() {
    const uint32_t own_empty = shared_address(shared_.raw_empty),
                   other_empty =
                       cluster_address(shared_.raw_empty, kCluster > 1 ? rank_in_cluster() ^ 1U : 0);
    uint32_t phase = 0;
    for (int left = tiles(); left > 0; --left) {
#pragma unroll 1
      for (int i = warp_; i < kBlocks; i += kWideners) {
        const int part = i < kFirstBlocks ? 0 : 1;
        barrier_wait(&shared_.raw_full[i], phase);
        barrier_wait(&shared_.empty[ring_.stage][part], ring_.phase ^ 1);
        widen_rows<T, kKeys / 8>(shared_.raw[i], 512, shared_.tiles[ring_.stage][block_in_order(i)], 1024,
                                 lane_, [](int) { return kKeys; });
        fence_async();
        barrier_arrive(&shared_.full[ring_.stage][part]);
        // Whoever read says so, to whoever brings the next one.
        const auto offset = static_cast<uint32_t>(i * sizeof(uint64_t));
        barrier_arrive(own_empty + offset);
        if constexpr (kCluster > 1) barrier_arrive_at(other_empty + offset);
      }
      phase ^= 1U;
      ring_.next();
    }
  }

 private:
  // All that the CTA sees.
  __device__ int tiles() const {
    const Turns<kCluster> turns(params_, shared_.plan);
    int tiles = 0;
    for (int index = turns.first; turns.has(shared_.plan, index); index += turns.step) {
      const SplitItem item = turns.item(shared_.plan, index);
      tiles += (item.end - item.begin + kKeys - 1) / kKeys;
    }
    return tiles;
  }

  Shared& shared_;
  const Params& params_;
  const int warp_, lane_;
  Ring<kStages> ring_;
};

// What is kept comes from global memory; the rest to shared memory, for the next item once the last one's
// scores are there.
template <int kCluster, class T>
class Queries {
 public:
  __device__ Queries(Shared& shared, const Params& params) : shared_(shared), params_(params) {}

  static constexpr int block(int in_order) { return in_order - kFirstBlocks; }

  __device__ void begin(const Turns<kCluster>& turns) const {
    if (threadIdx.x % 128 == 0) bring(turns, turns.first);
  }
  __device__ void load(uint32_t (&kept)[kKept][4], int token, int first_head, uint32_t items) const {
    load_queries(kept, params_, token, first_head, [](uint32_t pair) { return query_pair<T>(pair); });
    barrier_wait(&shared_.q_full, items & 1U);
    convert_queries<T, sizeof(shared_.q) / 16>(shared_.q[0], static_cast<int>(threadIdx.x) % 128, 128);
    fence_async();
    named_barrier_sync(kWeighers, 128);
  }
  __device__ void read(const Turns<kCluster>& turns, int index) const {
    if (threadIdx.x % 128 == 0) bring(turns, index + turns.step);
  }

 private:
  __device__ void bring(const Turns<kCluster>& turns, int index) const {
    if (!turns.has(shared_.plan, index)) return;
    const int token = turns.item(shared_.plan, index).token, head = turns.first_head(index);
    barrier_expect(&shared_.q_full, kOtherBlocks * kBlockBytes);
#pragma unroll 1
    for (int i = 0; i < kOtherBlocks; ++i)
      copy_tile(shared_.q[i], &params_.queries, &shared_.q_full, block_in_order(i + kFirstBlocks) * 64, head,
                token);
  }

  Shared& shared_;
  const Params& params_;
};

template <int kCluster, class T, bool kLong>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    mla_decode_wide_f8_kernel(const __grid_constant__ Params params, float4* aside) {
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    shared.initialize({kFirstBlocks * 32, kOtherBlocks * 32}, 1, Shared::kWeighedEach);
    for (int i = 0; i < kBlocks; ++i) {
      barrier_init(&shared.raw_full[i], 1);
      barrier_init(&shared.raw_empty[i], 32 * kCluster);
    }
    barrier_init_fence();
  }
  if constexpr (kCluster > 1) cluster_sync();
  device::cuda::let_next_start();  // as mla_decode_narrow_kernel
  make_split_plan(shared.plan, params.positions, params.slots, params.tokens, params.workspace);
  device::cuda::wait_for_previous();
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 0) {
    fewer_registers<40>();
    const int warp = static_cast<int>(threadIdx.x) / 32;
    if (warp < kWideners)
      Widener<kCluster, T>(shared, params, warp).run();
    else if (threadIdx.x % 32 == 0)
      Producer<kCluster>(shared, params).run();
  } else if (group == 1) {
    more_registers<136>();
    Weigher<kCluster, Shared, Queries<kCluster, T>>(shared, params).run();
  } else {
    more_registers<168>();
    sum_values<kCluster, 1, kLong>(shared, params, aside);
  }
}

}  // namespace

void mla_decode_wide_f8(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                        const SplitWorkspace& workspace, void* scratch) {
  const auto launch = [&]<class T>(const T*) {
    launch_wide(stream, args, workspace, scratch, kSharedBytes, [](auto cluster, auto is_long) {
      return &mla_decode_wide_f8_kernel<decltype(cluster)::value, T, decltype(is_long)::value>;
    });
  };
  if (args.cache.dtype == device::DType::kF8E4M3)
    launch(static_cast<const __nv_fp8_e4m3*>(nullptr));
  else
    launch(static_cast<const __nv_fp8_e5m2*>(nullptr));
}

}  // namespace fathom::ops::cuda
