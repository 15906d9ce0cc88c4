// FP8 weights and FP8 activations on Hopper, many tokens: one warp brings tiles of 128 of k with the bulk
// copy engine,and each warpgroup multiplies 64 tokens (in two waves: twice 64) with the tile's 64 or 128 rows
// of weights, both from shared memory. A lane has two tokens, so that what it multiplies a part with is
// little work: the weights' scales, and two. A CTA does one tile of y after another, and while its results go
// out the next one's operands come in. The two CTAs of a cluster stand side by side over the weights' rows
// and share their tokens: each brings half of them to both. Products and their order are those of
// wgmma_w8a8_sm90.cu, and so are the bits.
#include <algorithm>

#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/store_rows.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kBlock = 128;                          // of k that one scale holds for, and of a stage
constexpr int kBand = 8;                             // tiles of tokens that take turns with the same weights
constexpr int kConsumers = 2;                        // warpgroups that multiply
constexpr int kRegisters = 232, kFewRegisters = 40;  // of their threads, and of those that bring
constexpr int kGroup =
    4;  // blocks whose scales a warp brings together, while it uses those of the group before

template <int kWaves, int kColumns, int kCluster>
struct Shape {
  static constexpr int kRows = 64 * kConsumers * kWaves;
  // Those who multiply take more than an equal share of the registers: a whole warpgroup brings, and cedes
  // its own.
  static constexpr int kThreads = 128 * kConsumers + 128;
  static constexpr int kWeightBytes = kColumns * kBlock;
  static constexpr int kTokenBytes = kRows * kBlock;
  static constexpr int kSlice = kRows / kCluster;  // tokens
  static constexpr int kStageBytes = kWeightBytes + kTokenBytes;
  static constexpr int kScales = 16 + 16 * kWaves;  // a warp's of a block: of the weights, and of its tokens
  static constexpr int kScaleBytes = 4 * kConsumers * 2 * kGroup * kScales * 4;
  static constexpr int kStages = (226 * 1024 - kScaleBytes - 1024) / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + kScaleBytes + 1024;  // and room to align
};

// All tiles of a call in the order in which clusters do them. A cluster's tile has kCluster * kColumns
// columns.
struct TileGrid {
  int across, rows;

  struct Place {
    int across;
    RowTile tile;  // count 0: there are no more
  };
  // By whole warps.
  __device__ Place at(const TileArgs& args, int index, int height) const {
    if (index >= across * rows) return {0, {0, 0, 0}};
    if (args.offsets != nullptr) return {index % across, find_row_tile(args, index / across, height)};
    // In bands, so that what runs at a time reads few tokens and few weights.
    const int first = index / (across * kBand) * kBand;
    const int band = min(kBand, rows - first);
    const int within = index - first * across;
    const int row = (first + within % band) * height;
    return {within / band, {0, row, min(height, args.rows - row)}};
  }
};

