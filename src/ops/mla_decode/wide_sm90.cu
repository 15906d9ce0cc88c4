// mla_decode for many heads (V3: 128) and a bf16 cache, where the tensor cores are what binds: 64 heads are
// the rows of wgmma tiles of 64 entries (wide_cta.cuh), which the copy engine brings. Two CTAs with different
// heads of one query form a cluster and share the tiles that they bring.
#include "ops/mla_decode/wide_cta.cuh"

namespace fathom::ops::cuda {
namespace {

using namespace wide;  // NOLINT: its own

constexpr int kOtherBlocks = kBlocks - kFirstBlocks;

struct SharedFront {
  unsigned char q[kOtherBlocks][kBlockBytes];  // in the order of the scores
  static constexpr int kNearLines = 8;
  float4 near[kNearLines][kSummers];
};
struct Shared : SharedTiles<SharedFront> {
  using Product = __nv_bfloat16;
  static constexpr int kWeighedEach = 1;
  static constexpr bool kWeigherClears = false;  // it has no registers for it
  uint64_t q_empty;
};
constexpr int kSharedBytes = sizeof(Shared) + 1024;  // and room to align
static_assert(kSharedBytes <= 227 << 10);

// By one lane of each of four warps, which share out a tile's blocks of columns; of two CTAs each brings half
// of them to both.
// kBoxes: a tile is always one box, which takes few registers.
template <int kCluster, bool kBoxes>
class Producer {
 public:
  __device__ Producer(Shared& shared, const Params& params)
      : shared_(shared), params_(params), warp_(static_cast<int>(threadIdx.x) % 128 / 32) {}

  __device__ void run() {
    const Turns<kCluster> turns(params_, shared_.plan);
    uint32_t items = 0;
    for (int index = turns.first; turns.has(shared_.plan, index); index += turns.step, ++items) {
      const SplitItem item = turns.item(shared_.plan, index);
      const int first_head = turns.first_head(index);
      // The first before its entries, which are waited for alike.
      if (items == 0) bring_queries(item.token, first_head, items);
      if constexpr (kBoxes)
        bring_boxes(item, turns.rank, first_head, items);
      else
        bring_any(item, turns.rank, first_head, items);
    }
    // Whoever gives a tile back last must find this CTA.
    if constexpr (kCluster > 1) {
      if (warp_ != 0) return;
      for (int i = 0; i < kStages; ++i, ring_.next()) {
        for (uint64_t& empty : shared_.empty[ring_.stage]) barrier_wait(&empty, ring_.phase ^ 1);
      }
    }
  }

 private:
  // A tile is one box, as it lies within a page.
  __device__ void bring_boxes(const SplitItem& item, int rank, int first_head, uint32_t items) {
    const int32_t* page =
        params_.block_tables + item.sequence * params_.table_stride + item.begin / params_.page_size;
    int in_page = item.begin % params_.page_size;
    int left = (item.end - item.begin + kKeys - 1) / kKeys;
    for (bool first = true; left > 0; --left, first = false) {
      const int row = *page * params_.page_size + in_page;
      bring(kKeys * 128, rank, [&](const auto& copy) { copy(0, row, false); });
      in_page += kKeys;
      if (in_page == params_.page_size) {
        in_page = 0;
        ++page;
      }
      if (first && items > 0) bring_queries(item.token, first_head, items);
    }
  }
  __device__ void bring_any(const SplitItem& item, int rank, int first_head, uint32_t items) {
    const TokenTail tail = tail_of(params_.branches, item.token);
    const int32_t* table = params_.block_tables + item.sequence * params_.table_stride;
    for (int begin = item.begin; begin < item.end; begin += kKeys) {
      const TileCopies copies(params_, tail, begin, item.end);
      const int page = table[begin / params_.page_size];
      bring(copies.rows(params_) * 128, rank,
            [&](const auto& copy) { copies.run(params_, tail, table, page, copy); });
      if (begin == item.begin && items > 0) bring_queries(item.token, first_head, items);
    }
  }
  // Once the last item's scores are there, while its outputs are still summed.
  __device__ void bring_queries(int token, int first_head, uint32_t items) {
    barrier_wait(&shared_.q_empty, (items & 1) ^ 1);
    if (warp_ == 0) barrier_expect(&shared_.q_full, kOtherBlocks * kBlockBytes);
#pragma unroll 1
    for (int i = warp_; i < kOtherBlocks; i += 4)
      copy_tile(shared_.q[i], &params_.queries, &shared_.q_full, block_in_order(i + kFirstBlocks) * 64,
                first_head, token);
  }
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
      run([&](int to_row, int32_t row, bool single) {
        const CUtensorMap* map = single ? &params_.entries : &params_.cache;
        if constexpr (kCluster > 1)
          copy_tile_to_cluster_once(to + to_row * 128, map, &full[part], block * 64, row,
                                    (1 << kCluster) - 1);
        else
          copy_tile_once(to + to_row * 128, map, &full[part], block * 64, row);
      });
    }
    if (warp_ == 0) {
      barrier_wait(&empty[1], ring_.phase ^ 1);
      barrier_expect(&full[1], block_bytes * (kBlocks - kFirstBlocks));
    }
    ring_.next();
  }

