// Everything between mla_decode's items and the output projection in one kernel, for few tokens. A CTA has
// one head, or a stripe of its rows of w_vc, which come while the items are still computed; it folds the
// items of its head's columns itself, multiplies, and rounds what it has of a token. Bit for bit what
// split_combine(), batched_linear() and quantize() give.
#include "ops/mla_decode/values.h"

#include "base/check.h"
#include "device/cuda/shared_memory.h"
#include "ops/linear/cuda_tiles.cuh"
#include "ops/mla_decode/fold_items.cuh"
#include "ops/mla_decode/head_product.cuh"
#include "ops/mla_decode/kernels.cuh"
#include "ops/quantize/block.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kWarps = 16, kThreads = kWarps * 32;
constexpr int kMostBytes = 223 << 10;  // and what is static
constexpr int64_t kLeastRows = 32;     // of w_vc a CTA
// Few heads are few CTAs, each of which would fold items that many can share (README.md).
constexpr int64_t kLeastHeads = 48;

struct Params {
  SplitWorkspace workspace;
  const int32_t* positions;
  const int32_t* slots;
  int tokens, heads;
  const bf16* whole;  // outputs of queries that are one item
  int64_t whole_stride;
  HeadMatrix weight;  // w_vc
  bf16* y;
  int64_t y_stride;
  QuantizedMatrix rounded;
};

__device__ uint2 packed(const float4& values) {
  return {pack_outputs(values.x, values.y), pack_outputs(values.z, values.w)};
}

// The head's outputs of all tokens, a line of bf16 values each. Warps take as many columns at once as a
// query's items leave lanes for; those of padding stay as they are.
__device__ void fold_latents(const Params& p, const SplitPlan& plan, int head, uint8_t* lines) {
  constexpr Nodes kNodes = Nodes::kMeans;
  constexpr int kNode = kItemFan, kTop = kItemFan * kItemFan;
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  const int part = lane / (32 / kItemFan), place = lane % (32 / kItemFan);
  const int latent = p.weight.k;
  for (int i = warp; i < p.tokens * (latent / 32); i += kWarps) {
    const int token = i % p.tokens, chunk = i / p.tokens;
    uint8_t* line = lines + token * row_pitch(latent);
    const int first = plan.first_items[token], items = plan.first_items[token + 1] - first;
    const auto items_at = [&](int item, int column) {
      return fold_items<kNodes>(p.workspace, p.heads, latent, first + item, items - item,
                                head * latent + column);
    };
    if (items == 1) {
      const int column = chunk * 256 + lane * 8;
      if (column >= latent) continue;
      *reinterpret_cast<uint4*>(line + column * 2) =
          *reinterpret_cast<const uint4*>(p.whole + token * p.whole_stride + head * latent + column);
    } else if (items <= kNode) {
      const int column = chunk * 128 + lane * 4;
      if (items < 1 || column >= latent) continue;
      *reinterpret_cast<uint2*>(line + column * 2) = packed(items_at(0, column).output());
    } else {
      const int column = chunk * 32 + place * 4;
      const int of_part = items <= kTop ? kNode : kTop;  // items that one part of the lanes folds
      Partial<kNodes> result = {};
      for (int item = part * of_part; item < min(items, (part + 1) * of_part); item += kNode) {
        const Partial<kNodes> node = items_at(item, column);
        result = item == part * of_part ? node : fold(result, node);
      }
      result = fold_lanes(result, (items + of_part - 1) / of_part);
      if (part == 0) *reinterpret_cast<uint2*>(line + column * 2) = packed(result.output());
    }
  }
}