template <int kWaves, int kColumns, int kCluster, int kScales>
__global__ void __cluster_dims__(kCluster, 1,
                                 1) __launch_bounds__(Shape<kWaves, kColumns, kCluster>::kThreads, 1)
    wgmma_w8a8_many_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                           const __grid_constant__ CUtensorMap weight_map, const TileGrid grid) {
  using S = Shape<kWaves, kColumns, kCluster>;
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;

  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], 4 * kConsumers * kCluster);
    }
    barrier_init_fence();
  }
  cluster_sync();
  device::cuda::let_next_start();

  const int rank = static_cast<int>(rank_in_cluster());
  const int clusters = static_cast<int>(gridDim.x) / kCluster;
  const int first_index = static_cast<int>(blockIdx.x) / kCluster;
  const int blocks = (args.k + kBlock - 1) / kBlock;
  const auto columns_of = [&](const TileGrid::Place& place) {
    return (place.across * kCluster + rank) * kColumns;
  };
  device::cuda::wait_for_previous();

  if (thread >= kConsumers * 128) {
    fewer_registers<kFewRegisters>();
    if (thread < kConsumers * 128 + 32) {
      Ring<S::kStages> ring;
      int uses = 0;
      for (int index = first_index;; index += clusters) {
        const TileGrid::Place place = grid.at(args, index, S::kRows);
        if (place.tile.count <= 0) break;
        if (lane == 0) {
          const int32_t weight_row = place.tile.group * args.n + columns_of(place);
          for (int block = 0; block < blocks; ++block, ++uses, ring.next()) {
            const int s = ring.stage;
            if (uses >= S::kStages) barrier_wait(&empty[s], ring.phase ^ 1U);
            barrier_expect(&full[s], S::kStageBytes);
            uint8_t* stage = stages + s * S::kStageBytes;
            copy_tile(stage, &weight_map, &full[s], block * kBlock, weight_row);
            copy_tile_to_cluster(stage + S::kWeightBytes + rank * S::kSlice * kBlock, &x_map, &full[s],
                                 block * kBlock, place.tile.first + rank * S::kSlice, (1U << kCluster) - 1);
          }
        }
        __syncwarp();
      }
      if (lane == 0) wait_for_releases<S::kStages>(empty, uses);
    }
  } else {
    more_registers<kRegisters>();
    const int consumer = thread / 128;
    const int warp = thread / 32;
    float* slots =
        reinterpret_cast<float*>(stages + S::kStages * S::kStageBytes) + warp * 2 * kGroup * S::kScales;
    const int scale_groups = (args.n + 7) / 8;

    // A block's scales: lanes 0 .. 15 bring those of the tile's weights, eight rows each, the others those of
    // the warp's 16 tokens of each wave. They come a group of blocks ahead, of the next tile too.
    const int32_t step = lane < 16 ? scale_groups : static_cast<int32_t>(args.x_scale_stride);
    const float* from = nullptr;
    bool inside[kWaves];
    const auto begin_tile = [&](const TileGrid::Place& of) {
      const RowTile& tile = of.tile;
      const int eight = columns_of(of) / 8 + lane;
      const int line = warp * 16 + lane - 16;
      from =
          lane < 16 ? args.scales + tile.group * args.scales_step + eight : args.x_scales + tile.first + line;
#pragma unroll
      for (int wave = 0; wave < kWaves; ++wave) {
        inside[wave] = lane < 16 ? wave == 0 && lane < kColumns / 8 && eight < scale_groups
                                 : wave * kConsumers * 64 + line < tile.count;
      }
    };
    float* arriving = slots + lane;
    float* used = slots;
    const auto fetch_group = [&](int first_block) {
#pragma unroll
      for (int i = 0; i < kGroup; ++i) {
#pragma unroll
        for (int wave = 0; wave < kWaves; ++wave) {
          const bool wanted = inside[wave] && first_block + i < blocks;
          if (wave == 0 || lane >= 16) {
            copy_async_4(arriving + i * S::kScales + wave * 16,
                         wanted ? from + wave * kConsumers * 64 : args.scales, wanted);
          }
        }
        from += step;
      }
      copy_async_commit();
      arriving += arriving == slots + lane ? kGroup * S::kScales : -kGroup * S::kScales;
    };
    TileGrid::Place place = grid.at(args, first_index, S::kRows);
    if (place.tile.count > 0) {
      begin_tile(place);
      fetch_group(0);
    }

    Ring<S::kStages> ring;
    const uint32_t full_barriers = kept(shared_address(full));
    const uint32_t their_empty_barriers =
        kept(cluster_address(empty, static_cast<uint32_t>(lane % kCluster)));
    const uint32_t weights = kept(wgmma_address(stages));
    const uint32_t tokens = weights + (S::kWeightBytes + consumer * 64 * kBlock) / 16;
    constexpr uint32_t kWaveStep = kConsumers * 64 * kBlock / 16;
    for (int index = first_index; place.tile.count > 0;) {
      index += clusters;
      TileGrid::Place next;
      float sums[kWaves][kColumns / 2];
#pragma unroll
      for (int wave = 0; wave < kWaves; ++wave) {
#pragma unroll
        for (int i = 0; i < kColumns / 2; ++i) sums[wave][i] = 0.0F;
      }
#pragma unroll 1
      for (int group = 0; group < blocks; group += kGroup) {
        copy_async_wait<0>();
        __syncwarp();
        if (group + kGroup < blocks) {
          fetch_group(group + kGroup);
        } else {
          next = grid.at(args, index, S::kRows);
          if (next.tile.count > 0) {
            begin_tile(next);
            fetch_group(0);
          }
        }
        const int end = min(kGroup, blocks - group);
#pragma unroll
        for (int i = 0; i < kGroup; ++i) {
          if (i >= end) break;
          const auto s = static_cast<uint32_t>(ring.stage);
          barrier_wait(full_barriers + s * 8, ring.phase);
          ring.next();
          const float* scales = used + i * S::kScales;
          float of_weights[kScales];
#pragma unroll
          for (int e = 0; e < kScales; e += 2) {
            const float2 pair = reinterpret_cast<const float2*>(scales)[e / 2];
            of_weights[e] = pair.x;
            of_weights[e + 1] = pair.y;
          }
#pragma unroll
          for (int wave = 0; wave < kWaves; ++wave) {
            if ((wave * kConsumers + consumer) * 64 >= place.tile.count)
              continue;  // none of these tokens is there
            float(&sum)[kColumns / 2] = sums[wave];
            float part[kColumns / 2];
            const uint64_t a = wgmma_tile_at(tokens + s * (S::kStageBytes / 16) + wave * kWaveStep);
            const uint64_t b = wgmma_tile_at(weights + s * (S::kStageBytes / 16));
            wgmma_fence();
#pragma unroll
            for (int k = 0; k < kBlock / 32; ++k) wgmma_e4m3(part, a + 2 * k, b + 2 * k, k > 0);
            wgmma_commit();
            const float above = scales[16 + wave * 16 + lane / 4];
            const float below = scales[16 + wave * 16 + lane / 4 + 8];
            wgmma_wait<0>();
#pragma unroll
            for (int j = 0; j < kColumns / 8; ++j) {
              const float weight = of_weights[j % kScales];
              sum[4 * j] = fmaf(weight * above, part[4 * j], sum[4 * j]);
              sum[4 * j + 1] = fmaf(weight * above, part[4 * j + 1], sum[4 * j + 1]);
              sum[4 * j + 2] = fmaf(weight * below, part[4 * j + 2], sum[4 * j + 2]);
              sum[4 * j + 3] = fmaf(weight * below, part[4 * j + 3], sum[4 * j + 3]);
            }
          }
          if (lane < kCluster) barrier_arrive_at(their_empty_barriers + s * 8);
        }
        used += used == slots ? kGroup * S::kScales : -kGroup * S::kScales;
      }
#pragma unroll
      for (int wave = 0; wave < kWaves; ++wave) {
        const int first = (wave * kConsumers + consumer) * 64;
        if (first < place.tile.count) store_rows(args, place.tile, first, columns_of(place), sums[wave]);
      }
      place = next;
    }
  }
  cluster_sync();  // the others may still write here
}

