// FP8 weights and FP8 activations on Hopper, many tokens. A CTA does one tile of y after another: one warp
// brings 128 of k at a time of tokens and weights with the bulk copy engine, another their scales, and two
// warpgroups multiply 64 tokens each (in two waves: twice 64) with the weights' rows, both from shared
// memory. A lane has two tokens, so that what it multiplies a part with is little work: the weights' scales,
// and two. Parts take turns in two sets of registers: one is scaled and added while the tensor cores have the
// next. The CTAs of a cluster stand side by side over the weights' rows and share their tokens, or below each
// other and share the weights. Products and their order are those of wgmma_w8a8_sm90.cu, and so are the bits.
#include <algorithm>
#include <type_traits>

#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/store_staged.cuh"
#include "ops/linear/tile_bands.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kBlock = 128;                          // of k that one scale holds for, and of a stage
constexpr int kBandRows = 2048;                      // tokens that take turns with the same weights
constexpr int kConsumers = 2;                        // warpgroups that multiply
constexpr int kRegisters = 232, kFewRegisters = 40;  // of their threads, and of those that bring

// A tile of 128 kWaves tokens and kColumns rows of weights, which are multiplied kPart at a time. Clusters of
// kAcross by kDown tiles, one of them 1.
template <int kWaves_, int kColumns_, int kPart_, int kAcross_, int kDown_>
struct Shape {
  static constexpr int kWaves = kWaves_, kColumns = kColumns_, kPart = kPart_;
  static constexpr int kAcross = kAcross_, kDown = kDown_;
  static constexpr int kCluster = kAcross * kDown;
  static constexpr int kRows = 64 * kConsumers * kWaves;
  // Those who multiply take more than an equal share of the registers: a whole warpgroup brings, and cedes
  // its own.
  static constexpr int kThreads = 128 * kConsumers + 128;
  static constexpr int kWeightBytes = kColumns * kBlock;
  static constexpr int kTokenSlice = kRows / kAcross;  // that a CTA brings
  static constexpr int kWeightSlice = kColumns / kDown;
  static constexpr int kStageBytes = kWeightBytes + kRows * kBlock;
  static constexpr int kScales = kRows + (kColumns / 8 + 3) / 4 * 4;  // of a stage
  static constexpr int kOutBytes = 4 * kConsumers * kStagedBytes;
  static constexpr int kStages =
      (227 * 1024 - 256 - kOutBytes - 1024) / (kStageBytes + kScales * 4);  // and room to align
  static constexpr int kBytes = kStages * (kStageBytes + kScales * 4) + kOutBytes + 1024;
  // Two parts under way need both sets of registers.
  static constexpr bool kTurns = kWaves * kColumns / 2 + kPart <= 192;
};

// All tiles of a call in the order in which clusters do them. A cluster's tile has kAcross * kColumns columns
// and kDown * kRows rows.
struct TileGrid {
  int across, rows, band;

  struct Place {
    int across;
    RowTile tile;  // count 0: there are no more
  };
  // By whole warps.
  __device__ Place at(const TileArgs& args, int index, int height) const {
    if (index >= across * rows) return {0, {0, 0, 0}};
    if (args.offsets != nullptr) return {index % across, find_row_tile(args, index / across, height)};
    const BandPlace place = place_in_bands(index, across, rows, band);
    const int row = place.row * height;
    return {place.across, {0, row, min(height, args.rows - row)}};
  }
};

// Of a part's eights, those from here on may have other scales than the first: a tile begins at a multiple of
// 64 or 128 columns, and scales change at multiples of 128.
template <class S>
constexpr int split_of(int part) {
  for (const int begin : {0, 64}) {
    const int split = (128 - (begin + part * S::kPart) % 128) / 8;
    if (S::kColumns % 128 != 0 && split < S::kPart / 8) return split;
  }
  return S::kPart / 8;
}

