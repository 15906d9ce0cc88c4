// FP8 weights of many heads (`batched_linear`) and more than 16 rows on Hopper. Such products are short: a
// head's tile of 128 of its rows by all tokens is one to four blocks of 128 of k, so that what it takes to
// begin and to end one is most of it. A CTA does one tile after another; while two warpgroups multiply and
// store one, a warp brings the next ones' operands. Weights are widened to BF16 in registers. The order of
// the sums is that of mma_fp8.cu, and so are the bits.
#include <algorithm>

#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/linear/store_staged.cuh"
#include "ops/linear/widened_rows.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kBlock = 128;             // of k that one scale holds for, and of a stage
constexpr int kConsumers = 2;           // warpgroups
constexpr int kRows = 64 * kConsumers;  // of a head's weight
constexpr int kWarps = 4 * kConsumers;
constexpr int kThreads = 128 * (kConsumers + 1);
constexpr int kLine = 64 * 2;  // bytes of a token's outputs of a warpgroup

template <int kTokens>
struct Shape {
  static constexpr int kWeightBytes = kRows * kBlock;
  static constexpr int kHalfBytes = kTokens * 128;  // 64 of k of the tokens, in the swizzle that wgmma reads
  static constexpr int kStageBytes = kWeightBytes + 2 * kHalfBytes;
  static constexpr int kOutBytes = kTokens * kLine;  // of a warpgroup
  static constexpr int kStages = (225 * 1024 - kConsumers * kOutBytes) / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + kConsumers * kOutBytes + 1024;  // and room to align
};

// All tiles of a call in the order in which they are done: tokens fastest.
struct HeadTiles {
  int tokens, columns, heads;

  struct Tile {
    int head, n_first, first_token;
  };
  __device__ int count() const { return tokens * columns * heads; }
  __device__ Tile at(int index, int height) const {
    const int column = index / tokens;
    return {column / columns, column % columns * kRows, index % tokens * height};
  }
};

// The sums of 64 rows of weights by kTokens tokens, by way of `staged` to `y`: a token's 64 outputs together.
// Of the tokens, `count` are there. By a whole warpgroup; `barrier` is its own.
template <int kTokens>
__device__ void store_outputs_of(__nv_bfloat16* y, int64_t y_stride, int count, uint8_t* staged, int barrier,
                                 const float (&sums)[kTokens / 2]) {
  const int thread = static_cast<int>(threadIdx.x) % 128, lane = thread % 32;
  const auto chunk_at = [&](int token, int chunk) { return token * kLine + (chunk ^ token % 8) * 16; };
  named_barrier_sync(barrier, 128);  // the tile before has been read
  const int matrix = lane / 8;
  const uint32_t first = shared_address(staged);
#pragma unroll
  for (int j = 0; j < kTokens / 8; j += 2) {
    const int token = (j + matrix / 2) * 8 + lane % 8;
    const float* sum = sums + 4 * j;
    store_matrix_x4<true>(first + chunk_at(token, thread / 32 * 2 + matrix % 2), pack_outputs(sum[0], sum[1]),
                          pack_outputs(sum[2], sum[3]), pack_outputs(sum[4], sum[5]),
                          pack_outputs(sum[6], sum[7]));
  }
  named_barrier_sync(barrier, 128);
#pragma unroll
  for (int i = 0; i < kTokens / 16; ++i) {
    const int token = i * 16 + thread / 8, chunk = thread % 8;
    if (token < count) {
      *reinterpret_cast<uint4*>(y + token * y_stride + chunk * 8) =
          *reinterpret_cast<const uint4*>(staged + chunk_at(token, chunk));
    }
  }
}