// The outputs of the CTA's rows, also as lines in shared memory.
template <int kTiles, bool kFp8>
__device__ void multiply(const Params& p, const HeadProduct<kFp8>& product, const uint8_t* latents,
                         uint8_t* outputs, int first_column, int tokens) {
  const int warp = static_cast<int>(threadIdx.x) / 32, lane = static_cast<int>(threadIdx.x) % 32;
  for (int row = warp * 16; row < p.weight.rows; row += kWarps * 16) {
    float sums[kTiles][4];
    product.run(row, latents, sums);
    const int column = row + lane % 4 * 2;
#pragma unroll
    for (int t = 0; t < kTiles; ++t) {
      // Turned round, so that a token's are neighbours.
      const uint32_t low = transpose_8x8(pack_outputs(sums[t][0], sums[t][1]));
      const uint32_t high = transpose_8x8(pack_outputs(sums[t][2], sums[t][3]));
      const int token = t * 8 + lane / 4;
      if (token >= tokens) continue;
      bf16* y = p.y + token * p.y_stride + first_column + column;
      *reinterpret_cast<uint32_t*>(y) = low;
      *reinterpret_cast<uint32_t*>(y + 8) = high;
      uint8_t* output = outputs + token * row_pitch(p.weight.rows) + column * 2;
      *reinterpret_cast<uint32_t*>(output) = low;
      *reinterpret_cast<uint32_t*>(output + 16) = high;
    }
  }
}

// Half a warp has a block; whole warps go round together.
__device__ void round_outputs(const Params& p, const uint8_t* outputs, int first_column, int tokens) {
  const int thread = static_cast<int>(threadIdx.x);
  const int blocks = p.weight.rows / kQuantizeBlock, all = blocks * tokens;
  for (int i = thread / 16; i < (max(all, 1) + 1) / 2 * 2; i += kThreads / 16) {
    const int token = i < all ? i / blocks : 0;
    const int column = i % blocks * kQuantizeBlock + thread % 16 * kPart;
    const auto* output =
        reinterpret_cast<const bf16*>(outputs + token * row_pitch(p.weight.rows) + column * 2);
    const int64_t to = i < all ? first_column + column : p.rounded.columns;  // past the end: not stored
    quantize_part<true>(row_of(p.rounded, token), to, p.rounded.columns, load_part(output));
  }
}

template <int kTiles, bool kFp8>
__global__ void __launch_bounds__(kThreads, 1) mla_values_kernel(const __grid_constant__ Params p) {
  extern __shared__ __align__(16) uint8_t memory[];
  const int head = static_cast<int>(blockIdx.x) / p.weight.stripes;
  const int stripe = static_cast<int>(blockIdx.x) % p.weight.stripes;
  __shared__ SplitPlan plan;
  const HeadProduct<kFp8> product(p.weight, memory);
  uint8_t* latents = memory + product.bytes(p.weight);
  uint8_t* outputs = latents + kTiles * 8 * row_pitch(p.weight.k);
  const int first_column = (head * p.weight.stripes + stripe) * p.weight.rows;

  // The weights are nobody's output: they come while the items are still computed.
  product.load(head, stripe, static_cast<int>(threadIdx.x), kThreads);
  copy_async_commit();
  device::cuda::let_next_start();
  // The items' plan again, instead of waiting for it.
  make_split_plan(plan, p.positions, p.slots, p.tokens, p.workspace);
  copy_async_wait<0>();
  __syncthreads();
  // Once for nothing: what runs but once waits for its instructions.
#pragma unroll 1
  for (int pass = 0; pass < 2; ++pass) {
    const int tokens = pass == 0 ? 0 : p.tokens;
    if (pass > 0) {
      device::cuda::wait_for_previous();
      fold_latents(p, plan, head, latents);
      __syncthreads();
    }
    multiply<kTiles>(p, product, latents, outputs, first_column, tokens);
    __syncthreads();
    if (p.rounded.values != nullptr) round_outputs(p, outputs, first_column, tokens);
  }
}

template <bool kFp8>
int bytes_of(const HeadMatrix& weight, int tiles) {
  return HeadProduct<kFp8>::bytes(weight) + tiles * 8 * (row_pitch(weight.k) + row_pitch(weight.rows));
}

