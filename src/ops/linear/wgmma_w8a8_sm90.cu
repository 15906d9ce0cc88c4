// FP8 weights and FP8 activations on Hopper, up to 64 tokens: one warp brings tiles of 128 of k with the bulk
// copy engine, and a warpgroup multiplies 64 rows of weights with the tile's tokens, both from shared memory.
// Tokens stand on the narrow side (8 to 64), so that few of them waste little. Each 128 of k is scaled by its
// weights' and its token's scale and added to the sums, in the order of k: products of several blocks are
// under way together. A token's bits do not depend on its batch: every kernel for FP8 activations has these
// products and this order.
#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kBlock = 128;  // of k that one scale holds for, and of a stage

// kParts blocks are multiplied together.
template <int kTokens>
struct Shape {
  static constexpr int kParts = kTokens <= 32 ? 4 : 2;
  static constexpr int kRows = 64;  // of the weights
  static constexpr int kThreads = 128 + 32;
  static constexpr int kResident = 2;  // CTAs a multiprocessor
  static constexpr int kWeightBytes = kRows * kBlock;
  static constexpr int kTokenBytes = kTokens * kBlock;
  static constexpr int kStageBytes = kWeightBytes + kTokenBytes;
  // A warp's of a block: two of its weights, and the tokens'. Those of kParts blocks are used while as many
  // come.
  static constexpr int kScales = 4 + kTokens;
  static constexpr int kScaleSlots = 2 * kParts;
  static constexpr int kScaleBytes = kScales * kScaleSlots * 4 * 4;
  static constexpr int kStages = (224 / kResident * 1024 - kScaleBytes - 1024) / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + kScaleBytes + 1024;  // and room to align
  static constexpr int kRowsOfLane = (kTokens + 31) / 32;
};

template <int kTokens>
__global__ void __launch_bounds__(Shape<kTokens>::kThreads, Shape<kTokens>::kResident)
    wgmma_w8a8_few_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                          const __grid_constant__ CUtensorMap weight_map) {
  using S = Shape<kTokens>;
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;

  const RowTile tile = row_tile_of_block(args, kTokens);
  if (tile.count <= 0) return;

  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], 4);
    }
    barrier_init_fence();
  }
  __syncthreads();

  const int n_first = static_cast<int>(blockIdx.x) * S::kRows;
  const int blocks = (args.k + kBlock - 1) / kBlock;
  const bool gathers = args.gather != nullptr;
  if (thread >= 128) {
    const int32_t weight_row = tile.group * args.n + n_first;
    const auto bring_weights = [&](int s, int block) {
      barrier_expect(&full[s], static_cast<uint32_t>(S::kWeightBytes +
                                                     (gathers ? tile.count * kBlock : S::kTokenBytes)));
      copy_tile(stages + s * S::kStageBytes, &weight_map, &full[s], block * kBlock, weight_row);
    };
    // The weights are nobody's output: they come while the kernel before this one still runs.
    if (lane == 0) {
      for (int block = 0; block < S::kStages && block < blocks; ++block) bring_weights(block, block);
    }
    device::cuda::let_next_start();
    device::cuda::wait_for_previous();

    if (gathers) {  // a lane brings the tile's lines lane, lane + 32 ..
      int32_t rows[S::kRowsOfLane];
#pragma unroll
      for (int i = 0; i < S::kRowsOfLane; ++i) {
        const int line = i * 32 + lane;
        rows[i] = line < tile.count ? args.gather[tile.first + line] : -1;
      }
      Ring<S::kStages> ring;
      for (int block = 0; block < blocks; ++block, ring.next()) {
        const int s = ring.stage;
        if (block >= S::kStages) {
          barrier_wait(&empty[s], ring.phase ^ 1U);
          if (lane == 0) bring_weights(s, block);
        }
        uint8_t* x = stages + s * S::kStageBytes + S::kWeightBytes;
#pragma unroll
        for (int i = 0; i < S::kRowsOfLane; ++i) {
          if (rows[i] >= 0)
            copy_tile(x + (i * 32 + lane) * kBlock, &x_map, &full[s], block * kBlock, rows[i]);
        }
      }
    } else if (lane == 0) {
      Ring<S::kStages> ring;
      for (int block = 0; block < blocks; ++block, ring.next()) {
        const int s = ring.stage;
        if (block >= S::kStages) {
          barrier_wait(&empty[s], ring.phase ^ 1U);
          bring_weights(s, block);
        }
        copy_tile(stages + s * S::kStageBytes + S::kWeightBytes, &x_map, &full[s], block * kBlock,
                  tile.first);
      }
    }
    return;
  }

  const int warp = thread / 32;
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();
  // The scales of a block, for this warp alone: of its 16 rows of weights, and of the tile's tokens.
  float* slots =
      reinterpret_cast<float*>(stages + S::kStages * S::kStageBytes) + warp * S::kScaleSlots * S::kScales;
  const int scale_groups = (args.n + 7) / 8;
  const int first_scale = n_first / 8 + warp * 2;
  const bool has_rows = lane < 2 && first_scale + lane < scale_groups;
  const float* of_rows =
      has_rows ? args.scales + tile.group * args.scales_step + first_scale + lane : args.scales;
  const float* of_tokens[S::kRowsOfLane];
