// FP8 weights and FP8 activations on Hopper, up to 128 tokens of a dense product: tiles of few rows of the
// weights, chosen so that every multiprocessor reads about as many of them, whole sums of k each. Tokens
// stand on the wide side, up to 16 of them on the narrow one. Weights, tokens and scales are brought by a
// warp each, some blocks of 128 of k at a time; the weights' first stages come while the kernel before this
// one still runs. The CTAs of a cluster stand side by side over the weights' rows and share the tokens, or
// have 64 of 128 tokens each and share the weights: each brings other blocks of them to both. Products and
// their order are those of wgmma_w8a8_sm90.cu, and so are the bits.
#include <algorithm>
#include <type_traits>

#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/linear/store_staged.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kBlock = 128;  // of k that one scale holds for
constexpr int kMostStages = 16;
constexpr int64_t kRoomyRows = 32;

// A CTA's tile: kTokens tokens, kColumns rows of weights; a stage holds kDepth blocks. Clusters of kAcross by
// kDown tiles, one of them 1. Fewer than 64 tokens are on the narrow side of products with the weights on the
// wide one, whose 64 rows are the tile's and what follows them: there is less to add, and a launch whose
// first stages came long before its tokens is as fast as it multiplies and adds.
template <int kTokens_, int kColumns_, int kAcross_, int kDown_>
struct Shape {
  static constexpr int kRows = kTokens_, kColumns = kColumns_, kAcross = kAcross_, kDown = kDown_;
  static constexpr bool kFew = kRows < 64;
  static constexpr int kGroups = kFew ? 1 : kRows / 64;  // of 128 threads
  static constexpr int kCluster = kAcross * kDown;
  static constexpr int kDepth = kColumns <= 16 ? 4 : 2;
  static constexpr int kThreads = 128 * kGroups + 3 * 32;
  static constexpr int kWeightBytes = kColumns * kBlock;              // of a block
  static constexpr int kScales = kRows + (kColumns / 8 + 3) / 4 * 4;  // of a block
  static constexpr int kOutBytes = kFew ? 0 : 4 * kGroups * kStagedBytes;
  // That a product reads from the beginning of a block's tile on, of which some may be another's.
  static constexpr int kReadBytes = kFew ? 64 * kBlock : kRows * kBlock;
  // Short tiles leave room for the kernel behind this one, which brings its weights meanwhile; not those
  // whose stages are mostly tokens, for two such stages are too few.
  static constexpr int kResident = kGroups == 1 ? 2 : 1;
  static constexpr int kMostBytes = 200 * 1024;
  static int most_bytes(int64_t rows) {
    const bool roomy = kColumns / kDown <= 16 && (kDown > 1 || rows <= kRoomyRows);
    return roomy ? 112 * 1024 : kMostBytes;
  }
};

struct Geometry {
  int tiles;        // of clusters
  int rows;         // tokens of a CTA
  int token_bytes;  // of a block: whole eights of rows
  int stages;
};