template <int kTiles, bool kFp8>
void launch(device::cuda::Stream& stream, const Params& params) {
  const auto kernel = mla_values_kernel<kTiles, kFp8>;
  static device::cuda::SharedMemory memory;
  if (!memory.allow(stream, kernel, kMostBytes)) return;
  device::cuda::launch_early(stream, kernel,
                             dim3(static_cast<unsigned>(params.heads * params.weight.stripes)),
                             dim3(kThreads), bytes_of<kFp8>(params.weight, kTiles), params);
}

// A CTA that rounds a head's blocks has all of its rows.
HeadMatrix matrix_of(const device::cuda::Gpu& gpu, const MlaValuesArgs& args) {
  return args.rounded.values != nullptr ? HeadMatrix::of(*args.weight, 1)
                                        : HeadMatrix::in_stripes(*args.weight, gpu, kLeastRows);
}

bool takes(const device::cuda::Gpu& gpu, const MlaValuesArgs& args) {
  using device::DType;
  const Weight& w = *args.weight;
  const Matrix& latents = args.decode.out;
  const QuantizedMatrix& rounded = args.rounded;
  const auto aligned = [](const Matrix& m, uintptr_t bytes) {
    return reinterpret_cast<uintptr_t>(m.data) % bytes == 0 &&
           m.stride * 2 % static_cast<int64_t>(bytes) == 0;
  };
  // Of long queries a head's CTA would have many items to fold.
  const bool brief = args.decode.max_context <= kLargeUnits.brief;
  return mla_decode_wide_takes(gpu, args.decode) && w.groups >= kLeastHeads &&
         args.decode.batch.tokens <= kMostValuesTokens && brief && HeadMatrix::takes(w) &&
         bytes_of<false>(matrix_of(gpu, args), kMostValuesTokens / 8) <= kMostBytes &&
         latents.dtype == DType::kBF16 && aligned(latents, 16) && args.y.dtype == DType::kBF16 &&
         aligned(args.y, 4) &&
         (rounded.values == nullptr || (w.n % kQuantizeBlock == 0 && rounded.stride % kPart == 0 &&
                                        reinterpret_cast<uintptr_t>(rounded.values) % kPart == 0));
}

}  // namespace

bool mla_values(device::cuda::Stream& stream, const MlaValuesArgs& args) {
  const Weight& w = *args.weight;
  const int64_t tokens = args.decode.batch.tokens;
  FATHOM_CHECK(w.groups == args.decode.heads && w.k == args.decode.latent &&
                   args.y.columns == w.groups * w.n && args.y.rows >= tokens,
               "w_vc: {} of [{}, {}] for {} heads of {}, y [{}, {}], {} tokens", w.groups, w.n, w.k,
               args.decode.heads, args.decode.latent, args.y.rows, args.y.columns, tokens);
  FATHOM_CHECK(args.rounded.values == nullptr ||
                   (args.rounded.columns == args.y.columns && args.rounded.rows >= tokens),
               "rounded [{}, {}] of y [{}, {}]", args.rounded.rows, args.rounded.columns, args.y.rows,
               args.y.columns);
  if (!takes(stream.gpu(), args)) return false;
  if (tokens == 0) return true;
  const Matrix& latents = args.decode.out;
  Params params;
  params.workspace = mla_decode_items(stream, args.decode);
  params.workspace.settled = false;
  params.positions = args.decode.batch.positions;
  params.slots = args.decode.batch.slots;
  params.tokens = static_cast<int>(tokens);
  params.heads = static_cast<int>(w.groups);
  params.whole = static_cast<const bf16*>(latents.data);
  params.whole_stride = latents.stride;
  params.weight = matrix_of(stream.gpu(), args);
  params.y = static_cast<bf16*>(args.y.data);
  params.y_stride = args.y.stride;
  params.rounded = args.rounded;
  with_head_weights(w, [&](auto fp8) {
    constexpr bool kFp8 = decltype(fp8)::value;
    if (tokens <= 8)
      launch<1, kFp8>(stream, params);
    else
      launch<2, kFp8>(stream, params);
  });
  stream.launched("mla_values");
  return true;
}

}  // namespace fathom::ops::cuda