// kScales: of the weights in a block: two (Weight::paired_scales), or one for each eight columns.
template <int kWaves, int kColumns, int kCluster, int kScales>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kWaves, kColumns, kCluster>;
  const auto& args = call.args;
  const CUtensorMap x_map =
      device::cuda::tile_map_8bit(stream, args.x, call.x_rows, args.k, args.x_stride, S::kSlice);
  const CUtensorMap weight_map = device::cuda::tile_map_8bit(
      stream, args.weight, int64_t{args.groups} * args.n, args.k, args.k_stride, kColumns);
  const auto kernel = wgmma_w8a8_many_kernel<kWaves, kColumns, kCluster, kScales>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  const TileGrid tiles{static_cast<int>(ceil_div<int64_t>(args.n, kCluster * kColumns)),
                       static_cast<int>(call.row_tiles(S::kRows))};
  const int clusters = std::min(tiles.across * tiles.rows, stream.gpu().multiprocessors / kCluster);
  device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(clusters * kCluster)),
                             dim3(S::kThreads), S::kBytes, args, x_map, weight_map, tiles);
}

}  // namespace

bool linear_wgmma_w8a8_many(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  if (args.gather != nullptr || args.y_stride % 2 != 0 || reinterpret_cast<uintptr_t>(args.y) % 8 != 0)
    return false;
  const int64_t clusters = stream.gpu().multiprocessors / 2;
  const auto rounds = [&](int64_t rows) {
    return ceil_div(ceil_div<int64_t>(args.n, 2 * 128) * call.row_tiles(rows), clusters);
  };
  // Few tiles: half as wide, so that there are twice as many CTAs, of which four share their tokens.
  const bool narrow = args.offsets == nullptr && call.max_rows <= 128 && args.n <= 32 * 4 * 64;
  // Two waves read a third less for the same products.
  const bool tall =
      args.offsets != nullptr ? call.rows_of_a_group() > 192 : rounds(256) * 17 <= rounds(128) * 10;
  if (args.paired_scales) {
    narrow ? launch<1, 64, 4, 2>(stream, call)
    : tall ? launch<2, 128, 2, 2>(stream, call)
           : launch<1, 128, 2, 2>(stream, call);
  } else {
    narrow ? launch<1, 64, 4, 8>(stream, call)
    : tall ? launch<2, 128, 2, 16>(stream, call)
           : launch<1, 128, 2, 16>(stream, call);
  }
  return true;
}

}  // namespace fathom::ops::cuda