template <class S>
__global__ void __cluster_dims__(S::kCluster, 1, 1) __launch_bounds__(S::kThreads, S::kResident)
    wgmma_w8a8_narrow_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                             const __grid_constant__ CUtensorMap weight_map, const Geometry geometry) {
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[kMostStages], empty[kMostStages];

  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  if (thread == 0) {
    for (int s = 0; s < geometry.stages; ++s) {
      barrier_init(&full[s], 1 + 32);
      barrier_init(&empty[s], S::kFew ? 128 : 4 * S::kGroups * S::kCluster);
    }
    barrier_init_fence();
    prefetch_map(&x_map);
    prefetch_map(&weight_map);
  }
  cluster_sync();
  const int rank = uniform(static_cast<int>(rank_in_cluster()));
  const int across_rank = rank % S::kAcross, down_rank = rank / S::kAcross;
  const int clusters = static_cast<int>(gridDim.x) / S::kCluster;
  const int first_index = static_cast<int>(blockIdx.x) / S::kCluster;
  const int blocks = args.k / kBlock;
  const int steps = (blocks + S::kDepth - 1) / S::kDepth;
  const auto column_of = [&](int index) { return (index * S::kAcross + across_rank) * S::kColumns; };
  device::cuda::let_next_start();

  // Stages last: what lies behind the tokens that are there is read for those that are not.
  const uint32_t scales = uniform(shared_address(shared_bytes));
  uint8_t* staged = shared_bytes + geometry.stages * S::kDepth * S::kScales * 4;
  const uint32_t stages = uniform((shared_address(staged) + S::kOutBytes + 1023) / 1024 * 1024);
  const uint32_t stage_bytes = S::kDepth * (S::kWeightBytes + geometry.token_bytes);
  const uint32_t full_barriers = uniform(shared_address(full));
  const uint32_t empty_barriers = uniform(shared_address(empty));
  constexpr uint16_t kAll = (1U << S::kCluster) - 1;

  int stage = 0, uses = 0;
  uint32_t phase = 0;
  const auto next_stage = [&] {
    ++uses;
    if (++stage == geometry.stages) {
      stage = 0;
      phase ^= 1U;
    }
  };
  const auto wait_until_empty = [&] {
    if (uses >= geometry.stages) barrier_wait(empty_barriers + stage * 8, phase ^ 1U);
  };

  const int warp = uniform(thread / 32);
  if (warp == S::kGroups * 4) {  // weights
    const auto bring = [&](int s, int step, int column) {
      const uint32_t barrier = full_barriers + s * 8;
      const int here = min(S::kDepth, blocks - step * S::kDepth);
      if constexpr (S::kFew) {
        const auto bytes = static_cast<uint32_t>(here * (S::kWeightBytes + geometry.rows * kBlock));
        const uint32_t to = stages + s * stage_bytes;
        const int k = step * S::kDepth * kBlock;
        copy_tile_by_warp<true>(to, &weight_map, barrier, k, column, bytes);
#pragma unroll
        for (int d = 1; d < S::kDepth; ++d) {
          if (d < here)
            copy_tile_by_warp<false>(to + d * S::kWeightBytes, &weight_map, barrier, k + d * kBlock, column);
        }
      } else if (lane == 0) {
        barrier_expect(barrier, static_cast<uint32_t>(here * (S::kWeightBytes + geometry.rows * kBlock)));
#pragma unroll
        for (int i = 0; i < S::kDepth / S::kDown; ++i) {
          const int d = i * S::kDown + down_rank;
          if (d >= here) break;
          const uint32_t to = stages + s * stage_bytes + d * S::kWeightBytes;
          const int k = (step * S::kDepth + d) * kBlock;
          if constexpr (S::kDown > 1) {
            copy_tile_to_cluster(to, &weight_map, barrier, k, column, kAll);
          } else {
            copy_tile(to, &weight_map, barrier, k, column);
          }
        }
      }
      __syncwarp();
    };
    // The weights are nobody's output.
    const int early = min(geometry.stages, steps);
    for (int step = 0; step < early; ++step) bring(step, step, column_of(first_index));
    device::cuda::wait_for_previous();
    for (int index = first_index; index < geometry.tiles; index += clusters) {
#pragma unroll 1
      for (int step = 0; step < steps; ++step, next_stage()) {
        wait_until_empty();
        if (uses >= early) bring(stage, step, column_of(index));
      }
    }
    // As wait_for_releases of wgmma.cuh.
    if (lane == 0) {
      for (int use = max(uses - geometry.stages, 0); use < uses; ++use)
        barrier_wait(empty_barriers + use % geometry.stages * 8,
                     static_cast<uint32_t>(use / geometry.stages) & 1U);
    }
  } else if (warp == S::kGroups * 4 + 1) {  // tokens
    device::cuda::wait_for_previous();
    for (int index = first_index; index < geometry.tiles; index += clusters) {
#pragma unroll 1
      for (int step = 0; step < steps; ++step, next_stage()) {
        wait_until_empty();
        const uint32_t barrier = full_barriers + stage * 8;
        const int here = min(S::kDepth, blocks - step * S::kDepth);
        if constexpr (S::kFew) {
#pragma unroll
          for (int d = 0; d < S::kDepth; ++d) {
            if (d < here) {
              copy_tile_by_warp<false>(
                  stages + stage * stage_bytes + S::kDepth * S::kWeightBytes + d * geometry.token_bytes,
                  &x_map, barrier, (step * S::kDepth + d) * kBlock, 0);
            }
          }
        } else if (lane == 0) {
#pragma unroll
          for (int i = 0; i < S::kDepth / S::kAcross; ++i) {
            const int d = i * S::kAcross + across_rank;
            if (d >= here) break;
            const uint32_t to =
                stages + stage * stage_bytes + S::kDepth * S::kWeightBytes + d * geometry.token_bytes;
            const int k = (step * S::kDepth + d) * kBlock;
            if constexpr (S::kAcross > 1) {
              copy_tile_to_cluster(to, &x_map, barrier, k, down_rank * S::kRows, kAll);
            } else {
              copy_tile(to, &x_map, barrier, k, down_rank * S::kRows);
            }
          }
        }
        __syncwarp();
      }
    }
  } else if (warp == S::kGroups * 4 + 2) {  // scales of a block: of the tokens, then of the weights' eights
    device::cuda::wait_for_previous();
    const int scale_groups = (args.n + 7) / 8;
    for (int index = first_index; index < geometry.tiles; index += clusters) {
      const int eight = column_of(index) / 8 + (S::kFew ? lane - S::kRows : lane);
      const bool has_weight =
          (S::kFew ? S::kRows <= lane && lane < S::kScales : lane < S::kColumns / 8) && eight < scale_groups;
      const float* of_weights = has_weight ? args.scales + eight : args.scales;
      const int first = down_rank * S::kRows + lane;
      const float* of_tokens = args.x_scales + first;
      // Of few tokens a lane has one scale of a block.
      const bool has_one = has_weight || first < args.rows;
      const float* one = has_weight ? of_weights : has_one ? of_tokens : args.x_scales;
      const int64_t one_step = has_weight ? scale_groups : has_one ? args.x_scale_stride : 0;
#pragma unroll 1
      for (int step = 0; step < steps; ++step, next_stage()) {
        wait_until_empty();
        float* to = reinterpret_cast<float*>(shared_bytes) + stage * S::kDepth * S::kScales + lane;
#pragma unroll
        for (int d = 0; d < S::kDepth; ++d) {
          if (step * S::kDepth + d >= blocks) break;
          if constexpr (S::kFew) {
            if (lane < S::kScales) copy_async_4(to + d * S::kScales, one, has_one);
            one += one_step;
          } else {
#pragma unroll
            for (int i = 0; i < S::kRows / 32; ++i) {
              const bool inside = first + i * 32 < args.rows;
              copy_async_4(to + d * S::kScales + i * 32, inside ? of_tokens + i * 32 : args.x_scales, inside);
            }
            if (lane < S::kColumns / 8) copy_async_4(to + d * S::kScales + S::kRows, of_weights, has_weight);
            of_tokens += args.x_scale_stride;
            if (has_weight) of_weights += scale_groups;
          }
        }
        copy_async_arrive(&full[stage]);
      }
    }
    copy_async_wait<0>();
  } else if constexpr (S::kFew) {
    device::cuda::wait_for_previous();
    for (int index = first_index; index < geometry.tiles; index += clusters) {
      float sum[S::kRows / 2];
#pragma unroll
      for (float& value : sum) value = 0.0F;
      float products[2][S::kDepth][S::kRows / 2];
      int at[2];
      const auto begin = [&](int which) {
        at[which] = stage;
        barrier_wait(full_barriers + stage * 8, phase);
        const uint32_t tiles = stages + stage * stage_bytes;
        next_stage();
        wgmma_fence();
#pragma unroll
        for (int k = 0; k < kBlock / 32; ++k) {
#pragma unroll
          for (int d = 0; d < S::kDepth; ++d) {
            const uint64_t a = wgmma_tile_at(((tiles + d * S::kWeightBytes) & 0x3ffffU) >> 4);
            const uint64_t b = wgmma_tile_at(
                ((tiles + S::kDepth * S::kWeightBytes + d * S::kRows * kBlock) & 0x3ffffU) >> 4);
            wgmma_e4m3(products[which][d], a + 2 * k, b + 2 * k, k > 0);
          }
        }
        wgmma_commit();
      };
      const auto end = [&](int which, int here, auto pending) {
        const uint32_t of_stage = scales + at[which] * (S::kDepth * S::kScales * 4);
        float2 rows[S::kDepth], tokens[S::kDepth][S::kRows / 8];
#pragma unroll
        for (int d = 0; d < S::kDepth; ++d) {
          const uint32_t of_block = of_stage + d * (S::kScales * 4);
#pragma unroll
          for (int j = 0; j < S::kRows / 8; ++j)
            tokens[d][j] = shared_pair(of_block + (8 * j + lane % 4 * 2) * 4);
          rows[d] = shared_pair(of_block + (S::kRows + warp * 2) * 4);
        }
        wgmma_wait<decltype(pending)::value>();
#pragma unroll
        for (int d = 0; d < S::kDepth; ++d) keep_in_place(products[which][d]);
        barrier_arrive(empty_barriers + at[which] * 8);
#pragma unroll
        for (int d = 0; d < S::kDepth; ++d) {
          if (d >= here) break;
#pragma unroll
          for (int j = 0; j < S::kRows / 8; ++j) {
            const float* product = products[which][d] + 4 * j;
            const float2 row = rows[d], token = tokens[d][j];
            sum[4 * j] = fmaf(row.x * token.x, product[0], sum[4 * j]);
            sum[4 * j + 1] = fmaf(row.x * token.y, product[1], sum[4 * j + 1]);
            sum[4 * j + 2] = fmaf(row.y * token.x, product[2], sum[4 * j + 2]);
            sum[4 * j + 3] = fmaf(row.y * token.y, product[3], sum[4 * j + 3]);
          }
        }
      };
      int step = 0;
#pragma unroll 1
      for (; step + 2 <= steps; step += 2) {
        begin(0);
        begin(1);
        end(0, S::kDepth, std::integral_constant<int, 1>{});
        end(1, blocks - (step + 1) * S::kDepth, std::integral_constant<int, 0>{});
      }
      if (step < steps) {
        begin(0);
        end(0, blocks - step * S::kDepth, std::integral_constant<int, 0>{});
      }
      TileArgs tile = args;  // ends where the tile does
      tile.n = min(args.n, column_of(index) + S::kColumns);
      if (warp * 16 < S::kColumns)
        store_sums(tile, 0, {0, 0, args.rows}, 0, column_of(index) + warp * 16, sum);
    }
  } else {
    device::cuda::wait_for_previous();
    const int consumer = warp / 4;
    const uint32_t their_empty_barriers = cluster_address(empty, static_cast<uint32_t>(lane % S::kCluster));
    const uint32_t tokens = S::kDepth * S::kWeightBytes + consumer * 64 * kBlock;
    const uint32_t token_scales = scales + (warp * 16 + lane / 4) * 4;
    const uint32_t weight_scales = scales + S::kRows * 4;
    for (int index = first_index; index < geometry.tiles; index += clusters) {
      float sum[S::kColumns / 2];
#pragma unroll
      for (int i = 0; i < S::kColumns / 2; ++i) sum[i] = 0.0F;
      float products[S::kDepth][S::kColumns / 2];
#pragma unroll 1
      for (int step = 0; step < steps; ++step, next_stage()) {
        const auto s = static_cast<uint32_t>(stage);
        const uint32_t at = stages + s * stage_bytes;
        barrier_wait(full_barriers + s * 8, phase);
        wgmma_fence();
#pragma unroll
        for (int d = 0; d < S::kDepth; ++d) {
          const uint64_t a = wgmma_tile_at(((at + tokens + d * geometry.token_bytes) & 0x3ffffU) >> 4);
          const uint64_t b = wgmma_tile_at(((at + d * S::kWeightBytes) & 0x3ffffU) >> 4);
#pragma unroll
          for (int k = 0; k < kBlock / 32; ++k) wgmma_e4m3(products[d], a + 2 * k, b + 2 * k, k > 0);
          wgmma_commit();
        }
        const int here = blocks - step * S::kDepth;
        const auto add = [&](int d, auto pending) {
          const uint32_t slot = (s * S::kDepth + d) * (S::kScales * 4);
          const float above = shared_float(token_scales + slot),
                      below = shared_float(token_scales + slot + 32);
          float upper[S::kColumns / 8], lower[S::kColumns / 8];
#pragma unroll
          for (int j = 0; j < S::kColumns / 8; ++j) {
            const float weight = shared_float(weight_scales + slot + j * 4);
            upper[j] = weight * above;
            lower[j] = weight * below;
          }
          wgmma_wait<decltype(pending)::value>();
          keep_in_place(products[d]);
          if (d == S::kDepth - 1) {
            __syncwarp();
            if (lane < S::kCluster) barrier_arrive_at(their_empty_barriers + s * 8);
          }
          if (d >= here) return;
#pragma unroll
          for (int j = 0; j < S::kColumns / 8; ++j) {
            sum[4 * j] = fmaf(upper[j], products[d][4 * j], sum[4 * j]);
            sum[4 * j + 1] = fmaf(upper[j], products[d][4 * j + 1], sum[4 * j + 1]);
            sum[4 * j + 2] = fmaf(lower[j], products[d][4 * j + 2], sum[4 * j + 2]);
            sum[4 * j + 3] = fmaf(lower[j], products[d][4 * j + 3], sum[4 * j + 3]);
          }
        };
        if constexpr (S::kDepth == 4) {
          add(0, std::integral_constant<int, 3>{});
          add(1, std::integral_constant<int, 2>{});
        }
        add(S::kDepth - 2, std::integral_constant<int, 1>{});
        add(S::kDepth - 1, std::integral_constant<int, 0>{});
      }
      const int row = down_rank * S::kRows + warp * 16;
      store_staged(args, row, args.rows - row, column_of(index), staged + warp * kStagedBytes, sum);
    }
  }
  cluster_sync();  // the others may still write here
}

