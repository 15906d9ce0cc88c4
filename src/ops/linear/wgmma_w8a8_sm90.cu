// FP8 weights and FP8 activations on Hopper, up to 64 tokens of a group: a warp each brings tiles of 128 of k
// of the weights and of the tokens with the bulk copy engine, and their scales (piece_producers.cuh), and a
// warpgroup multiplies 64 rows of weights with the tile's tokens, both from shared memory. A CTA does one
// tile after another, and the ring of stages goes on filling while results go out. Tokens stand on the narrow
// side (8 to 64), so that few of them waste little. Each 128 of k is scaled by its weights' and its token's
// scale and added to the sums, in the order of k: products of several blocks are under way together. A
// token's bits do not depend on its batch: every kernel for FP8 activations has these products and this
// order.
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/piece_producers.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kBlock = 128;  // of k that one scale holds for
constexpr int kBatch = 2;    // blocks that are multiplied together

// Launches of so many blocks or fewer have two in a stage (but for tiles that are a single stage then): what
// takes time there is the last tiles, alone with the memory, and a lone CTA is as slow as the warps that fill
// its ring and wait for it. Longer ones are bound by what is under way of all, and one block a stage leaves
// less of the ring empty.
constexpr int64_t kFewBlocks = 24'000;

// kStageBlocks: of a stage.
template <int kTokens, int kStageBlocks>
struct Shape {
  static constexpr int kBlocks = kStageBlocks;
  static constexpr int kStagesOfBatch = kBatch / kBlocks;
  static constexpr bool kTwoBatches = kTokens <= 32;  // are under way: one's products and another's addition
  static constexpr bool kScalesWarp = kTokens <= 16;  // scales are brought by a warp of their own
  static constexpr int kRows = 64;                    // of the weights
  static constexpr int kThreads = 128 + (kScalesWarp ? 3 : 2) * 32;
  static constexpr int kResident = 2;                  // CTAs a multiprocessor
  static constexpr int kWeightBytes = kRows * kBlock;  // of a block
  static constexpr int kTokenBytes = kTokens * kBlock;
  static constexpr int kTileBytes = kBlocks * (kWeightBytes + kTokenBytes);  // of a stage
  static constexpr int kEights = kRows / 8;          // of the weights' rows, each with a scale
  static constexpr int kScales = kEights + kTokens;  // of a block: of the eights, then of the tokens
  static constexpr int kStageScales = kBlocks * kScales;
  static constexpr int kStageBytes = kTileBytes + kStageScales * 4;
  // 8 KB: the groups' tiles, and room to align.
  static constexpr int kStages = (224 / kResident - 8) * 1024 / kStageBytes;
  static constexpr int kBytes = kStages * kStageBytes + 1024;  // and room to align
};

// Each stage has its own scales, asked for as far ahead as its tiles.
template <class S>
struct Scales {
  static constexpr int kOfLane = (S::kStageScales + 31) / 32;

  float* scales;   // [kStages, kBlocks, kScales]
  uint64_t* full;  // [kStages]
  const float* from[kOfLane] = {};
  int64_t steps[kOfLane] = {};
  int until[kOfLane] = {};  // of the steps

  template <class Piece>
  __device__ void begin(const TileArgs& args, const Piece& piece) {
    const int scale_groups = (args.n + 7) / 8, blocks = ceil_div(args.k, kBlock);
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const int at = i * 32 + static_cast<int>(threadIdx.x % 32);
      const int block = at / S::kScales, line = at % S::kScales - S::kEights;
      bool there = false;
      int64_t step = 0;
      from[i] = args.scales;
      if (line < 0) {
        const int eight = piece.n_first / 8 + at % S::kScales;
        there = eight < scale_groups;
        step = scale_groups;
        if (there) from[i] += piece.tile.group * args.scales_step + eight;
      } else {
        const int32_t row = piece.tile.first + line;
        there = line < piece.tile.count;
        step = args.x_scale_stride;
        if (there) from[i] = args.x_scales + (args.gather != nullptr ? args.gather[row] : row);
      }
      there = there && block < blocks;
      if (there) from[i] += block * step;
      steps[i] = there ? S::kBlocks * step : 0;
      until[i] = there ? ceil_div(blocks - block, S::kBlocks) : 0;
    }
  }
  __device__ void bring(int stage, int step) {
    float* to = scales + stage * S::kStageScales;
#pragma unroll
    for (int i = 0; i < kOfLane; ++i) {
      const int at = i * 32 + static_cast<int>(threadIdx.x % 32);
      const bool there = step < until[i];
      if (at < S::kStageScales) copy_async_4(to + at, from[i], there);
      if (step + 1 < until[i]) from[i] += steps[i];
    }
    copy_async_arrive(&full[stage]);
  }
};

