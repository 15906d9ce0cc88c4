// FP8 weights and FP8 activations on Hopper, up to 8 tokens of a dense product with so few rows of weights
// that its time is that of one sum over k (queries and entries from the hidden state): the CTAs of a cluster
// have 64 rows together, and each some blocks of 128 of k in a row. All of a CTA's weights come while the
// kernel before this one still runs, and its products are under way at once; then the sum goes from CTA to
// CTA, each adding its own blocks' products in their order. Products and order are those of
// wgmma_w8a8_sm90.cu, and so are the bits. Where a norm of y's first columns comes next, the CTA that is the
// last to finish one of their tiles does it.
#include "device/cuda/shared_memory.h"
#include "device/cuda/tensor_map.h"
#include "ops/linear/cuda_kernels.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/rms_norm/row.cuh"
#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {
namespace {

using device::DType;

constexpr int kBlock = 128;      // of k that one scale holds for
constexpr int kMostBlocks = 16;  // of a CTA
constexpr int kTogether = 4;     // whose products take turns: steps of one sum wait for each other
constexpr int kRows = 64;        // of the weights
constexpr int kTokens = 8;
constexpr int kThreads = 128 + 32;
constexpr int kWeightBytes = kRows * kBlock;
constexpr int kStageBytes = kWeightBytes + kTokens * kBlock;
constexpr int kMostCtas = 8;  // of a cluster

// A norm of the first `width` columns of y's only row, as BlockRow would have them; or none.
struct NormAfter {
  const float* weight;  // null: none
  float eps;
  int width;
  bf16* y;
  QuantizedMatrix rounded;
  uint32_t* arrivals;  // Stream::counter()
};
constexpr int kNormParts = 2;
constexpr int64_t kMostNormRows = 1;  // one after another, two take longer than a kernel of their own

// A row by the first `threads` of the 128 consumers; the others have nothing of it, but come to the barrier
// (racecheck takes a barrier of fewer for none).
struct FirstThreads {
  static constexpr int kHeld = kNormParts;

  float* sums;  // [4] in shared memory
  int threads;