// kPaired: Weight::paired_scales.
template <class S, bool kPaired>
__global__ void __cluster_dims__(S::kCluster, 1, 1) __launch_bounds__(S::kThreads, 1)
    wgmma_w8a8_many_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                           const __grid_constant__ CUtensorMap weight_map, const TileGrid grid) {
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;
  uint8_t* scales = stages + S::kStages * S::kStageBytes;
  uint8_t* staged = scales + S::kStages * S::kScales * 4;

  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1 + 32);
      barrier_init(&empty[s], 4 * kConsumers * S::kCluster);
    }
    barrier_init_fence();
  }
  cluster_sync();
  device::cuda::let_next_start();

  const int rank = uniform(static_cast<int>(rank_in_cluster()));
  const int across_rank = rank % S::kAcross, down_rank = rank / S::kAcross;
  const int clusters = static_cast<int>(gridDim.x) / S::kCluster;
  const int first_index = static_cast<int>(blockIdx.x) / S::kCluster;
  const int blocks = (args.k + kBlock - 1) / kBlock;
  const auto place_of = [&](int index) { return grid.at(args, index, S::kRows * S::kDown); };
  const auto columns_of = [&](const TileGrid::Place& place) {
    return (place.across * S::kAcross + across_rank) * S::kColumns;
  };
  const uint32_t full_barriers = uniform(shared_address(full));
  const uint32_t empty_barriers = uniform(shared_address(empty));
  device::cuda::wait_for_previous();

  const int warp = uniform(thread / 32);
  if (warp >= kConsumers * 4) {
    fewer_registers<kFewRegisters>();
    if (warp == kConsumers * 4) {
      const uint32_t to_weights = uniform(shared_address(stages)) + down_rank * S::kWeightSlice * kBlock;
      const uint32_t to_tokens =
          uniform(shared_address(stages)) + S::kWeightBytes + across_rank * S::kTokenSlice * kBlock;
      constexpr uint16_t kAll = (1U << S::kCluster) - 1;
      Ring<S::kStages> ring;
      int uses = 0;
      for (int index = first_index;; index += clusters) {
        const TileGrid::Place place = place_of(index);
        if (place.tile.count <= 0) break;
        const int32_t weight_row =
            uniform(place.tile.group * args.n + columns_of(place) + down_rank * S::kWeightSlice);
        const int32_t token_row =
            uniform(place.tile.first + down_rank * S::kRows + across_rank * S::kTokenSlice);
#pragma unroll 1
        for (int block = 0; block < blocks; ++block, ++uses, ring.next()) {
          const auto s = static_cast<uint32_t>(ring.stage);
          const uint32_t barrier = full_barriers + s * 8, stage = s * S::kStageBytes;
          if (uses >= S::kStages) barrier_wait(empty_barriers + s * 8, ring.phase ^ 1U);
          if (lane == 0) {
            barrier_expect(barrier, S::kStageBytes);
            if constexpr (S::kDown > 1) {
              copy_tile_to_cluster(to_weights + stage, &weight_map, barrier, block * kBlock, weight_row,
                                   kAll);
            } else {
              copy_tile(to_weights + stage, &weight_map, barrier, block * kBlock, weight_row);
            }
            if constexpr (S::kAcross > 1) {
              copy_tile_to_cluster(to_tokens + stage, &x_map, barrier, block * kBlock, token_row, kAll);
            } else {
              copy_tile(to_tokens + stage, &x_map, barrier, block * kBlock, token_row);
            }
          }
          __syncwarp();
        }
      }
      if (lane == 0) wait_for_releases<S::kStages>(empty, uses);
    } else if (warp == kConsumers * 4 + 1) {
      // The scales of a block, of the tile's tokens and then of its eights of the weights' rows.
      const int scale_groups = (args.n + 7) / 8;
      Ring<S::kStages> ring;
      int uses = 0;
      for (int index = first_index;; index += clusters) {
        const TileGrid::Place place = place_of(index);
        if (place.tile.count <= 0) break;
        const int eight = columns_of(place) / 8 + lane;
        const bool has_weight = lane < S::kColumns / 8 && eight < scale_groups;
        const float* of_weights =
            has_weight ? args.scales + place.tile.group * args.scales_step + eight : args.scales;
        const int first = down_rank * S::kRows + lane;
        const float* of_tokens = args.x_scales + place.tile.first + first;
#pragma unroll 1
        for (int block = 0; block < blocks; ++block, ++uses, ring.next()) {
          if (uses >= S::kStages) barrier_wait(&empty[ring.stage], ring.phase ^ 1U);
          float* to = reinterpret_cast<float*>(scales) + ring.stage * S::kScales + lane;
#pragma unroll
          for (int i = 0; i < S::kRows / 32; ++i) {
            const bool inside = first + i * 32 < place.tile.count;
            copy_async_4(to + i * 32, inside ? of_tokens + i * 32 : args.x_scales, inside);
          }
          if (lane < S::kColumns / 8) copy_async_4(to + S::kRows, of_weights, has_weight);
          copy_async_arrive(&full[ring.stage]);
          of_tokens += args.x_scale_stride;
          if (has_weight) of_weights += scale_groups;
        }
      }
      copy_async_wait<0>();
    }
  } else {
    more_registers<kRegisters>();
    const int consumer = warp / 4;
    const uint32_t their_empty_barriers = cluster_address(empty, static_cast<uint32_t>(lane % S::kCluster));
    const uint32_t weights = uniform(wgmma_address(stages));
    const uint32_t tokens = weights + (S::kWeightBytes + consumer * 64 * kBlock) / 16;
    const uint32_t token_scales = shared_address(scales) + (warp * 16 + lane / 4) * 4;
    const uint32_t weight_scales = uniform(shared_address(scales) + S::kRows * 4);
    constexpr int kParts = S::kColumns / S::kPart;  // of a wave
    Ring<S::kStages> ring;
    for (int index = first_index;; index += clusters) {
      TileGrid::Place place = place_of(index);
      if (place.tile.count <= 0) break;
      place.tile.first += down_rank * S::kRows;
      place.tile.count = min(S::kRows, place.tile.count - down_rank * S::kRows);
      // Waves of this warpgroup that have tokens.
      const int waves = uniform(
          min(S::kWaves, (place.tile.count - consumer * 64 + kConsumers * 64 - 1) / (kConsumers * 64)));
      float sums[S::kWaves][S::kColumns / 2];
#pragma unroll
      for (int wave = 0; wave < S::kWaves; ++wave) {
#pragma unroll
        for (int i = 0; i < S::kColumns / 2; ++i) sums[wave][i] = 0.0F;
      }
      float products[2][S::kPart / 2];
      const auto multiply = [&](uint32_t s, int wave, int part, float(&product)[S::kPart / 2]) {
        const uint64_t a =
            wgmma_tile_at(tokens + s * (S::kStageBytes / 16) + wave * (kConsumers * 64 * kBlock / 16));
        const uint64_t b =
            wgmma_tile_at(weights + s * (S::kStageBytes / 16) + part * (S::kPart * kBlock / 16));
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kBlock / 32; ++k) wgmma_e4m3(product, a + 2 * k, b + 2 * k, k > 0);
        wgmma_commit();
      };
      const auto release = [&](uint32_t s) {
        __syncwarp();
        if (lane < S::kCluster) barrier_arrive_at(their_empty_barriers + s * 8);
      };
      // Scales and adds a product once it is there; kPending others may be under way. `last`: of its stage.
      const auto add = [&](uint32_t s, int wave, int part, float(&product)[S::kPart / 2], auto pending,
                           bool last) {
        const uint32_t of_tokens = token_scales + s * (S::kScales * 4) + wave * (kConsumers * 64 * 4);
        const uint32_t of_weights = weight_scales + s * (S::kScales * 4) + part * (S::kPart / 8 * 4);
        const float above = shared_float(of_tokens), below = shared_float(of_tokens + 32);
        float* sum = sums[wave] + part * (S::kPart / 2);
        const auto add_eight = [&](int j, float upper, float lower) {
          sum[4 * j] = fmaf(upper, product[4 * j], sum[4 * j]);
          sum[4 * j + 1] = fmaf(upper, product[4 * j + 1], sum[4 * j + 1]);
          sum[4 * j + 2] = fmaf(lower, product[4 * j + 2], sum[4 * j + 2]);
          sum[4 * j + 3] = fmaf(lower, product[4 * j + 3], sum[4 * j + 3]);
        };
        if constexpr (kPaired) {
          constexpr int kEights = S::kPart / 8;
          const int split = split_of<S>(part);
          float upper[2][2], lower[2][2];
#pragma unroll
          for (int half = 0; half < (split < kEights ? 2 : 1); ++half) {
            const float2 pair = shared_pair(of_weights + half * split * 4);
            upper[half][0] = pair.x * above, upper[half][1] = pair.y * above;
            lower[half][0] = pair.x * below, lower[half][1] = pair.y * below;
          }
          wgmma_wait<decltype(pending)::value>();
          keep_in_place(product);
          if (last) release(s);
#pragma unroll
          for (int j = 0; j < kEights; ++j)
            add_eight(j, upper[j >= split ? 1 : 0][j % 2], lower[j >= split ? 1 : 0][j % 2]);
        } else {
          wgmma_wait<decltype(pending)::value>();
          keep_in_place(product);
#pragma unroll
          for (int j = 0; j < S::kPart / 8; ++j) {
            const float weight = shared_float(of_weights + j * 4);
            add_eight(j, weight * above, weight * below);
          }
          if (last) release(s);
        }
      };
      int block = 0;
      if constexpr (S::kTurns && kPaired) {
        // A few blocks' products, the next always under way while one is added. The compiler does not let one
        // be under way across the loop's end.
        constexpr int kOfBlock = S::kWaves * kParts;
        constexpr int kGroup = kOfBlock >= 2 ? 2 : 4;
        constexpr int kProducts = kGroup * kOfBlock;
        const int groups = waves == S::kWaves ? blocks / kGroup : 0;
#pragma unroll 1
        for (int group = 0; group < groups; ++group) {
          uint32_t at[kGroup];
          const auto begin = [&](int p) {
            const int i = p / kOfBlock;
            if (p % kOfBlock == 0) {
              at[i] = static_cast<uint32_t>(ring.stage);
              barrier_wait(full_barriers + at[i] * 8, ring.phase);
              ring.next();
            }
            multiply(at[i], p % kOfBlock / kParts, p % kParts, products[p % 2]);
          };
          begin(0);
#pragma unroll
          for (int p = 0; p < kProducts; ++p) {
            const int i = p / kOfBlock, wave = p % kOfBlock / kParts, part = p % kParts;
            const bool last = p % kOfBlock == kOfBlock - 1;
            if (p + 1 < kProducts) {
              begin(p + 1);
              add(at[i], wave, part, products[p % 2], std::integral_constant<int, 1>{}, last);
            } else {
              add(at[i], wave, part, products[p % 2], std::integral_constant<int, 0>{}, last);
            }
          }
        }
        block = groups * kGroup;
      }
#pragma unroll 1
      for (; block < blocks; ++block) {
        const auto s = static_cast<uint32_t>(ring.stage);
        barrier_wait(full_barriers + s * 8, ring.phase);
        ring.next();
#pragma unroll
        for (int wave = 0; wave < S::kWaves; ++wave) {
          if (wave >= waves) break;
#pragma unroll
          for (int part = 0; part < kParts; ++part) {
            multiply(s, wave, part, products[0]);
            add(s, wave, part, products[0], std::integral_constant<int, 0>{},
                wave == waves - 1 && part == kParts - 1);
          }
        }
        if (waves <= 0) release(s);
      }
#pragma unroll
      for (int wave = 0; wave < S::kWaves; ++wave) {
        if (wave >= waves) break;
        const int line = (wave * kConsumers + consumer) * 64 + warp % 4 * 16;
        store_staged(args, place.tile.first + line, place.tile.count - line, columns_of(place),
                     staged + warp * kStagedBytes, sums[wave]);
      }
    }
  }
  cluster_sync();  // the others may still write here
}

