// FP8 weights and FP8 activations on Hopper, up to 64 tokens of a group: one warp brings tiles of 128 of k
// with the bulk copy engine, and a warpgroup multiplies 64 rows of weights with the tile's tokens, both from
// shared memory. A CTA does one tile after another, and the ring of stages goes on filling while results go
// out. Tokens stand on the narrow side (8 to 64), so that few of them waste little. Each 128 of k is scaled
// by its weights' and its token's scale and added to the sums, in the order of k: products of several blocks
// are under way together. A token's bits do not depend on its batch: every kernel for FP8 activations has
// these products and this order.
#include <algorithm>

#include "base/check.h"
#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/group_tiles.cuh"
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
  // 8 KB: the groups' tiles, and room to align.
  static constexpr int kStages = ((224 / kResident - 8) * 1024 - kScaleBytes) / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + kScaleBytes + 1024;  // and room to align
  static constexpr int kRowsOfLane = (kTokens + 31) / 32;
};

template <int kTokens, bool kBeside>
__global__ void __launch_bounds__(Shape<kTokens>::kThreads, Shape<kTokens>::kResident)
    wgmma_w8a8_few_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                          const __grid_constant__ CUtensorMap weight_map,
                          const __grid_constant__ Beside<kBeside> beside, uint32_t* counter) {
  using S = Shape<kTokens>;
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  __shared__ GroupTiles groups;
  __shared__ PieceTurns turns;
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;

  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32;
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1);
      barrier_init(&empty[s], 4);
    }
    groups.begin();
    turns.begin();
    barrier_init_fence();
  }
  __syncthreads();

  const Pieces<kBeside, kTokens, S::kRows> pieces{args, beside.args_or(args), groups};
  const auto blocks_of = [](const TileArgs& a) { return (a.k + kBlock - 1) / kBlock; };
  int index = static_cast<int>(blockIdx.x);
  if (thread >= 128) {
    PieceProducer<S::kStages, kBlock, kTokens, S::kRows, kBeside>{pieces,  beside, x_map, weight_map, turns,
                                                                  counter, full,   empty, stages}
        .run();
    return;
  }

  const int warp = thread / 32;
  // The scales of a block, for this warp alone: of its 16 rows of weights, and of the tile's tokens. They
  // come kParts blocks at a time, those of the next tile while the last ones of this are used.
  float* slots =
      reinterpret_cast<float*>(stages + S::kStages * S::kStageBytes) + warp * S::kScaleSlots * S::kScales;
  int still = 0;  // blocks of the tile whose scales come, that do not come yet
  int scale_groups = 0;
  bool has_rows = false;
  const float* of_rows = args.scales;
  const float* of_tokens[S::kRowsOfLane];
  int64_t token_step = 0;
  bool counted = false;
  // Scales from now on are those of this tile, if it is one.
  const auto begin_scales = [&](int coming) {
    if (!counted && coming >= pieces.others) {
      groups.wait();
      device::cuda::wait_for_previous();  // y and the scales may be its output
      counted = true;
    }
    if (coming >= pieces.others && coming >= pieces.count()) return;
    const auto piece = pieces.at(coming);
    const TileArgs& a = pieces.args_of(piece);
    scale_groups = (a.n + 7) / 8;
    token_step = a.x_scale_stride;
    const int first_scale = piece.n_first / 8 + warp * 2;
    has_rows = lane < 2 && first_scale + lane < scale_groups;
    of_rows = has_rows ? a.scales + piece.tile.group * a.scales_step + first_scale + lane : a.scales;
#pragma unroll
    for (int i = 0; i < S::kRowsOfLane; ++i) {
      const int line = i * 32 + lane;
      const int32_t row = line >= piece.tile.count ? -1
                          : a.gather != nullptr    ? a.gather[piece.tile.first + line]
                                                   : piece.tile.first + line;
      of_tokens[i] = row >= 0 ? a.x_scales + row : nullptr;
    }
    still = blocks_of(a);
  };
  const auto fetch_scales = [&](int half) {
    float* to = slots + half * S::kParts * S::kScales;
    for (int part = 0; part < S::kParts && still > 0; ++part, --still, to += S::kScales) {
      if (lane < 2) copy_async_4(to + lane, of_rows, has_rows);
      of_rows += has_rows ? scale_groups : 0;
#pragma unroll
      for (int i = 0; i < S::kRowsOfLane; ++i) {
        const bool inside = of_tokens[i] != nullptr;
        if (i * 32 + lane < kTokens)
          copy_async_4(to + 4 + i * 32 + lane, inside ? of_tokens[i] : args.x_scales, inside);
        if (inside) of_tokens[i] += token_step;
      }
    }
    copy_async_commit();
  };
  // What an early product reads was there before this kernel began; scales from the last time may still lie
  // in the L1 cache, which only a wait for the kernel ahead is known to empty.
  if (beside.early && index < pieces.others)
    asm volatile("fence.acq_rel.gpu;" ::: "memory");
  else
    device::cuda::wait_for_previous();
  begin_scales(index);
  fetch_scales(0);

  const uint32_t full_barriers = kept(shared_address(full));
  const uint32_t empty_barriers = kept(shared_address(empty));
  const uint32_t first_stage = kept(wgmma_address(stages));
  float sum[kTokens / 2];
  float parts[S::kParts][kTokens / 2];
  const auto multiply = [&](int s, float(&part)[kTokens / 2]) {
    const uint32_t stage = first_stage + static_cast<uint32_t>(s) * (S::kStageBytes / 16);
    const uint64_t a = wgmma_tile_at(stage);
    const uint64_t b = wgmma_tile_at(stage + S::kWeightBytes / 16);
#pragma unroll
    for (int k = 0; k < kBlock / 32; ++k) wgmma_e4m3(part, a + 2 * k, b + 2 * k, k > 0);
  };
  const auto add = [&](const float* scales, const float(&part)[kTokens / 2]) {
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
  const auto wait_for_stage = [&] {
    barrier_wait(full_barriers + static_cast<uint32_t>(ring.stage) * 8, ring.phase);
  };
  const auto release = [&](int s) {
    if (lane == 0) barrier_arrive(empty_barriers + static_cast<uint32_t>(s) * 8);
  };
  int half = 0;  // of the slots, that this block's scales are in
  for (int next = 0, turn = 1; index < (counted ? pieces.count() : pieces.others); index = next, ++turn) {
    const auto piece = pieces.at(index);
    const TileArgs& a = pieces.args_of(piece);
    const int blocks = blocks_of(a);
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i) sum[i] = 0.0F;
    const auto begin_next = [&] {
      next = turns.at(turn);
      begin_scales(next);
    };
    int block = 0;
#pragma unroll 1
    for (; block + S::kParts <= blocks; block += S::kParts, half ^= 1) {
      if (block + S::kParts == blocks) begin_next();
      int at[S::kParts];
#pragma unroll
      for (int i = 0; i < S::kParts; ++i, ring.next()) {
        at[i] = ring.stage;
        wait_for_stage();
      }
      wgmma_fence();
#pragma unroll
      for (int i = 0; i < S::kParts; ++i) multiply(at[i], parts[i]);
      wgmma_commit();
      fetch_scales(half ^ 1);
      copy_async_wait<1>();
      __syncwarp();
      wgmma_wait<0>();
#pragma unroll
      for (int i = 0; i < S::kParts; ++i) release(at[i]);
      const float* scales = slots + half * S::kParts * S::kScales;
#pragma unroll
      for (int i = 0; i < S::kParts; ++i) add(scales + i * S::kScales, parts[i]);
      __syncwarp();
    }
    if (block < blocks) {
      begin_next();
      fetch_scales(half ^ 1);
      copy_async_wait<1>();
      __syncwarp();
      const float* scales = slots + half * S::kParts * S::kScales;
#pragma unroll 1
      for (; block < blocks; ++block, ring.next(), scales += S::kScales) {
        wait_for_stage();
        wgmma_fence();
        multiply(ring.stage, parts[0]);
        wgmma_commit();
        wgmma_wait<0>();
        release(ring.stage);
        add(scales, parts[0]);
      }
      half ^= 1;
      __syncwarp();
    }
    store_sums(a, 0, piece.tile, 0, piece.n_first + warp * 16, sum);
  }
}

