// BF16 activations and FP8 weights on any GPU from sm_80, as mma.cu: the weights are widened to BF16 in
// registers. Each 128 of k of an output is one chain of k16 products; the parts are scaled and summed in the
// order of k. Widening is what takes time, so the warps of a stripe take different 128s of a stage and leave
// their parts in shared memory, where one of them finds them all.
#include "device/cuda/shared_memory.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/linear/fp8_words.cuh"
#include "ops/mma.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 128;
constexpr int kWarps = kThreads / 32;
constexpr int kBlock = 128;      // of k that one scale holds for
constexpr int kScaleSlots = 16;  // stages of scales that are kept: more than any shape has stages

template <int kStripes, int kTokens>
struct Shape {
  static constexpr int kSplit = kWarps / kStripes;  // warps of a stripe, blocks of a stage
  static constexpr int kDepth = kBlock * kSplit;
  // Bytes from row to row: odd numbers of 16-byte lines, so that no bank is met twice.
  static constexpr int kPitch = kDepth * 2 + 16;
  static constexpr int kWeightPitch = kDepth + 16;
  static constexpr int kWeightBytes = kStripes * 16 * kWeightPitch;
  static constexpr int kStageBytes = kWeightBytes + kTokens * kPitch;
  // A unit is what a warp holds of a part in a pair of registers: 16 rows by 4 of 8 tokens.
  static constexpr int kUnits = kTokens / 8 * 2;
  static constexpr int kPartBytes = kSplit > 1 ? 2 * kWarps* kUnits * 32 * 8 : 0;
  static constexpr int kStagesThatFit = (110 * 1024 - kPartBytes) / kStageBytes;  // two CTAs a multiprocessor
  static constexpr int kStages = kStagesThatFit < 3 ? 3 : (kStagesThatFit > 12 ? 12 : kStagesThatFit);
  static constexpr int kBytes = kStages * kStageBytes + kPartBytes;
};

