// FP8 weights and FP8 activations on Hopper, up to 8 tokens of a dense product with so few rows of weights
// that its time is that of one sum over k (queries and entries from the hidden state): the CTAs of a cluster
// have 64 rows together, and each some blocks of 128 of k in a row. All of a CTA's weights come while the
// kernel before this one still runs, and its products are under way at once; then the sum goes from CTA to
// CTA, each adding its own blocks' products in their order, or, of one token, the last CTA gets the products
// of all. Products and order are those of wgmma_w8a8_sm90.cu, and so are the bits. Where a norm of y's first
// columns comes next, one CTA does it: it is sent them by the others, each output a word.
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
constexpr int kMostCtas = 8;                                // of a cluster
constexpr int kMostBytes = 224 << 10;                       // and what is static
constexpr int kGatheredBytes = kRows / 2 * sizeof(float4);  // of a block

// A norm of the first `width` columns of y's only row, as BlockRow would have them; or none.
struct NormAfter {
  const float* weight;  // null: none
  float eps;
  int width;
  bf16* y;
  QuantizedMatrix rounded;
  uint32_t* mail;  // Stream::mail()
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

// An output as it is sent; no word is 0.
constexpr uint32_t kSent = 0x10000;
__device__ uint32_t word_of(float value) {
  return kSent | __bfloat16_as_ushort(__float2bfloat16(value));
}
// Addresses are generic: a rehearsal's are in shared memory.
__device__ void put(uint32_t* to, uint32_t word) {
  asm volatile("st.relaxed.gpu.b32 [%0], %1;" ::"l"(to), "r"(word) : "memory");
}
__device__ uint4 get(const uint4* from) {
  uint4 words;
  asm volatile("ld.relaxed.gpu.v4.b32 {%0, %1, %2, %3}, [%4];"
               : "=r"(words.x), "=r"(words.y), "=r"(words.z), "=r"(words.w)
               : "l"(from)
               : "memory");
  return words;
}

// Waits for a part of the outputs that are sent, and leaves none.
__device__ Floats take_part(uint32_t* mail) {
  constexpr int kVectors = kPart / 4;
  uint4 words[kVectors];
  for (bool waits = true; waits;) {
    waits = false;
#pragma unroll
    for (int i = 0; i < kVectors; ++i) {
      words[i] = get(reinterpret_cast<const uint4*>(mail) + i);
      waits = waits || words[i].x == 0 || words[i].y == 0 || words[i].z == 0 || words[i].w == 0;
    }
  }
  Floats part;
#pragma unroll
  for (int i = 0; i < kVectors; ++i) {
    reinterpret_cast<uint4*>(mail)[i] = uint4{};
    const uint32_t all[4] = {words[i].x, words[i].y, words[i].z, words[i].w};
#pragma unroll
    for (int k = 0; k < 4; ++k) part.v[i * 4 + k] = __uint_as_float(all[k] << 16);
  }
  return part;
}

__device__ __noinline__ void norm_mail(FirstThreads row, uint32_t* mail, const float* weight, float eps,
                                       int width, bf16* y, const QuantizedRowView& rounded) {
  const NormWeights<true, FirstThreads> weights(row, weight, width);
  Floats values[kNormParts];
#pragma unroll
  for (int p = 0; p < kNormParts; ++p) {
    const int64_t first = row.first(p);
    values[p] = first < width ? take_part(mail + first) : Floats{};
  }
  norm_row<true>(row, values, weights, eps, width, y, rounded);
}

// `each`: blocks of a CTA, but for the cluster's last one, which has what is left.
__global__ void __launch_bounds__(kThreads, 1)
    wgmma_w8a8_chain_kernel(const __grid_constant__ TileArgs args, const __grid_constant__ CUtensorMap x_map,
                            const __grid_constant__ CUtensorMap weight_map, int each, int ctas,
                            const __grid_constant__ NormAfter norm) {
  extern __shared__ uint8_t shared_bytes[];
  __shared__ uint64_t full[kMostBlocks], handed;
  __shared__ float4 sums[128];
  __shared__ float norm_sums[2][4];  // of the norm, and of its rehearsal
  uint8_t* stages = shared_bytes + (1024 - shared_address(shared_bytes) % 1024) % 1024;

  const int thread = static_cast<int>(threadIdx.x), warp = thread / 32, lane = thread % 32;
  const int rank = static_cast<int>(rank_in_cluster());
  const int n_first = static_cast<int>(blockIdx.x) / ctas * kRows;
  const int first = rank * each, here = min(each, args.k / kBlock - first);
  const bool last = rank == ctas - 1;
  // Of one token, what a block's products and their scales are: of a row lane / 4 of a warp, and that + 8.
  const bool gathers = args.rows == 1;
  auto* gathered = reinterpret_cast<float4*>(stages + each * kStageBytes);  // [blocks of the others, 32]
  const int pair = warp * 8 + lane / 4;
  if (thread == 0) {
    for (int b = 0; b < here; ++b) barrier_init(&full[b], 1);
    barrier_init(&handed, 1);
    barrier_init_fence();
    barrier_expect(&handed, gathers ? first * kGatheredBytes : static_cast<int>(sizeof(sums)));
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
  const bool sends = norm.weight != nullptr && n_first < norm.width && last, norms = sends && n_first == 0;
  const int norm_threads = norms ? static_cast<int>(norm_block(norm.width)) : 0;
  if (norms) {
    // A rehearsal, over words in memory of no use, and back into it: instructions come from memory, too, and
    // that takes longer than the norm.
    auto* words = reinterpret_cast<uint32_t*>(stages + each * kStageBytes + first * kGatheredBytes);
    uint8_t* room = reinterpret_cast<uint8_t*>(words + norm.width);
    const FirstThreads row_threads{norm_sums[1], norm_threads};
    for (int p = 0; p < kNormParts; ++p) {
      const int64_t part = row_threads.first(p);
      for (int64_t i = part; i < min(part + kPart, int64_t{norm.width}); ++i) words[i] = kSent;
    }
    norm_mail(row_threads, words, norm.weight, norm.eps, norm.width,
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
  if (gathers && !last) {
    const auto to = static_cast<uint32_t>(ctas - 1);
#pragma unroll
    for (int b = 0; b < kMostBlocks; ++b) {
      if (b >= here || lane % 4 != 0) continue;
      const float products[4] = {parts[b][0], of_rows[b].x * of_tokens[b].x, parts[b][2],
                                 of_rows[b].y * of_tokens[b].x};
      send(products, cluster_address(&gathered[(first + b) * (kRows / 2) + pair], to),
           cluster_address(&handed, to));
    }
    return;
  }
  if (rank > 0) barrier_wait(&handed, 0);
  if (gathers) {
#pragma unroll 8
    for (int b = 0; b < first; ++b) {
      const float4 products = gathered[b * (kRows / 2) + pair];
      sum[0] = fmaf(products.y, products.x, sum[0]);
      sum[2] = fmaf(products.w, products.z, sum[2]);
    }
  } else if (rank > 0) {
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
  if (!last) {
    const auto next = static_cast<uint32_t>(rank + 1);
    send(sum, cluster_address(&sums[thread], next), cluster_address(&handed, next));
    return;
  }
  if (sends && lane % 4 == 0) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int row = n_first + warp * 16 + lane / 4 + half * 8;
      if (row < norm.width) put(norm.mail + row, word_of(sum[half * 2]));
    }
  }
  store_sums(args, 0, {0, 0, args.rows}, 0, n_first + warp * 16, sum);
  if (norms) {
    norm_mail({norm_sums[0], norm_threads}, norm.mail, norm.weight, norm.eps, norm.width, norm.y,
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
    norm = {after.weight,  after.eps,    static_cast<int>(width), static_cast<bf16*>(after.y.data),
            after.rounded, stream.mail()};
    norm_bytes = 8 * width;  // words, FP8 values, scales, and bf16
  }
  constexpr int kMostNormBytes = 8 * device::cuda::Stream::kMailWords;
  const int gathered_bytes = call.max_rows == 1 ? (used - 1) * each * kGatheredBytes : 0;
  FATHOM_CHECK(norm_bytes <= kMostNormBytes, "a norm of {} columns", norm.width);
  const int bytes = each * kStageBytes + 1024 + gathered_bytes + static_cast<int>(norm_bytes);
  FATHOM_CHECK(bytes <= kMostBytes, "{} bytes of shared memory", bytes);
  static device::cuda::SharedMemory memory;
  memory.allow(stream, wgmma_w8a8_chain_kernel, kMostBytes);
  device::cuda::launch_early_clusters(stream, wgmma_w8a8_chain_kernel, static_cast<unsigned>(used),
                                      dim3(static_cast<unsigned>(tiles * used)), dim3(kThreads), bytes, args,
                                      x_map, weight_map, each, used, norm);
  return true;
}

}  // namespace fathom::ops::cuda