template <int kTokens, bool kBeside>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kTokens>;
  FATHOM_CHECK(
      call.args.groups <= GroupTiles::kMostGroups && call.row_tiles(kTokens) <= GroupTiles::kMostTiles,
      "{} groups, {} tiles", call.args.groups, call.row_tiles(kTokens));
  const auto maps_of = [&](const TileCall& c) {
    const auto& a = c.args;
    return TileMaps{
        device::cuda::tile_map_8bit(stream, a.x, c.x_rows, a.k, a.x_stride,
                                    a.gather != nullptr ? 1 : kTokens),
        device::cuda::tile_map_8bit(stream, a.weight, int64_t{a.groups} * a.n, a.k, a.k_stride, S::kRows)};
  };
  const auto kernel = wgmma_w8a8_few_kernel<kTokens, kBeside>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  int64_t tiles = ceil_div<int64_t>(call.args.n, S::kRows) * call.row_tiles(kTokens);
  Beside<kBeside> beside;
  if constexpr (kBeside) {
    beside = {call.beside->args, maps_of(*call.beside), call.beside_early};
    tiles += ceil_div<int64_t>(call.beside->args.n, S::kRows) * call.beside->row_tiles(kTokens);
  }
  const int64_t ctas = std::min<int64_t>(tiles, S::kResident * stream.gpu().multiprocessors);
  const TileMaps maps = maps_of(call);
  device::cuda::launch_early(stream, kernel, dim3(static_cast<unsigned>(ctas)), dim3(S::kThreads), S::kBytes,
                             call.args, maps.x, maps.weight, beside, stream.counter());
}

template <int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  call.beside != nullptr ? launch<kTokens, true>(stream, call) : launch<kTokens, false>(stream, call);
}

}  // namespace

bool linear_wgmma_w8a8_beside(const TileCall& call) {
  return call.rows_of_a_group() * 2 <= kMostBesideRows;
}

void linear_wgmma_w8a8(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  if (call.beside == nullptr &&
      (linear_wgmma_w8a8_chain(stream, call) || linear_wgmma_w8a8_narrow(stream, call)))
    return stream.launched("linear (wgmma, fp8 x fp8)");
  // Groups differ in their rows: room for twice the average, where that costs nothing but tensor work.
  const int64_t rows = args.offsets != nullptr ? call.rows_of_a_group() * 2 : call.max_rows;
  if (rows <= 8) {
    launch<8>(stream, call);
  } else if (rows <= 16) {
    launch<16>(stream, call);
  } else if (rows <= 32) {
    launch<32, false>(stream, call);
  } else if (rows <= 64 || !linear_wgmma_w8a8_many(stream, call)) {
    launch<64, false>(stream, call);
  }
  stream.launched("linear (wgmma, fp8 x fp8)");
}

}  // namespace fathom::ops::cuda