template <int kStripes, int kTokens>
__global__ void __launch_bounds__(kThreads) mma_fp8_kernel(const __grid_constant__ TileArgs args) {
  using S = Shape<kStripes, kTokens>;
  constexpr int kSplit = S::kSplit;
  constexpr int kDepth = S::kDepth;
  constexpr int kTiles = kTokens / 8;
  constexpr int kMine = S::kUnits < kSplit ? 1 : S::kUnits / kSplit;  // units that a warp sums
  extern __shared__ __align__(16) uint8_t stages[];
  __shared__ __align__(8) float scale_slots[kScaleSlots][kSplit][kStripes * 2];
  __shared__ int32_t x_rows[kTokens];

  const RowTile tile = row_tile_of_block(args, kTokens);
  if (tile.count <= 0) return;

  const bool grouped = args.offsets != nullptr;
  const int thread = static_cast<int>(threadIdx.x);
  const int warp = thread / 32;
  const int lane = thread % 32;
  const int stripe = warp % kStripes;
  const int turn = warp / kStripes;
  const int n_first = static_cast<int>(blockIdx.x) * kStripes * 16;
  const int blocks = (args.k + kBlock - 1) / kBlock;
  const int steps = (blocks + kSplit - 1) / kSplit;
  const int scale_groups = (args.n + 7) / 8;
  const auto* x = static_cast<const __nv_bfloat16*>(args.x) + (grouped ? 0 : tile.group * args.x_step);
  const auto* weight = static_cast<const uint8_t*>(args.weight) + tile.group * args.weight_step;
  const float* scales = args.scales + tile.group * args.scales_step;

  const auto load_weights = [&](int step) {
    constexpr int kChunks = kDepth / 16;
    uint8_t* to = stages + step % S::kStages * S::kStageBytes;
    const int chunk = thread % kChunks * 16;
    const int k = step * kDepth + chunk;
#pragma unroll
    for (int i = 0; i < kStripes * 16 * kChunks / kThreads; ++i) {
      const int line = thread / kChunks + i * (kThreads / kChunks);
      const bool inside = n_first + line < args.n && k < args.k_stride;
      const uint8_t* from = weight + static_cast<int64_t>(n_first + line) * args.k_stride + k;
      copy_async_16(to + line * S::kWeightPitch + chunk, inside ? from : weight, inside);
    }
    if (thread < kSplit * kStripes * 2) {
      const int block = step * kSplit + thread / (kStripes * 2);
      const int group = n_first / 8 + thread % (kStripes * 2);
      const bool inside = block < blocks && group < scale_groups;
      const float* from = scales + static_cast<int64_t>(block) * scale_groups + group;
      copy_async_4(&scale_slots[step % kScaleSlots][0][0] + thread, inside ? from : scales, inside);
    }
  };
  // Lines past the tile's rows keep what they hold: nobody stores their products.
  const auto load_tokens = [&](int step) {
    constexpr int kChunks = kDepth / 8;
    uint8_t* to = stages + step % S::kStages * S::kStageBytes + S::kWeightBytes;
    const int chunk = thread % kChunks;
    const int k = step * kDepth + chunk * 8;
    const bool inside = k < args.k;
    for (int line = thread / kChunks; line < tile.count; line += kThreads / kChunks) {
      copy_async_16(to + line * S::kPitch + chunk * 16, x + x_rows[line] * args.x_stride + (inside ? k : 0),
                    inside);
    }
  };

  // The weights are nobody's output: they come while the kernel before this one still runs.
#pragma unroll 1
  for (int s = 0; s < S::kStages - 1 && s < steps; ++s) load_weights(s);
  device::cuda::let_next_start();
  if (!grouped) device::cuda::wait_for_previous();
  if (thread < tile.count) {
    x_rows[thread] = args.gather != nullptr ? args.gather[tile.first + thread] : tile.first + thread;
  }
  __syncthreads();
#pragma unroll 1
  for (int s = 0; s < S::kStages - 1; ++s) {
    if (s < steps) load_tokens(s);
    copy_async_commit();
  }

  float2 sum[kMine] = {};  // of rows lane / 4 of the stripe and eight below
  auto* parts = reinterpret_cast<float2*>(stages + S::kStages * S::kStageBytes);  // [2][kWarps][kUnits][32]
  const auto add_parts = [&](int step) {
#pragma unroll
    for (int b = 0; b < kSplit; ++b) {
      if (step * kSplit + b >= blocks) break;
      const float2 scale = *reinterpret_cast<const float2*>(&scale_slots[step % kScaleSlots][b][stripe * 2]);
      const float2* from = parts + (step % 2 * kWarps + b * kStripes + stripe) * S::kUnits * 32 + lane;
#pragma unroll
      for (int u = 0; u < kMine; ++u) {
        const int unit = turn + u * kSplit;
        if (unit >= S::kUnits) break;
        const float2 part = from[unit * 32];
        sum[u].x = fmaf(scale.x, part.x, sum[u].x);
        sum[u].y = fmaf(scale.y, part.y, sum[u].y);
      }
    }
  };

#pragma unroll 1
  for (int step = 0; step < steps; ++step) {
    copy_async_wait<S::kStages - 2>();
    __syncthreads();
    if (step + S::kStages - 1 < steps) {
      load_weights(step + S::kStages - 1);
      load_tokens(step + S::kStages - 1);
    }
    copy_async_commit();
    if (kSplit > 1 && step > 0) add_parts(step - 1);
    if (step * kSplit + turn >= blocks) continue;

    const uint8_t* base = stages + step % S::kStages * S::kStageBytes;
    const uint8_t* w = base + (stripe * 16 + lane / 4) * S::kWeightPitch + turn * kBlock + lane % 4 * 4;
    const uint8_t* tokens = base + S::kWeightBytes + turn * kBlock * 2;
    float part[kTiles][4] = {};
#pragma unroll
    for (int k = 0; k < kBlock; k += 32) {
      uint32_t a[2][4];
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const uint8_t* row = w + k + half * 16;
        fp8_word_to_bf16(*reinterpret_cast<const uint32_t*>(row), a[half][0], a[half][2]);
        fp8_word_to_bf16(*reinterpret_cast<const uint32_t*>(row + 8 * S::kWeightPitch), a[half][1],
                         a[half][3]);
      }
      if constexpr (kTiles == 1) {
        uint32_t b[4];
        load_matrix_x4(b, tokens + lane % 8 * S::kPitch + k * 2 + lane / 8 * 16);
        mma_bf16(part[0], a[0], b);
        mma_bf16(part[0], a[1], b + 2);
      } else {
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
          for (int t = 0; t < kTiles; t += 2) {
            uint32_t b[4];
            load_matrix_x4(b, tokens + (t * 8 + lane / 16 * 8 + lane % 8) * S::kPitch + k * 2 + half * 32 +
                                  lane / 8 % 2 * 16);
            mma_bf16(part[t], a[half], b);
            mma_bf16(part[t + 1], a[half], b + 2);
          }
        }
      }
    }
    if constexpr (kSplit == 1) {
      const float2 scale = *reinterpret_cast<const float2*>(&scale_slots[step % kScaleSlots][0][stripe * 2]);
#pragma unroll
      for (int u = 0; u < kMine; ++u) {
        sum[u].x = fmaf(scale.x, part[u / 2][u % 2], sum[u].x);
        sum[u].y = fmaf(scale.y, part[u / 2][u % 2 + 2], sum[u].y);
      }
    } else {
      float2* to = parts + (step % 2 * kWarps + warp) * S::kUnits * 32 + lane;
#pragma unroll
      for (int u = 0; u < S::kUnits; ++u) to[u * 32] = {part[u / 2][u % 2], part[u / 2][u % 2 + 2]};
    }
  }
  if constexpr (kSplit > 1) {
    __syncthreads();
    add_parts(steps - 1);
  }

  const int64_t y_base = grouped ? 0 : tile.group * args.y_step;