template <int kTokens, int kBlocks, bool kBeside>
__global__ void __launch_bounds__(Shape<kTokens, kBlocks>::kThreads, Shape<kTokens, kBlocks>::kResident)
    wgmma_w8a8_few_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                          const __grid_constant__ CUtensorMap weight_map,
                          const __grid_constant__ Beside<kBeside> beside, uint32_t* counter) {
  using S = Shape<kTokens, kBlocks>;
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[S::kStages], empty[S::kStages];
  __shared__ GroupTiles groups;
  __shared__ PieceTurns turns;
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;
  float* scales = reinterpret_cast<float*>(stages + S::kStages * S::kTileBytes);

  const int thread = static_cast<int>(threadIdx.x);
  const int lane = thread % 32, warp = thread / 32;
  if (thread == 0) {
    for (int s = 0; s < S::kStages; ++s) {
      barrier_init(&full[s], 1 + 32);
      barrier_init(&empty[s], 128);
    }
    groups.begin();
    turns.begin();
    barrier_init_fence();
  }
  __syncthreads();

  const Pieces<kBeside, kTokens, S::kRows> pieces{args, beside.args_or(args), groups};
  if (warp >= 4) {
    const PieceProducers<S::kStages, kBlock, S::kBlocks, kTokens, S::kRows, kBeside> producers{
        pieces, beside, x_map, weight_map, turns, counter, full, empty, stages};
    if (warp == 4) {
      producers.bring_weights();
    } else if (S::kScalesWarp && warp == 5) {
      producers.bring(producers.tokens());
    } else {
      const Scales<S> of_blocks{scales, full};
      if constexpr (S::kScalesWarp)
        producers.bring(of_blocks);
      else
        producers.bring(producers.tokens(), of_blocks);
      copy_async_wait<0>();
    }
    return;
  }

  const uint32_t full_barriers = kept(shared_address(full));
  const uint32_t empty_barriers = kept(shared_address(empty));
  const uint32_t first_stage = kept(wgmma_address(stages));
  float sum[kTokens / 2];
  float parts[S::kTwoBatches ? 2 : 1][kBatch][kTokens / 2];
  // Where a batch's blocks lie, and how many there are.
  struct Batch {
    int count;
    int stages[S::kStagesOfBatch];

    // Of block i, or the first once more, which nobody adds.
    __device__ int stage(int i) const { return i < count ? stages[i / S::kBlocks] : stages[0]; }
    __device__ int within(int i) const { return i < count ? i % S::kBlocks : 0; }
  };
  // Steps of one sum wait for each other: those of several take turns.
  const auto multiply = [&](const Batch& batch, float(&of)[kBatch][kTokens / 2]) {
    uint64_t a[kBatch], b[kBatch];
#pragma unroll
    for (int i = 0; i < kBatch; ++i) {
      const uint32_t stage = first_stage + static_cast<uint32_t>(batch.stage(i)) * (S::kTileBytes / 16);
      const auto within = static_cast<uint32_t>(batch.within(i));
      a[i] = wgmma_tile_at(stage + within * (S::kWeightBytes / 16));
      b[i] = wgmma_tile_at(stage + S::kBlocks * S::kWeightBytes / 16 + within * (S::kTokenBytes / 16));
    }
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBlock / 32; ++k) {
#pragma unroll
      for (int i = 0; i < kBatch; ++i) wgmma_e4m3(of[i], a[i] + 2 * k, b[i] + 2 * k, k > 0);
    }
    wgmma_commit();
  };
  // What a lane's values of a block are scaled with: two rows of weights, and tokens.
  struct Factors {
    float2 row, tokens[kTokens / 8];
  };
  const auto factors_of = [&](int s, int block) {
    const float* here = scales + s * S::kStageScales + block * S::kScales;
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
  const auto release = [&](int s) { barrier_arrive(empty_barriers + static_cast<uint32_t>(s) * 8); };
  if (!beside.early) device::cuda::wait_for_previous();  // y may be its output
  Following<Pieces<kBeside, kTokens, S::kRows>> following{pieces};
  int index = static_cast<int>(blockIdx.x);
  for (int turn = 1; following.has(index); index = turns.at(turn++)) {
    const auto piece = pieces.at(index);
    const TileArgs& a = pieces.args_of(piece);
#pragma unroll
    for (int i = 0; i < kTokens / 2; ++i) sum[i] = 0.0F;
    // A batch's products begin; later they are added.
    Batch batches[2];
    const auto begin = [&](int which, int count) {
      Batch& batch = batches[which];
      batch.count = count;
#pragma unroll
      for (int i = 0; i < S::kStagesOfBatch; ++i) {
        batch.stages[i] = ring.stage;
        if (i * S::kBlocks >= count) continue;
        wait_for_stage();
        ring.next();
      }
      multiply(batch, parts[which]);
    };
    const auto end = [&]<bool kOthers>(int which, std::bool_constant<kOthers> /*are under way*/) {
      const Batch& batch = batches[which];
      Factors of[kBatch];
#pragma unroll
      for (int i = 0; i < kBatch; ++i) of[i] = factors_of(batch.stage(i), batch.within(i));
      wgmma_wait<kOthers ? 1 : 0>();
#pragma unroll
      for (int i = 0; i < kBatch; ++i) keep_in_place(parts[which][i]);
#pragma unroll
      for (int i = 0; i < S::kStagesOfBatch; ++i) {
        if (i * S::kBlocks < batch.count) release(batch.stages[i]);
      }
#pragma unroll
      for (int i = 0; i < kBatch; ++i) {
        if (i < batch.count) add(of[i], parts[which][i]);
      }
    };
    int left = uniform(ceil_div(a.k, kBlock));
    if constexpr (S::kTwoBatches) {
#pragma unroll 1
      for (; left >= 2 * kBatch; left -= 2 * kBatch) {
        begin(0, kBatch);
        begin(1, kBatch);
        end(0, std::true_type{});
        end(1, std::false_type{});
      }
    }
#pragma unroll 1
    for (; left > 0; left -= kBatch) {
      begin(0, left);
      end(0, std::false_type{});
    }
    store_sums(a, 0, piece.tile, 0, piece.n_first + warp * 16, sum);
  }
}

