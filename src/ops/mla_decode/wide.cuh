// What the two kernels for many heads share: 64 heads are the rows of wgmma tiles, 64 places a tile of
// entries, in blocks of 64 columns as the copy engine brings them.
#pragma once

#include <algorithm>

#include "base/math.h"
#include "device/cuda/tensor_map.h"
#include "ops/attention/hopper.cuh"
#include "ops/attention/tails.cuh"
#include "ops/attention/values.cuh"
#include "ops/attention/widen_f8.cuh"
#include "ops/mla_decode/kernels.cuh"

namespace fathom::ops::cuda::wide {

inline constexpr int kHeads = 64, kLatent = 512, kWidth = 576;
inline constexpr int kKeys = kSplitTile;
inline constexpr int kBlockBytes = 64 * 128;  // 64 rows of 64 columns, swizzled
inline constexpr int kBlocks = kWidth / 64;

// A tile's columns count for its scores in this order of blocks: the first kFirstBlocks are those that the
// values' sums are done with first (wide_sm90.cu).
inline constexpr int kFirstBlocks = 4;
__host__ __device__ constexpr int block_in_order(int i) {
  return i < kFirstBlocks ? i + i / 2 * 2 : i < kBlocks - 1 ? i - 2 + i / 6 * 2 : i;
}

struct Params {
  CUtensorMap queries;     // matrices of a token's heads, in boxes of 64
  CUtensorMap cache;       // entries, in boxes of box_rows places
  CUtensorMap entries;     // the same, one by one; bf16 alone
  const __nv_bfloat16* q;  // what `queries` maps
  const void* cache_data;  // what `cache` maps
  int64_t q_stride;
  __nv_bfloat16* out;
  int64_t out_stride;
  int page_size, box_rows;
  const int32_t* positions;
  const int32_t* slots;
  const int32_t* block_tables;
  int64_t table_stride;
  Branches branches;
  int tokens, heads, groups;
  float scale;  // for base 2
  SplitWorkspace workspace;
};

// Byte 16 * chunk of a row of a swizzled block.
__device__ inline int swizzled(int row, int chunk) {
  return row * 128 + ((chunk ^ (row & 7)) * 16);
}

// Of a tile's scores, those of its first `count` entries stay.
__device__ inline void mask_scores(float (&scores)[32], int count, int lane) {
  if (count >= kKeys) return;
#pragma unroll
  for (int j = 0; j < 32; ++j) {
    if (j / 4 * 8 + lane % 4 * 2 + j % 2 >= count) scores[j] = -INFINITY;
  }
}
// The scores of 64 heads with a tile's entries, of which the first `count` are places; by a warpgroup. Of
// rows row and row + 8 a thread has columns 8 j + lane % 4 * 2 and the next (wgmma_shared).
template <class P>
__device__ inline void score_tile(float (&scores)[32], const unsigned char* queries,
                                  const unsigned char* keys, int count, int lane) {
  const uint64_t q = wgmma_tile(queries), k = wgmma_tile(keys);
  settle(scores);
  wgmma_fence();
#pragma unroll
  for (int step = 0; step < kWidth / 16; ++step) {
    const uint64_t offset = block_in_order(step / 4) * (kBlockBytes / 16) + step % 4 * 2;
    wgmma_shared<false, P>(scores, q + offset, k + offset, step > 0);
  }
  wgmma_commit();
  wgmma_wait<0>();
  settle(scores);
  mask_scores(scores, count, lane);
}
// The largest of the thread's scores of its rows, `row` and row + 8.
__device__ inline void own_tops(float (&tops)[2], const float (&scores)[32]) {
#pragma unroll
  for (int half = 0; half < 2; ++half) {
    float pairs[8];
#pragma unroll
    for (int j = 0; j < 8; ++j) pairs[j] = fmaxf(scores[4 * j + 2 * half], scores[4 * j + 2 * half + 1]);
#pragma unroll
    for (int j = 0; j < 4; ++j) pairs[j] = fmaxf(pairs[j], pairs[j + 4]);
    tops[half] = fmaxf(fmaxf(pairs[0], pairs[2]), fmaxf(pairs[1], pairs[3]));
  }
}
// Of the four threads that share the rows.
__device__ inline void row_tops(float (&tops)[2]) {
#pragma unroll
  for (int lanes = 1; lanes < 4; lanes *= 2) {
    const float others[2] = {__shfl_xor_sync(0xffffffffU, tops[0], lanes),
                             __shfl_xor_sync(0xffffffffU, tops[1], lanes)};
    tops[0] = fmaxf(tops[0], others[0]);
    tops[1] = fmaxf(tops[1], others[1]);
  }
}
// What weights count from behind a tile whose largest score is tile_top, in base 2: the same as before it, as
// long as weights are at most 256, so that what was summed seldom has to be rescaled. The first is a tile's
// largest, so a sum of weights is 1 or more.
__device__ inline float next_top(float top, float tile_top) {
  return tile_top > top + 8.0F ? tile_top : top;
}
// The rows' weights, in pairs, and the sums of the thread's. They are summed as they are rounded: where one
// is all there is, its entry's values are the output.
template <class P>
__device__ inline void weights_of(uint32_t (&weights)[2][8], float (&sums)[2], const float (&scores)[32],
                                  float scale, const float (&tops)[2]) {
  sums[0] = sums[1] = 0;
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float a = exp2_fast(fmaf(scores[4 * j + 2 * half], scale, -tops[half]));
      const float b = exp2_fast(fmaf(scores[4 * j + 2 * half + 1], scale, -tops[half]));
      weights[half][j] = pack_pair<P>(a, b);
      const float2 rounded = unpack_pair<P>(weights[half][j]);
      sums[half] += rounded.x + rounded.y;
    }
  }
}
// Into a swizzled block.
__device__ inline void store_weights(unsigned char* block, int row, int lane,
                                     const uint32_t (&weights)[2][8]) {
  // One register for all eight chunks of a row.
  const uint32_t first = kept(shared_address(block) + static_cast<uint32_t>(swizzled(row, 0) + lane % 4 * 4));
#pragma unroll
  for (int j = 0; j < 8; ++j) {
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const uint32_t to = (first ^ static_cast<uint32_t>(j * 16)) + static_cast<uint32_t>(half * 1024);
      asm volatile("st.shared.b32 [%0], %1;" ::"r"(to), "r"(weights[half][j]) : "memory");
    }
  }
}
// 16 bytes.
__device__ inline void store_zeros(uint32_t to) {
  asm volatile("st.shared.v4.b32 [%0], {%1, %1, %1, %1};" ::"r"(to), "r"(0) : "memory");
}