template <class S>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  Geometry geometry{};
  geometry.tiles = static_cast<int>(ceil_div<int64_t>(args.n, S::kAcross * S::kColumns));
  geometry.rows = static_cast<int>(std::min<int64_t>(call.max_rows, S::kRows));
  geometry.token_bytes = ceil_div(geometry.rows, 8) * 8 * kBlock;
  // Room to align, and for reading behind the last stage.
  const int fixed = S::kOutBytes + 1024 + std::max(S::kReadBytes - geometry.token_bytes, 0);
  const int stage = S::kDepth * (S::kWeightBytes + geometry.token_bytes + S::kScales * 4);
  geometry.stages = std::min(kMostStages, (S::most_bytes(call.max_rows) - fixed) / stage);
  const CUtensorMap x_map =
      device::cuda::tile_map_8bit(stream, args.x, call.x_rows, args.k, args.x_stride, geometry.rows);
  const CUtensorMap weight_map =
      device::cuda::tile_map_8bit(stream, args.weight, args.n, args.k, args.k_stride, S::kColumns);
  const auto kernel = wgmma_w8a8_narrow_kernel<S>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kMostBytes);
  const int clusters = std::min(geometry.tiles, stream.gpu().multiprocessors / S::kCluster);
  device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(clusters * S::kCluster)),
                             dim3(S::kThreads), fixed + geometry.stages * stage, args, x_map, weight_map,
                             geometry);
}

