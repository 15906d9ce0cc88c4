// FP8 weights and FP8 activations on Hopper, up to 64 tokens of a group: one warp brings tiles of 128 of k
// with the bulk copy engine, another their scales, and a warpgroup multiplies 64 rows of weights with the
// tile's tokens, both from shared memory. A CTA does one tile after another, and the ring of stages goes on
// filling while results go out. Tokens stand on the narrow side (8 to 64), so that few of them waste little.
// Each 128 of k is scaled by its weights' and its token's scale and added to the sums, in the order of k:
// products of several blocks are under way together. A token's bits do not depend on its batch: every kernel
// for FP8 activations has these products and this order.
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/piece_producers.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kBlock = 128;  // of k that one scale holds for, and of a stage

// kParts blocks are multiplied together.
template <int kTokens>
struct Shape {
  static constexpr int kParts = kTokens <= 32 ? 4 : 2;
  static constexpr int kRows = 64;  // of the weights
  static constexpr int kThreads = 128 + 2 * 32;
  static constexpr int kResident = 2;  // CTAs a multiprocessor
  static constexpr int kWeightBytes = kRows * kBlock;
  static constexpr int kTokenBytes = kTokens * kBlock;
  static constexpr int kStageBytes = kWeightBytes + kTokenBytes;
  static constexpr int kEights = kRows / 8;          // of the weights' rows, each with a scale
  static constexpr int kScales = kEights + kTokens;  // of a stage: of the eights, then of the tokens
  static constexpr int kScaleBytes = kScales * 4;
  // 8 KB: the groups' tiles, and room to align.
  static constexpr int kStages = (224 / kResident - 8) * 1024 / (kStageBytes + kScaleBytes);
  static constexpr int kBytes = kStages * (kStageBytes + kScaleBytes) + 1024;  // and room to align
};

__device__ int blocks_of(const TileArgs& args) {
  return (args.k + kBlock - 1) / kBlock;
}

// Each stage has its own scales, asked for as far ahead as its tiles.
template <int kTokens>
struct Scales {
  using S = Shape<kTokens>;
  static constexpr int kOfLane = (S::kScales + 31) / 32;

  float* scales;   // [kStages, kScales]
  uint64_t* full;  // [kStages]
  const float* from[kOfLane] = {};
  int64_t steps[kOfLane] = {};
  bool there[kOfLane] = {};

