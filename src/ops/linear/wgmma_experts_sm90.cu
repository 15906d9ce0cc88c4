// BF16 and experts of few rows (up to 64) on Hopper, or a dense product that is as long to read (the head):
// one warp brings 64 rows of weights with the bulk copy engine, another an expert's tokens, gathered row by
// row where they lie apart, through a ring as long as two CTAs of a multiprocessor have room for; a warpgroup
// multiplies. A CTA does one tile after another, and the ring goes on filling while results go out. Each
// output is one chain of k16 products in the order of k, as in mma.cu, and so are the bits.
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/piece_producers.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kRows = 64;   // of the weights
constexpr int kDepth = 64;  // of k a stage: 128 bytes
constexpr int kRowBytes = kDepth * 2;
constexpr int kThreads = 128 + 2 * 32;
constexpr int kResident = 2;  // CTAs a multiprocessor

template <int kTokens>
struct Shape {
  static constexpr int kWeightBytes = kRows * kRowBytes;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kRowBytes;
  static constexpr int kStages =
      (224 / kResident - 8) * 1024 / kStageBytes;  // 8 KB: the groups' tiles, and room to align
  static constexpr int kBytes = kStages * kStageBytes + 1024;
};

template <int kTokens, bool kBeside>
__global__ void __launch_bounds__(kThreads, kResident)
    wgmma_experts_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
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

  const Pieces<kBeside, kTokens, kRows> pieces{args, beside.args_or(args), groups};
  if (thread >= 128) {
    const PieceProducers<S::kStages, kDepth, 1, kTokens, kRows, kBeside> producers{
        pieces, beside, x_map, weight_map, turns, counter, full, empty, stages};
    if (thread < 160) {
      producers.bring_weights();
    } else {
      producers.bring(producers.tokens());
    }
    return;
  }

  const auto release = [&](int s) {
    if (lane == 0) barrier_arrive(&empty[s]);
  };
  if (!beside.early) device::cuda::wait_for_previous();  // y may have been its output
  Following<Pieces<kBeside, kTokens, kRows>> following{pieces};
  Ring<S::kStages> ring;
  int index = static_cast<int>(blockIdx.x);
  for (int turn = 1; following.has(index); index = turns.at(turn++)) {
    const auto piece = pieces.at(index);
    const TileArgs& a = pieces.args_of(piece);
    const int steps = a.k / kDepth;
    float sum[kTokens / 2];  // set by the first product
    int last = 0;
    for (int step = 0; step < steps; ++step, ring.next()) {
      const int s = ring.stage;
      barrier_wait(&full[s], ring.phase);
      const uint64_t w = wgmma_tile(stages + s * S::kStageBytes);
      const uint64_t x = wgmma_tile(stages + s * S::kStageBytes + S::kWeightBytes);
      wgmma_fence();
#pragma unroll
      for (int k = 0; k < kDepth / 16; ++k) wgmma_shared(sum, w + 2 * k, x + 2 * k, step > 0 || k > 0);
      wgmma_commit();
      wgmma_wait<1>();
      if (step > 0) release(last);  // the products of the step before are done
      last = s;
    }
    wgmma_wait<0>();
    release(last);
    store_sums(a, 0, piece.tile, 0, piece.n_first + thread / 32 * 16, sum);
  }
}

template <int kTokens, bool kBeside>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kTokens>;
  const auto maps_of = [&](const TileCall& c) {
    const auto& a = c.args;
    return TileMaps{device::cuda::tile_map_16bit(stream, a.x, c.x_rows, a.k, a.x_stride * 2,
                                                 a.gather != nullptr ? 1 : kTokens, kDepth),
                    device::cuda::tile_map_16bit(stream, a.weight, int64_t{a.groups} * a.n, a.k,
                                                 a.k_stride * 2, kRows, kDepth)};
  };
  launch_pieces<&wgmma_experts_kernel<kTokens, kBeside>, kTokens, kRows, kBeside>(
      stream, call, kResident, kThreads, S::kBytes, maps_of);
}

template <int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  call.beside != nullptr ? launch<kTokens, true>(stream, call) : launch<kTokens, false>(stream, call);
}

bool fits(const TileCall& call) {
  const auto& args = call.args;
  return call.weight_dtype == device::DType::kBF16 && args.groups <= GroupTiles::kMostGroups &&
         args.part == args.k && args.k % kDepth == 0 && args.k_stride == args.k &&
         reinterpret_cast<uintptr_t>(args.weight) % 16 == 0;
}

}  // namespace

bool linear_wgmma_experts_beside(const TileCall& call) {
  return fits(call) && fits(*call.beside) && call.rows_of_a_group() * 2 <= kMostBesideRows;
}

bool linear_wgmma_experts(device::cuda::Stream& stream, const TileCall& call) {
  const bool grouped = call.args.offsets != nullptr;
  // Groups differ in their rows: room for twice the average, where that costs nothing but tensor work.
  const int64_t rows = grouped ? call.rows_of_a_group() * 2 : call.max_rows;
  if (!fits(call) || rows > 64) return false;
  // A dense product of few rows where CTAs have more than one tile each.
  const int64_t tiles = ceil_div<int64_t>(call.args.n, kRows);
  if (!grouped && (call.heads > 1 || rows > 32 || tiles <= kResident * stream.gpu().multiprocessors))
    return false;
  if (rows <= 8) {
    launch<8>(stream, call);
  } else if (rows <= 16) {
    launch<16>(stream, call);
  } else if (rows <= 32) {
    launch<32, false>(stream, call);
  } else {
    launch<64, false>(stream, call);
  }
  stream.launched("linear (wgmma, experts)");
  return true;
}

}  // namespace fathom::ops::cuda