struct Choice {
  void (*launch)(device::cuda::Stream&, const TileCall&);
  int64_t bytes;  // that the busiest multiprocessor takes in for a byte of k
};

template <class S>
Choice choice(const TileCall& call, int64_t multiprocessors) {
  const int64_t tiles = ceil_div<int64_t>(call.args.n, S::kAcross * S::kColumns);
  const int64_t rounds = ceil_div(tiles, multiprocessors / S::kCluster);
  // Of few tokens a tile takes a consumer as long whatever its rows: tall ones are better at as many bytes.
  return {launch<S>,
          rounds * (S::kColumns + (S::kFew ? S::kRows : std::min<int64_t>(call.max_rows, S::kRows)))};
}

}  // namespace

bool linear_wgmma_w8a8_narrow(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  const int64_t multiprocessors = stream.gpu().multiprocessors;
  if (args.offsets != nullptr || args.k % kBlock != 0 || call.max_rows > 128) return false;
  Choice best{nullptr, 0};
  const auto consider = [&](const Choice& other) {
    if (best.launch == nullptr || other.bytes < best.bytes) best = other;
  };
  const auto consider_few = [&](auto tokens) {
    constexpr int kTokens = decltype(tokens)::value;
    consider(choice<Shape<kTokens, 16, 1, 1>>(call, multiprocessors));
    consider(choice<Shape<kTokens, 32, 1, 1>>(call, multiprocessors));
    consider(choice<Shape<kTokens, 48, 1, 1>>(call, multiprocessors));
    if (!args.swiglu) consider(choice<Shape<kTokens, 56, 1, 1>>(call, multiprocessors));
    consider(choice<Shape<kTokens, 64, 1, 1>>(call, multiprocessors));
  };
  //             tokens, columns, across, down
  if (call.max_rows <= 8) {
    consider_few(std::integral_constant<int, 8>{});
  } else if (call.max_rows <= 16) {
    consider_few(std::integral_constant<int, 16>{});
  } else if (call.max_rows <= 64) {
    consider(choice<Shape<64, 16, 2, 1>>(call, multiprocessors));
    consider(choice<Shape<64, 32, 2, 1>>(call, multiprocessors));
    consider(choice<Shape<64, 48, 2, 1>>(call, multiprocessors));
    if (!args.swiglu) consider(choice<Shape<64, 56, 2, 1>>(call, multiprocessors));
    consider(choice<Shape<64, 64, 2, 1>>(call, multiprocessors));
  } else {
    consider(choice<Shape<64, 32, 1, 2>>(call, multiprocessors));
    consider(choice<Shape<64, 64, 1, 2>>(call, multiprocessors));
    if (!args.swiglu) consider(choice<Shape<128, 56, 2, 1>>(call, multiprocessors));
    consider(choice<Shape<128, 64, 2, 1>>(call, multiprocessors));
  }
  best.launch(stream, call);
  return true;
}

}  // namespace fathom::ops::cuda
