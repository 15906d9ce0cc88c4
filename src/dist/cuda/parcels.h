// What GPUs of different processes send each other: rows of memory that they share, packed with where they
// belong, and sums of rows that have come.
#pragma once

#include "dist/cuda/gpu_group.h"

namespace fathom::dist::cuda {

// Ahead of a parcel's rows.
struct alignas(16) ParcelHead {
  int64_t offset = 0;  // in the region, bytes
  int64_t rows = 0, row_bytes = 0, stride_bytes = 0;
  int32_t region = 0;
};
inline constexpr int64_t kParcelHeadBytes = 64;
static_assert(sizeof(ParcelHead) <= kParcelHeadBytes);

// Bytes of a parcel of at most `bytes` of rows.
constexpr int64_t parcel_bytes(int64_t bytes) {
  return kParcelHeadBytes + (bytes + 15) / 16 * 16;
}

// `part`, which lies `offset` bytes into region `region`, to `parcel`.
void pack_parcel(device::cuda::Stream& stream, const ops::cuda::Matrix& part, int region, int64_t offset,
                 int64_t most_bytes, void* parcel);
// Parcels `first` to before `end`, `each` bytes apart at `parcels`, but for that of rank `own`, to where they
// belong: regions begin at regions[i], an array on the device.
void unpack_parcels(device::cuda::Stream& stream, const void* parcels, int64_t each, RankRange senders,
                    int own, std::byte* const* regions, int64_t most_bytes);

// Rows of every rank: this one's own are all of args.rows; those of rank r, from `rows.first` on, came to
// boxes + r * box_bytes. Adds rows [first, end) as GpuGroup::sum does.
struct ReceivedRows {
  int rank = 0, size = 1;
  const void* boxes = nullptr;
  int64_t box_bytes = 0;
  RowRange rows;
};
void add_received(device::cuda::Stream& stream, const SumArgs& args, const ReceivedRows& received);

}  // namespace fathom::dist::cuda