  __device__ int64_t first(int p) const {
    const int thread = static_cast<int>(threadIdx.x);
    return (int64_t{thread < threads ? p : kNormParts} * threads + thread) * kPart;
  }
  __device__ float squares(const Floats (&values)[kHeld]) const {
    float sum = 0.0F;
#pragma unroll
    for (int p = 0; p < kHeld; ++p) sum = add_squares(values[p], sum);
    sum = warp_sum(sum);
    if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = sum;
    named_barrier_sync(1, 128);
    float all = 0.0F;
    for (int w = 0; w < threads / 32; ++w) all += sums[w];
    return all;
  }
};

__device__ __noinline__ void norm_first_row(const FirstThreads& row, const bf16* x, const float* weight,
                                            float eps, int width, bf16* y, const QuantizedRowView& rounded) {
  Floats values[kNormParts];
#pragma unroll
  for (int p = 0; p < kNormParts; ++p) values[p] = load_part<true>(x, row.first(p), width);
  norm_row<true>(row, values, weight, eps, width, y, rounded);
}

// `each`: blocks of a CTA, but for the cluster's last one, which has what is left.
__global__ void __launch_bounds__(kThreads, 1)
    wgmma_w8a8_chain_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                            const __grid_constant__ CUtensorMap weight_map, int each, int ctas,
                            const __grid_constant__ NormAfter norm) {
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[kMostBlocks], handed;
  __shared__ float4 sums[128];
  __shared__ float norm_sums[4];
  __shared__ bool last;
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;

  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int rank = static_cast<int>(rank_in_cluster());
  const int n_first = static_cast<int>(blockIdx.x) / ctas * kRows;
  const int first = rank * each, here = min(each, args.k / kBlock - first);
  if (thread == 0) {
    for (int b = 0; b < here; ++b) barrier_init(&full[b], 1);
    barrier_init(&handed, 1);
    barrier_init_fence();
    barrier_expect(&handed, sizeof(sums));
  }
  cluster_sync();  // before anything is written into another CTA's memory
  device::cuda::let_next_start();

  if (warp == 4) {
    if (lane != 0) return;
    for (int b = 0; b < here; ++b) {
      barrier_expect(&full[b], kStageBytes);
      copy_tile(stages + b * kStageBytes, &weight_map, &full[b], (first + b) * kBlock, n_first);
    }
    device::cuda::wait_for_previous();
    for (int b = 0; b < here; ++b)
      copy_tile(stages + b * kStageBytes + kWeightBytes, &x_map, &full[b], (first + b) * kBlock, 0);
    return;
  }

  // Of each block two of the weights' scales and two tokens'.
  float2 of_rows[kMostBlocks], of_tokens[kMostBlocks];
  const int scale_groups = (args.n + 7) / 8, eight = n_first / 8 + warp * 2;
#pragma unroll
  for (int b = 0; b < kMostBlocks; ++b) {
    const float* scales = args.scales + static_cast<int64_t>(first + b) * scale_groups + eight;
    of_rows[b].x = b < here && eight < scale_groups ? scales[0] : 0.0F;
    of_rows[b].y = b < here && eight + 1 < scale_groups ? scales[1] : 0.0F;
  }
  const bool norms = norm.weight != nullptr && n_first < norm.width && rank == ctas - 1;
  const int norm_threads = norms ? static_cast<int>(norm_block(norm.width)) : 0;
  uint8_t* const room = stages + each * kStageBytes;
  const FirstThreads row_threads{norm_sums, norm_threads};
  if (norms) {
    // A rehearsal, over what is there already and into memory of no use: instructions come from memory, too,
    // and that takes longer than the norm.
    norm_first_row(row_threads, reinterpret_cast<const bf16*>(norm.weight), norm.weight, norm.eps, norm.width,
                   reinterpret_cast<bf16*>(room + 2 * norm.width),
                   {room, reinterpret_cast<float*>(room + norm.width), 1});
  }
  device::cuda::wait_for_previous();
  const int token = lane % 4 * 2;
#pragma unroll
  for (int b = 0; b < kMostBlocks; ++b) {
    const float* scales = args.x_scales + (first + b) * args.x_scale_stride + token;
    of_tokens[b].x = b < here && token < args.rows ? scales[0] : 0.0F;
    of_tokens[b].y = b < here && token + 1 < args.rows ? scales[1] : 0.0F;
  }

  float parts[kMostBlocks][4];
  const uint32_t first_stage = uniform(wgmma_address(stages));
#pragma unroll
  for (int first_of = 0; first_of < kMostBlocks; first_of += kTogether) {
    uint64_t a[kTogether], x[kTogether];
#pragma unroll
    for (int i = 0; i < kTogether; ++i) {
      // Blocks that there are not: the last one's products once more, which nobody adds.
      const int at = min(first_of + i, here - 1);
      barrier_wait(&full[at], 0);
      const uint32_t stage = first_stage + static_cast<uint32_t>(at) * (kStageBytes / 16);
      a[i] = wgmma_tile_at(stage);
      x[i] = wgmma_tile_at(stage + kWeightBytes / 16);
    }
    wgmma_fence();
#pragma unroll
    for (int k = 0; k < kBlock / 32; ++k) {
#pragma unroll
      for (int i = 0; i < kTogether; ++i) wgmma_e4m3(parts[first_of + i], a[i] + 2 * k, x[i] + 2 * k, k > 0);
    }
    wgmma_commit();
  }
  wgmma_wait<0>();

  float sum[4] = {};
  if (rank > 0) {
    barrier_wait(&handed, 0);
    const float4 before = sums[thread];
    sum[0] = before.x, sum[1] = before.y, sum[2] = before.z, sum[3] = before.w;
  }
#pragma unroll
  for (int b = 0; b < kMostBlocks; ++b) {
    if (b >= here) continue;
    const float2 row = of_rows[b], scale = of_tokens[b];
    sum[0] = fmaf(row.x * scale.x, parts[b][0], sum[0]);
    sum[1] = fmaf(row.x * scale.y, parts[b][1], sum[1]);
    sum[2] = fmaf(row.y * scale.x, parts[b][2], sum[2]);
    sum[3] = fmaf(row.y * scale.y, parts[b][3], sum[3]);
  }
  if (rank + 1 < ctas) {
    const auto next = static_cast<uint32_t>(rank + 1);
    send(sum, cluster_address(&sums[thread], next), cluster_address(&handed, next));
    return;
  }
  store_sums(args, 0, {0, 0, args.rows}, 0, n_first + warp * 16, sum);
  if (!norms) return;
  __threadfence();
  named_barrier_sync(1, 128);
  if (thread == 0) {
    const auto tiles = static_cast<uint32_t>((norm.width + kRows - 1) / kRows);
    last = atomicAdd(norm.arrivals, 1U) == tiles - 1;
    if (last) atomicExch(norm.arrivals, 0U);
    __threadfence();
  }
  named_barrier_sync(1, 128);
  if (last) {
    norm_first_row(row_threads, static_cast<const bf16*>(args.y), norm.weight, norm.eps, norm.width, norm.y,
                   row_of(norm.rounded, 0));
  }
}