template <int kTokens>
__global__ void __launch_bounds__(kThreads, 1)
    wgmma_fp8_heads_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                           const __grid_constant__ CUtensorMap weight_map, const HeadTiles tiles) {
  using S = Shape<kTokens>;
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;

  const int thread = static_cast<int>(threadIdx.x);
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], kWarps);
    }
    barrier_init_fence();
  }
  __syncthreads();

  const int blocks = args.k / kBlock;
  const int first_tile = static_cast<int>(blockIdx.x), step = static_cast<int>(gridDim.x);
  const int turns = (tiles.count() - first_tile + step - 1) / step * blocks;  // blocks of all tiles
  const auto tile_of = [&](int turn) { return tiles.at(first_tile + turn / blocks * step, kTokens); };
  if (thread >= kConsumers * 128) {
    fewer_registers<40>();
    if (thread == kConsumers * 128) {
      const auto bring_weights = [&](int turn) {
        const HeadTiles::Tile tile = tile_of(turn);
        const int s = turn % S::kStages;
        barrier_expect(&full[s], S::kStageBytes);
        copy_tile(stages + s * S::kStageBytes, &weight_map, &full[s], turn % blocks * kBlock / 2,
                  tile.head * args.n + tile.n_first);
      };
      // The weights are nobody's output: they come while the kernel before this one still runs.
      for (int turn = 0; turn < S::kStages && turn < turns; ++turn) bring_weights(turn);
      device::cuda::let_next_start();
      device::cuda::wait_for_previous();
      for (int turn = 0; turn < turns; ++turn) {
        const int s = turn % S::kStages;
        if (turn >= S::kStages) {
          barrier_wait(&empty[s], static_cast<uint32_t>(turn / S::kStages - 1) & 1U);
          bring_weights(turn);
        }
        const HeadTiles::Tile tile = tile_of(turn);
        const auto column = static_cast<int32_t>(tile.head * args.x_step) + turn % blocks * kBlock;
        uint8_t* x = stages + s * S::kStageBytes + S::kWeightBytes;
        copy_tile(x, &x_map, &full[s], column, tile.first_token);
        copy_tile(x + S::kHalfBytes, &x_map, &full[s], column + 64, tile.first_token);
      }
    }
    return;
  }

  more_registers<232>();
  const int warp = thread / 32, lane = thread % 32, consumer = thread / 128;
  const int scale_groups = args.n / 8;
  // Of the warp's 16 rows.
  const auto scales_of = [&](int turn) {
    const HeadTiles::Tile tile = tile_of(turn);
    return *reinterpret_cast<const float2*>(args.scales + tile.head * args.scales_step +
                                            turn % blocks * scale_groups + tile.n_first / 8 + warp * 2);
  };
  WidenedRows weights;
  const auto read_weights = [&](int turn) {
    weights.read(stages + turn % S::kStages * S::kStageBytes + warp * 16 * 128);
  };
  uint8_t* staged = stages + S::kStages * S::kStageBytes + consumer * S::kOutBytes;
  float sum[kTokens / 2], part[kTokens / 2];
#pragma unroll
  for (int i = 0; i < kTokens / 2; ++i) sum[i] = part[i] = 0.0F;
  float2 scale = scales_of(0);
  barrier_wait(&full[0], 0);
  read_weights(0);
#pragma unroll 1
  for (int turn = 0; turn < turns; ++turn) {
    const int s = turn % S::kStages;
    const uint8_t* x = stages + s * S::kStageBytes + S::kWeightBytes;
    weights.multiply(part, x);
    float2 next_scale = scale;
    if (turn + 1 < turns) {
      next_scale = scales_of(turn + 1);
      barrier_wait(&full[(turn + 1) % S::kStages], static_cast<uint32_t>((turn + 1) / S::kStages) & 1U);
      read_weights(turn + 1);
    }
    wgmma_wait<0>();
    if (lane == 0) barrier_arrive(&empty[s]);
    const int block = turn % blocks;
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i)
      sum[i] = fmaf(i % 4 < 2 ? scale.x : scale.y, part[i], block == 0 ? 0.0F : sum[i]);
    scale = next_scale;
    if (block + 1 < blocks) continue;

    device::cuda::wait_for_previous();  // y may have been its output
    const HeadTiles::Tile tile = tile_of(turn);
    auto* y = static_cast<__nv_bfloat16*>(args.y) + tile.head * args.y_step +
              int64_t{tile.first_token} * args.y_stride + tile.n_first + consumer * 64;
    store_outputs_of<kTokens>(y, args.y_stride, min(kTokens, args.rows - tile.first_token), staged,
                              1 + consumer, sum);
  }
}

template <int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kTokens>;
  const auto& args = call.args;
  const int64_t columns = (call.heads - 1) * args.x_step + args.k;
  const CUtensorMap x_map =
      device::cuda::tile_map_16bit(stream, args.x, call.max_rows, columns, args.x_stride * 2, kTokens, 64);
  // Pairs of FP8 values.
  const CUtensorMap weight_map = device::cuda::tile_map_16bit(
      stream, args.weight, call.heads * args.n, args.k_stride / 2, args.k_stride, kRows, kBlock / 2);
  const auto kernel = wgmma_fp8_heads_kernel<kTokens>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  const HeadTiles tiles{static_cast<int>(call.row_tiles(kTokens)), args.n / kRows,
                        static_cast<int>(call.heads)};
  const int ctas = std::min(tiles.tokens * tiles.columns * tiles.heads, stream.gpu().multiprocessors);
  device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(ctas)), dim3(kThreads), S::kBytes,
                             args, x_map, weight_map, tiles);
}

}  // namespace

bool linear_wgmma_fp8_heads(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  const bool aligned = reinterpret_cast<uintptr_t>(args.weight) % 16 == 0 &&
                       reinterpret_cast<uintptr_t>(args.scales) % 8 == 0 &&
                       reinterpret_cast<uintptr_t>(args.y) % 16 == 0 && args.y_stride % 8 == 0 &&
                       args.y_step % 8 == 0;
  if (call.heads == 1 || args.y_is_f32 || args.accumulate || args.swiglu || args.n % kRows != 0 ||
      args.k % kBlock != 0 || args.k_stride != args.k || !aligned || call.max_rows <= 16)
    return false;
  if (call.max_rows <= 32) {
    launch<32>(stream, call);
  } else if (call.max_rows <= 64) {
    launch<64>(stream, call);
  } else {
    launch<128>(stream, call);
  }
  stream.launched("linear (wgmma, fp8 heads)");
  return true;
}

}  // namespace fathom::ops::cuda