  Shared& shared_;
  const Params& params_;
  const int warp_;
  Ring<kStages> ring_;
};

// What is kept comes from global memory; the rest to shared memory, where the producer brings it.
class Queries {
 public:
  __device__ Queries(Shared& shared, const Params& params) : shared_(shared), params_(params) {}

  static constexpr int block(int in_order) { return in_order - kFirstBlocks; }

  template <class Turns>
  __device__ void begin(const Turns& /*turns*/) const {}
  __device__ void load(uint32_t (&kept)[kKept][4], int token, int first_head, uint32_t items) const {
    load_queries(kept, params_, token, first_head, [](uint32_t pair) { return pair; });
    barrier_wait(&shared_.q_full, items & 1U);
  }
  template <class Turns>
  __device__ void read(const Turns& /*turns*/, int /*index*/) const {
    if (threadIdx.x % 128 == 0) barrier_arrive(&shared_.q_empty);
  }

 private:
  Shared& shared_;
  const Params& params_;
};

template <int kCluster, bool kLong, bool kBoxes>
__global__ void __cluster_dims__(kCluster, 1, 1) __launch_bounds__(kThreads, 1)
    mla_decode_wide_kernel(const __grid_constant__ Params params, float4* aside) {
  extern __shared__ unsigned char memory[];
  auto& shared = *reinterpret_cast<Shared*>(memory + (1024 - shared_address(memory) % 1024) % 1024);
  if (threadIdx.x == 0) {
    shared.initialize({1, 1}, kCluster, Shared::kWeighedEach);
    barrier_init(&shared.q_empty, 1);
    prefetch_map(&params.queries);
    prefetch_map(&params.cache);
    barrier_init_fence();
  }
  if constexpr (kCluster > 1) cluster_sync();
  device::cuda::let_next_start();  // as mla_decode_narrow_kernel
  make_split_plan(shared.plan, params.positions, params.slots, params.tokens, params.workspace);
  device::cuda::wait_for_previous();
  const int group = static_cast<int>(threadIdx.x) / 128;
  if (group == 0) {
    fewer_registers<24>();
    if (threadIdx.x % 32 == 0) Producer<kCluster, kBoxes>(shared, params).run();
  } else if (group == 1) {
    more_registers<136>();
    Weigher<kCluster, Shared, Queries>(shared, params).run();
  } else {
    more_registers<176>();
    sum_values<kCluster, kCluster, kLong>(shared, params, aside);
  }
}

}  // namespace

bool mla_decode_wide_takes(const device::cuda::Gpu& gpu, const MlaDecodeArgs& args) {
  using device::DType;
  const int64_t page = args.cache.page_size;
  // What a few heads take in groups of 16 an FP8 cache's widening takes for each group.
  const int64_t least = args.cache.dtype == DType::kBF16 ? 49 : kLeastWideHeads;
  return gpu.hopper() && args.heads >= least && args.latent == kLatent && args.cache.width == kWidth &&
         args.q.dtype == DType::kBF16 && args.out.dtype == DType::kBF16 && args.cache.dtype != DType::kF32 &&
         args.q.stride % 8 == 0 && args.out.stride % 8 == 0 &&
         reinterpret_cast<uintptr_t>(args.out.data) % 16 == 0 &&
         (page == 8 || page == 16 || page == 32 || page % 64 == 0);
}

int64_t mla_decode_wide_items(const device::cuda::Gpu& gpu, int64_t heads) {
  return ceil_div<int64_t>(gpu.multiprocessors * 3 / 4, ceil_div<int64_t>(heads, kHeads));
}
int64_t mla_decode_wide_scratch(const device::cuda::Gpu& gpu) {
  return int64_t{gpu.multiprocessors} * kSplitTop * kAsideLines * kSummers * sizeof(float4);
}

void mla_decode_wide(device::cuda::Stream& stream, const MlaDecodeArgs& args, const SplitWorkspace& workspace,
                     void* scratch) {
  const auto launch = [&]<bool kBoxes>(std::bool_constant<kBoxes>) {
    launch_wide(stream, args, workspace, scratch, kSharedBytes, [](auto cluster, auto is_long) {
      return &mla_decode_wide_kernel<decltype(cluster)::value, decltype(is_long)::value, kBoxes>;
    });
  };
  // Where pages are cut into tiles.
  if (args.cache.page_size % kKeys == 0 && args.branches.starts == nullptr)
    launch(std::true_type());
  else
    launch(std::false_type());
}

}  // namespace fathom::ops::cuda