// Bytes of a block of 64 columns of a tile of FP8 entries: rows of 64 bytes.
inline constexpr int kRawBytes = kKeys * 64;

// By a warp, of kCount groups of eight rows of such blocks: a lane has 16 bytes of each, widened in swizzled
// blocks. Groups are raw_step and block_step bytes apart. count(i): of group i's rows, how many are places;
// the others become zeros.
template <class T, int kCount, class Rows>
__device__ inline void widen_rows(const unsigned char* raw, int raw_step, unsigned char* block,
                                  int block_step, int lane, const Rows& count) {
  const unsigned char* from = raw + lane * 16;
  unsigned char* to = block + swizzled(lane / 4, lane % 4 * 2);
  const int second = (lane / 4 & 1) == 0 ? 16 : -16;  // the row's next chunk
  constexpr int kAtOnce = 4;
#pragma unroll
  for (int first = 0; first < kCount; first += kAtOnce) {
    uint4 bytes[kAtOnce];
#pragma unroll
    for (int i = first; i < kCount && i < first + kAtOnce; ++i)
      bytes[i - first] = lane / 4 < count(i) ? *reinterpret_cast<const uint4*>(from + i * raw_step) : uint4{};
#pragma unroll
    for (int i = first; i < kCount && i < first + kAtOnce; ++i) {
      uint4 wide[2];
      widen_f8x16<T>(bytes[i - first], wide);
      *reinterpret_cast<uint4*>(to + i * block_step) = wide[0];
      *reinterpret_cast<uint4*>(to + i * block_step + second) = wide[1];
    }
  }
}
// Queries as the copy engine brought them, 16 bytes at once, in place: chunk `first` and every step-th behind
// it.
template <class T, int kChunks>
__device__ inline void convert_queries(unsigned char* queries, int first, int step) {
#pragma unroll 4
  for (int i = first; i < kChunks; i += step) {
    uint4* chunk = reinterpret_cast<uint4*>(queries) + i;
    const uint4 pairs = *chunk;
    *chunk = make_uint4(query_pair<T>(pairs.x), query_pair<T>(pairs.y), query_pair<T>(pairs.z),
                        query_pair<T>(pairs.w));
  }
}

