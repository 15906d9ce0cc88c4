// What the two kernels for many heads share: 64 heads are the rows of wgmma tiles, 64 places a tile of
// entries, in blocks of 64 columns as the copy engine brings them.
#pragma once

#include <algorithm>

#include "base/math.h"
#include "device/cuda/tensor_map.h"
#include "ops/attention/hopper.cuh"
#include "ops/attention/tails.cuh"
#include "ops/attention/values.cuh"
#include "ops/mla_decode/kernels.cuh"

namespace fathom::ops::cuda::wide {

inline constexpr int kHeads = 64, kLatent = 512, kWidth = 576;
inline constexpr int kKeys = kSplitTile;
inline constexpr int kBlockBytes = 64 * 128;  // 64 rows of 64 columns, swizzled
inline constexpr int kBlocks = kWidth / 64;

struct Params {
  CUtensorMap queries;  // matrices of a token's heads, in boxes of 64
  CUtensorMap cache;    // entries, in boxes of box_rows places
  CUtensorMap entries;  // the same, one by one
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
  // Of all columns.
  __device__ uint32_t bytes(const Params& params) const {
    return static_cast<uint32_t>((boxes * params.box_rows + singles) * kWidth * 2);
  }
  // copy(offset in a block, map, row) for each; `page`: the first place's.
  template <class Copy>
  __device__ void run(const Params& params, const TokenTail& tail, const int32_t* table, int page,
                      const Copy& copy) const {
    for (int box = 0; box < boxes; ++box) {
      const int place = begin + box * params.box_rows;
      if (box > 0) page = table[place / params.page_size];
      copy(box * params.box_rows * 128, &params.cache, page * params.page_size + place % params.page_size);
    }
    for (int place = first_single; place < first_single + singles; ++place) {
      const int64_t row = tail.has(place) ? tail.entry(place)
                                          : int64_t{table[place / params.page_size]} * params.page_size +
                                                place % params.page_size;
      copy((place - begin) * 128, &params.entries, static_cast<int32_t>(row));
    }
  }
};

inline Params make_params(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                          const SplitWorkspace& workspace) {
  Params params;
  params.page_size = static_cast<int>(args.cache.page_size);
  params.box_rows = std::min(params.page_size, kKeys);
  // How many pages there are is not known here; block tables name none that is not.
  params.cache = device::cuda::tile_map_16bit(stream, args.cache.data, int64_t{1} << 31, kWidth, kWidth * 2,
                                              params.box_rows, 64);
  params.entries =
      device::cuda::tile_map_16bit(stream, args.cache.data, int64_t{1} << 31, kWidth, kWidth * 2, 1, 64);
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
  params.scale = args.scale * kLog2E;
  params.workspace = workspace;
  return params;
}

}  // namespace fathom::ops::cuda::wide