template <int kTokens, int kBlocks, bool kBeside>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kTokens, kBlocks>;
  const auto maps_of = [&](const TileCall& c) {
    const auto& a = c.args;
    return TileMaps{
        device::cuda::tile_map_8bit(stream, a.x, c.x_rows, a.k, a.x_stride,
                                    a.gather != nullptr ? 1 : kTokens),
        device::cuda::tile_map_8bit(stream, a.weight, int64_t{a.groups} * a.n, a.k, a.k_stride, S::kRows)};
  };
  launch_pieces<&wgmma_w8a8_few_kernel<kTokens, kBlocks, kBeside>, kTokens, S::kRows, kBeside>(
      stream, call, S::kResident, S::kThreads, S::kBytes, maps_of);
}

template <int kTokens, int kBlocks>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  call.beside != nullptr ? launch<kTokens, kBlocks, true>(stream, call)
                         : launch<kTokens, kBlocks, false>(stream, call);
}

// Of the weights that a call reads, 64 rows by 128 of k.
int64_t blocks_of(const TileCall& call, int64_t tokens) {
  const auto& a = call.args;
  const int64_t own = ceil_div<int64_t>(a.n, 64) * ceil_div<int64_t>(a.k, kBlock) * call.row_tiles(tokens);
  return own + (call.beside != nullptr ? blocks_of(*call.beside, tokens) : 0);
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
    const bool pairs = args.k > kBatch * kBlock && blocks_of(call, 8) <= kFewBlocks;
    pairs ? launch<8, 2>(stream, call) : launch<8, 1>(stream, call);
  } else if (rows <= 16) {
    launch<16, 1>(stream, call);
  } else if (rows <= 32) {
    launch<32, 1, false>(stream, call);
  } else if (rows <= 64 || !linear_wgmma_w8a8_many(stream, call)) {
    launch<64, 1, false>(stream, call);
  }
  stream.launched("linear (wgmma, fp8 x fp8)");
}

}  // namespace fathom::ops::cuda