#pragma unroll
  for (int i = 0; i < S::kRowsOfLane; ++i) {
    const int line = i * 32 + lane;
    const int32_t row = line >= tile.count ? -1
                        : gathers          ? args.gather[tile.first + line]
                                           : tile.first + line;
    of_tokens[i] = row >= 0 ? args.x_scales + row : nullptr;
  }
  const auto fetch_scales = [&](int block) {
    if (block < blocks) {
      float* to = slots + block % S::kScaleSlots * S::kScales;
      if (lane < 2) copy_async_4(to + lane, of_rows, has_rows);
      of_rows += has_rows ? scale_groups : 0;
#pragma unroll
      for (int i = 0; i < S::kRowsOfLane; ++i) {
        const bool inside = of_tokens[i] != nullptr;
        if (i * 32 + lane < kTokens)
          copy_async_4(to + 4 + i * 32 + lane, inside ? of_tokens[i] : args.x_scales, inside);
        if (inside) of_tokens[i] += args.x_scale_stride;
      }
    }
  };
  const auto fetch_group = [&](int first) {
    for (int i = 0; i < S::kParts; ++i) fetch_scales(first + i);
    copy_async_commit();
  };
  fetch_group(0);

  const uint32_t full_barriers = kept(shared_address(full));
  const uint32_t empty_barriers = kept(shared_address(empty));
  const uint32_t tiles = kept(wgmma_address(stages));
  float sum[kTokens / 2];
  float parts[S::kParts][kTokens / 2];
#pragma unroll
  for (int i = 0; i < kTokens / 2; ++i) sum[i] = 0.0F;
  const auto multiply = [&](int s, float(&part)[kTokens / 2]) {
    const uint32_t stage = tiles + static_cast<uint32_t>(s) * (S::kStageBytes / 16);
    const uint64_t a = wgmma_tile_at(stage);
    const uint64_t b = wgmma_tile_at(stage + S::kWeightBytes / 16);
#pragma unroll
    for (int k = 0; k < kBlock / 32; ++k) wgmma_e4m3(part, a + 2 * k, b + 2 * k, k > 0);
  };
  const auto add = [&](int block, const float(&part)[kTokens / 2]) {
    const float* scales = slots + block % S::kScaleSlots * S::kScales;
    const float2 row = *reinterpret_cast<const float2*>(scales);
#pragma unroll
    for (int j = 0; j < kTokens / 8; ++j) {
      const float2 token = *reinterpret_cast<const float2*>(scales + 4 + 8 * j + lane % 4 * 2);
      sum[4 * j] = fmaf(row.x * token.x, part[4 * j], sum[4 * j]);
      sum[4 * j + 1] = fmaf(row.x * token.y, part[4 * j + 1], sum[4 * j + 1]);
      sum[4 * j + 2] = fmaf(row.y * token.x, part[4 * j + 2], sum[4 * j + 2]);
      sum[4 * j + 3] = fmaf(row.y * token.y, part[4 * j + 3], sum[4 * j + 3]);
    }
  };
  Ring<S::kStages> ring;
  int block = 0;