template <class S, bool kPaired>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  const CUtensorMap x_map =
      device::cuda::tile_map_8bit(stream, args.x, call.x_rows, args.k, args.x_stride, S::kTokenSlice);
  const CUtensorMap weight_map = device::cuda::tile_map_8bit(
      stream, args.weight, int64_t{args.groups} * args.n, args.k, args.k_stride, S::kWeightSlice);
  const auto kernel = wgmma_w8a8_many_kernel<S, kPaired>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  constexpr int kHeight = S::kRows * S::kDown;
  const TileGrid tiles{static_cast<int>(ceil_div<int64_t>(args.n, S::kAcross * S::kColumns)),
                       static_cast<int>(call.row_tiles(kHeight)), kBandRows / kHeight};
  const int clusters = std::min(tiles.across * tiles.rows, stream.gpu().multiprocessors / S::kCluster);
  device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(clusters * S::kCluster)),
                             dim3(S::kThreads), S::kBytes, args, x_map, weight_map, tiles);
}

//                   waves, columns, part, across, down
// Experts: their weights are read once for up to 256 rows, and with up to 128 the second wave is left out.
using Tall = Shape<2, 128, 128, 2, 1>;
using Square = Shape<1, 128, 128, 2, 1>;   // experts with other scales
using Stacked = Shape<1, 128, 128, 1, 2>;  // dense
using Wide = Shape<1, 192, 96, 1, 2>;
using Slim = Shape<1, 64, 64, 1, 2>;  // few tiles