#pragma unroll
  for (int u = 0; u < kMine; ++u) {
    const int unit = turn + u * kSplit;
    const int line = unit / 2 * 8 + lane % 4 * 2 + unit % 2;
    if (line < tile.count) {
      store_outputs(args, y_base, tile.first + line, n_first + stripe * 16 + lane / 4, sum[u].x, sum[u].y);
    }
  }
}

template <int kStripes, int kTokens>
void launch(device::cuda::Stream& stream, const TileCall& call) {
  using S = Shape<kStripes, kTokens>;
  static_assert(S::kStages < kScaleSlots);
  const auto kernel = mma_fp8_kernel<kStripes, kTokens>;
  static device::cuda::SharedMemory memory;
  memory.allow(stream, kernel, S::kBytes);
  const dim3 grid(static_cast<unsigned>((call.args.n + kStripes * 16 - 1) / (kStripes * 16)),
                  static_cast<unsigned>(call.row_tiles(kTokens)), static_cast<unsigned>(call.heads));
  device::cuda::launch_early(stream, kernel, grid, dim3(kThreads), S::kBytes, call.args);
}

}  // namespace

void linear_mma_fp8(device::cuda::Stream& stream, const TileCall& call) {
  const int64_t rows = call.rows_of_a_group();
  const int64_t width = call.stripes_per_multiprocessor(stream.gpu().multiprocessors);
  // The wider the tile, the fewer times tokens are read, and the fewer tiles there are to fill the GPU.
  if (rows <= 8) {
    width >= 8   ? launch<4, 8>(stream, call)
    : width >= 4 ? launch<2, 8>(stream, call)
                 : launch<1, 8>(stream, call);
  } else if (rows <= 16) {
    width >= 8   ? launch<4, 16>(stream, call)
    : width >= 2 ? launch<2, 16>(stream, call)
                 : launch<1, 16>(stream, call);
  } else if (rows <= 32) {
    width >= 4   ? launch<4, 32>(stream, call)
    : width >= 2 ? launch<2, 32>(stream, call)
                 : launch<1, 32>(stream, call);
  } else {
    launch<4, 64>(stream, call);
  }
  stream.launched("linear (mma, fp8)");
}

}  // namespace fathom::ops::cuda