// Whether the kernel takes it, as its threads and its shared memory are.
bool takes_norm(const RmsNormArgs& norm) {
  const int64_t width = norm.x.columns;
  return norm.x.rows <= kMostNormRows && norm_parts(width) == kNormParts && norm_block(width) <= 128 &&
         norm.x.dtype == DType::kBF16 && norm.y.dtype == DType::kBF16 && norm.rounded.values != nullptr &&
         norm.rounded.stride % 16 == 0 && takes_parts(norm.x) && takes_parts(norm.y) &&
         takes_parts(norm.weight, sizeof(float), width, 0);
}

}  // namespace

bool linear_wgmma_w8a8_chain(device::cuda::Stream& stream, const TileCall& call) {
  const auto& args = call.args;
  if (call.norm != nullptr && !takes_norm(*call.norm)) return false;
  if (args.offsets != nullptr || args.k % kBlock != 0 || call.max_rows > kTokens) return false;
  const int64_t tiles = ceil_div<int64_t>(args.n, kRows), blocks = args.k / kBlock;
  const int64_t room = stream.gpu().multiprocessors / tiles;
  // Two CTAs save next to nothing, and of short sums there is nothing to save.
  const auto ctas = static_cast<int>(std::min<int64_t>(kMostCtas, room));
  if (ctas < 3 || blocks < 4 * ctas || ceil_div<int64_t>(blocks, ctas) > kMostBlocks) return false;
  const auto each = static_cast<int>(ceil_div<int64_t>(blocks, ctas));
  const auto used = static_cast<int>(ceil_div<int64_t>(blocks, each));
  const CUtensorMap x_map =
      device::cuda::tile_map_8bit(stream, args.x, call.x_rows, args.k, args.x_stride, kTokens);
  const CUtensorMap weight_map =
      device::cuda::tile_map_8bit(stream, args.weight, args.n, args.k, args.k_stride, kRows);
  NormAfter norm{};
  int64_t norm_bytes = 0;
  if (call.norm != nullptr) {
    const RmsNormArgs& after = *call.norm;
    const int64_t width = after.x.columns;
    norm = {after.weight,  after.eps,       static_cast<int>(width), static_cast<bf16*>(after.y.data),
            after.rounded, stream.counter()};
    norm_bytes = 4 * width;  // FP8 values, scales, and bf16
  }
  constexpr int kMostNormBytes = 4 * 2048;
  FATHOM_CHECK(norm_bytes <= kMostNormBytes, "a norm of {} columns", norm.width);
  static device::cuda::SharedMemory memory;
  memory.allow(stream, wgmma_w8a8_chain_kernel, kMostBlocks * kStageBytes + 1024 + kMostNormBytes);
  device::cuda::launch_early_clusters(stream, wgmma_w8a8_chain_kernel, static_cast<unsigned>(used),
                                      dim3(static_cast<unsigned>(tiles * used)), dim3(kThreads),
                                      each * kStageBytes + 1024 + static_cast<int>(norm_bytes), args, x_map,
                                      weight_map, each, used, norm);
  return true;
}

}  // namespace fathom::ops::cuda