// What a dense call takes with tiles of S: the rounds in which the multiprocessors do them, each as long as a
// tile is wide and a constant (measured, H100).
template <class S>
int64_t rounds_of(const TileCall& call, int64_t multiprocessors) {
  const int64_t tiles =
      ceil_div<int64_t>(call.args.n, S::kColumns) * ceil_div(call.max_rows, int64_t{S::kRows * S::kDown});
  return ceil_div(tiles, multiprocessors / S::kCluster) * (S::kColumns + 24);
}

}  // namespace

bool linear_wgmma_w8a8_many(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  if (args.gather != nullptr || args.y_stride % 2 != 0 || reinterpret_cast<uintptr_t>(args.y) % 8 != 0)
    return false;
  if (args.offsets != nullptr) {
    args.paired_scales ? launch<Tall, true>(stream, call) : launch<Square, false>(stream, call);
    return true;
  }
  if (!args.paired_scales) {
    launch<Stacked, false>(stream, call);
    return true;
  }
  const int64_t multiprocessors = stream.gpu().multiprocessors;
  const int64_t stacked = rounds_of<Stacked>(call, multiprocessors),
                wide = rounds_of<Wide>(call, multiprocessors), slim = rounds_of<Slim>(call, multiprocessors);
  if (slim < stacked && slim < wide) {
    launch<Slim, true>(stream, call);
  } else if (wide < stacked) {
    launch<Wide, true>(stream, call);
  } else {
    launch<Stacked, true>(stream, call);
  }
  return true;
}

}  // namespace fathom::ops::cuda