// Of a tile of entries [begin, begin + places) of a query: whole boxes, and entries that come one by one.
struct TileCopies {
  int begin, boxes, singles, first_single;

  __device__ TileCopies(const Params& params, const TokenTail& tail, int first, int end) : begin(first) {
    const int places = min(kKeys, end - begin);
    // From the box on in which the branch begins, entries come one by one: they lie anywhere.
    const bool branches = tail.has(begin + places - 1);
    boxes = branches ? max(tail.start - begin, 0) / params.box_rows
                     : (places + params.box_rows - 1) / params.box_rows;
    singles = branches ? places - boxes * params.box_rows : 0;
    first_single = begin + places - singles;
  }
  // That are copied: a box is always whole.
  __device__ uint32_t rows(const Params& params) const {
    return static_cast<uint32_t>(boxes * params.box_rows + singles);
  }
  // copy(row of the tile, row of the cache, whether it is a single one) for each; `page`: the first place's.
  template <class Copy>
  __device__ void run(const Params& params, const TokenTail& tail, const int32_t* table, int page,
                      const Copy& copy) const {
    for (int box = 0; box < boxes; ++box) {
      const int place = begin + box * params.box_rows;
      if (box > 0) page = table[place / params.page_size];
      copy(box * params.box_rows, page * params.page_size + place % params.page_size, false);
    }
    for (int place = first_single; place < first_single + singles; ++place) {
      const int64_t row = tail.has(place) ? tail.entry(place)
                                          : int64_t{table[place / params.page_size]} * params.page_size +
                                                place % params.page_size;
      copy(place - begin, static_cast<int32_t>(row), true);
    }
  }
};

// Where an item's means go, [Nh, Dc], both of 16 bits: a query's only item's to its output.
__device__ inline uint16_t* outputs_of(const Params& params, const SplitItem& item) {
  if (item.slot < 0) return reinterpret_cast<uint16_t*>(params.out + item.token * params.out_stride);
  return static_cast<uint16_t*>(params.workspace.partial) + int64_t{item.slot} * params.heads * kLatent;
}

inline Params make_params(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                          const SplitWorkspace& workspace) {
  Params params;
  params.page_size = static_cast<int>(args.cache.page_size);
  params.box_rows = std::min(params.page_size, kKeys);
  // How many pages there are is not known here; block tables name none that is not.
  constexpr int64_t kAnyRows = int64_t{1} << 31;
  if (args.cache.dtype == device::DType::kBF16) {
    params.cache = device::cuda::tile_map_16bit(stream, args.cache.data, kAnyRows, kWidth, kWidth * 2,
                                                params.box_rows, 64);
    params.entries =
        device::cuda::tile_map_16bit(stream, args.cache.data, kAnyRows, kWidth, kWidth * 2, 1, 64);
  } else {
    params.cache =
        device::cuda::plain_map_8bit(stream, args.cache.data, kAnyRows, kWidth, params.box_rows, 64);
    params.entries = CUtensorMap{};
  }
  params.q = static_cast<const __nv_bfloat16*>(args.q.data);
  params.q_stride = args.q.stride;
  params.cache_data = args.cache.data;
  params.queries = device::cuda::tiles_map_16bit(stream, args.q.data, args.batch.tokens, args.heads, kWidth,
                                                 args.q.stride * 2, kWidth * 2, kHeads, 64);
  params.out = static_cast<__nv_bfloat16*>(args.out.data);
  params.out_stride = args.out.stride;
  params.positions = args.batch.positions;
  params.slots = args.batch.slots;
  params.block_tables = args.batch.block_tables;
  params.table_stride = args.batch.table_stride;
  params.branches = args.branches;
  params.tokens = static_cast<int>(args.batch.tokens);
  params.heads = static_cast<int>(args.heads);
  params.groups = static_cast<int>(ceil_div<int64_t>(args.heads, kHeads));
  params.scale = score_scale(args.scale * kLog2E, args.cache.dtype);
  params.workspace = workspace;
  return params;
}

}  // namespace fathom::ops::cuda::wide