  template <class Piece>
  __device__ void begin(const TileArgs& args, const Piece& piece) {
    const int scale_groups = (args.n + 7) / 8;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const int at = i * 32 + static_cast<int>(threadIdx.x % 32), line = at - S::kEights;
      if (line < 0) {
        const int eight = piece.n_first / 8 + at;
        there[i] = eight < scale_groups;
        from[i] = args.scales + (there[i] ? piece.tile.group * args.scales_step + eight : 0);
        steps[i] = there[i] ? scale_groups : 0;
      } else {
        there[i] = line < piece.tile.count;
        const int32_t row = piece.tile.first + line;
        from[i] = args.x_scales + (!there[i] ? 0 : args.gather != nullptr ? args.gather[row] : row);
        steps[i] = there[i] ? args.x_scale_stride : 0;
      }
    }
  }
  __device__ void bring(int stage) {
    float* to = scales + stage * S::kScales;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const int at = i * 32 + static_cast<int>(threadIdx.x % 32);
      if (at < S::kScales) copy_async_4(to + at, from[i], there[i]);
      from[i] += steps[i];
    }
    copy_async_arrive(&full[stage]);
  }
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
  float* scales = reinterpret_cast<float*>(stages + S::kStages * S::kStageBytes);

  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32, warp = thread / 32;
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1 + 32);
      barrier_init(&empty[s], 4);
    }
    groups.begin();
    turns.begin();
    barrier_init_fence();
  }
  __syncthreads();

  const Pieces<kBeside, kTokens, S::kRows> pieces{args, beside.args_or(args), groups};
  if (warp >= 4) {
    const PieceProducers<S::kStages, kBlock, kTokens, S::kRows, kBeside> producers{
        pieces, beside, x_map, weight_map, turns, counter, full, empty, stages};
    if (warp == 4) {
      producers.bring_weights();
    } else {
      producers.bring_tokens(Scales<kTokens>{scales, full});
      copy_async_wait<0>();
    }
    return;
  }

  const uint32_t full_barriers = kept(shared_address(full));
  const uint32_t empty_barriers = kept(shared_address(empty));
  const uint32_t first_stage = kept(wgmma_address(stages));
  float sum[kTokens / 2];
  float parts[S::kParts][kTokens / 2];
  // Of stages at[0 .. kCount). Steps of one sum wait for each other: those of several take turns.
  const auto multiply = [&](const auto& at, auto& of) {
    constexpr int kCount = sizeof(at) / sizeof(at[0]);
    uint64_t a[kCount], b[kCount];
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const uint32_t stage = first_stage + static_cast<uint32_t>(at[i]) * (S::kStageBytes / 16);
      a[i] = wgmma_tile_at(stage);
      b[i] = wgmma_tile_at(stage + S::kWeightBytes / 16);
    }
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBlock / 32; ++k) {
#pragma unroll
      for (int i = 0; i < kCount; ++i) wgmma_e4m3(of[i], a[i] + 2 * k, b[i] + 2 * k, k > 0);
    }
    wgmma_commit();
  };
  // What a lane's values of a block are scaled with: two rows of weights, and tokens.
  struct Factors {
    float2 row, tokens[kTokens / 8];
  };
  const auto factors_of = [&](int s) {
    const float* here = scales + s * S::kScales;
    Factors of;
    of.row = *reinterpret_cast<const float2*>(here + warp * 2);
#pragma unroll
    for (int j = 0; j < kTokens / 8; ++j)
      of.tokens[j] = *reinterpret_cast<const float2*>(here + S::kEights + 8 * j + lane % 4 * 2);
    return of;
  };
  const auto add = [&](const Factors& of, const float(&part)[kTokens / 2]) {
#pragma unroll
    for (int j = 0; j < kTokens / 8; ++j) {
      const float2 token = of.tokens[j];
      sum[4 * j] = fmaf(of.row.x * token.x, part[4 * j], sum[4 * j]);
      sum[4 * j + 1] = fmaf(of.row.x * token.y, part[4 * j + 1], sum[4 * j + 1]);
      sum[4 * j + 2] = fmaf(of.row.y * token.x, part[4 * j + 2], sum[4 * j + 2]);
      sum[4 * j + 3] = fmaf(of.row.y * token.y, part[4 * j + 3], sum[4 * j + 3]);
    }
  };
  Ring<S::kStages> ring;
  const auto wait_for_stage = [&] {
    barrier_wait(full_barriers + static_cast<uint32_t>(ring.stage) * 8, ring.phase);
  };
  const auto release = [&](int s) {
    if (lane == 0) barrier_arrive(empty_barriers + static_cast<uint32_t>(s) * 8);
  };
  if (!beside.early) device::cuda::wait_for_previous();  // y may be its output
  Following<Pieces<kBeside, kTokens, S::kRows>> following{pieces};
  int index = static_cast<int>(blockIdx.x);
  for (int turn = 1; following.has(index); index = turns.at(turn++)) {
    const auto piece = pieces.at(index);
    const TileArgs& a = pieces.args_of(piece);
    const int blocks = blocks_of(a);
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i) sum[i] = 0.0F;
    int block = 0;
#pragma unroll 1
    for (; block + S::kParts <= blocks; block += S::kParts) {
      int at[S::kParts];
#pragma unroll
      for (int i = 0; i < S::kParts; ++i, ring.next()) {
        at[i] = ring.stage;
        wait_for_stage();
      }
      multiply(at, parts);
      Factors of[S::kParts];
#pragma unroll
      for (int i = 0; i < S::kParts; ++i) of[i] = factors_of(at[i]);
      wgmma_wait<0>();
      __syncwarp();
#pragma unroll
      for (int i = 0; i < S::kParts; ++i) release(at[i]);
#pragma unroll
      for (int i = 0; i < S::kParts; ++i) add(of[i], parts[i]);
    }
#pragma unroll 1
    for (; block < blocks; ++block, ring.next()) {
      wait_for_stage();
      const int at[1] = {ring.stage};
      multiply(at, parts);
      const Factors of = factors_of(ring.stage);
      wgmma_wait<0>();
      __syncwarp();
      release(ring.stage);
      add(of, parts[0]);
    }
    store_sums(a, 0, piece.tile, 0, piece.n_first + warp * 16, sum);
  }
}

template <int kTokens, bool kBeside>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kTokens>;
  const auto maps_of = [&](const TileCall& c) {
    const auto& a = c.args;
    return TileMaps{
        device::cuda::tile_map_8bit(stream, a.x, c.x_rows, a.k, a.x_stride,
                                    a.gather != nullptr ? 1 : kTokens),
        device::cuda::tile_map_8bit(stream, a.weight, int64_t{a.groups} * a.n, a.k, a.k_stride, S::kRows)};
  };
  launch_pieces<&wgmma_w8a8_few_kernel<kTokens, kBeside>, kTokens, S::kRows, kBeside>(
      stream, call, S::kResident, S::kThreads, S::kBytes, maps_of);
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