#pragma unroll 1
  for (; block + S::kParts <= blocks; block += S::kParts) {
    int at[S::kParts];
#pragma unroll
    for (int i = 0; i < S::kParts; ++i, ring.next()) {
      at[i] = ring.stage;
      barrier_wait(full_barriers + static_cast<uint32_t>(ring.stage) * 8, ring.phase);
    }
    wgmma_fence();
#pragma unroll
    for (int i = 0; i < S::kParts; ++i) multiply(at[i], parts[i]);
    wgmma_commit();
    fetch_group(block + S::kParts);
    copy_async_wait<1>();
    __syncwarp();
    wgmma_wait<0>();
    if (lane == 0) {
#pragma unroll
      for (int i = 0; i < S::kParts; ++i) barrier_arrive(empty_barriers + static_cast<uint32_t>(at[i]) * 8);
    }
#pragma unroll
    for (int i = 0; i < S::kParts; ++i) add(block + i, parts[i]);
    __syncwarp();
  }
  copy_async_wait<0>();
  __syncwarp();
#pragma unroll 1
  for (; block < blocks; ++block, ring.next()) {
    barrier_wait(full_barriers + static_cast<uint32_t>(ring.stage) * 8, ring.phase);
    wgmma_fence();
    multiply(ring.stage, parts[0]);
    wgmma_commit();
    wgmma_wait<0>();
    if (lane == 0) barrier_arrive(empty_barriers + static_cast<uint32_t>(ring.stage) * 8);
    add(block, parts[0]);
  }
  store_sums(args, 0, tile, 0, n_first + warp * 16, sum);
}

template <int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kTokens>;
  const auto& args = call.args;
  const int box_rows = args.gather != nullptr ? 1 : kTokens;
  const CUtensorMap x_map =
      device::cuda::tile_map_8bit(stream, args.x, call.x_rows, args.k, args.x_stride, box_rows);
  const CUtensorMap weight_map = device::cuda::tile_map_8bit(
      stream, args.weight, int64_t{args.groups} * args.n, args.k, args.k_stride, S::kRows);
  const auto kernel = wgmma_w8a8_few_kernel<kTokens>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  const dim3 grid(static_cast<unsigned>(ceil_div<int64_t>(args.n, S::kRows)),
                  static_cast<unsigned>(call.row_tiles(kTokens)), 1);
  device::cuda::launch_early(stream, kernel, grid, dim3(S::kThreads), S::kBytes, args, x_map, weight_map);
}

}  // namespace

void linear_wgmma_w8a8(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  if (linear_wgmma_w8a8_narrow(stream, call)) return stream.launched("linear (wgmma, fp8 x fp8)");
  // Groups differ in their rows: room for twice the average, where that costs nothing but tensor work.
  const int64_t rows = args.offsets != nullptr ? call.rows_of_a_group() * 2 : call.max_rows;
  if (rows <= 8) {
    launch<8>(stream, call);
  } else if (rows <= 16) {
    launch<16>(stream, call);
  } else if (rows <= 32) {
    launch<32>(stream, call);
  } else if (rows <= 64 || !linear_wgmma_w8a8_many(stream, call)) {
    launch<64>(stream, call);
  }
  stream.launched("linear (wgmma, fp8 x fp8)");
}

}  // namespace fathom::ops::cuda
