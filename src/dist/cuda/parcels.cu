#include "dist/cuda/parcels.h"

#include <algorithm>

#include "base/math.h"
#include "device/cuda/launch_kernel.h"
#include "dist/cuda/sum_row.cuh"

namespace fathom::dist::cuda {
namespace {

constexpr int kThreads = 512;
constexpr int64_t kMostParcelBlocks = 256;

unsigned blocks_for(int64_t bytes) {
  return static_cast<unsigned>(std::clamp<int64_t>(
      ceil_div<int64_t>(bytes, 2 * kThreads * int64_t{sizeof(uint4)}), 1, kMostParcelBlocks));
}

// Rows of `row_bytes` bytes, apart by the strides, all of them a multiple of T's size.
template <class T>
__device__ void copy_rows(const std::byte* from, int64_t from_stride, std::byte* to, int64_t to_stride,
                          int64_t rows, int64_t row_bytes) {
  const int64_t width = row_bytes / static_cast<int64_t>(sizeof(T));
  const int64_t step = int64_t{gridDim.x} * blockDim.x;
  for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < rows * width; i += step) {
    const int64_t row = i / width, column = i % width;
    reinterpret_cast<T*>(to + row * to_stride)[column] =
        reinterpret_cast<const T*>(from + row * from_stride)[column];
  }
}

// In pieces as large as where the rows begin allows: packed ones begin anywhere.
__device__ void copy_any(const std::byte* from, int64_t from_stride, std::byte* to, int64_t to_stride,
                         int64_t rows, int64_t row_bytes) {
  const auto all = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) |
                   static_cast<uintptr_t>(from_stride | to_stride | row_bytes);
  if (all % 16 == 0) return copy_rows<uint4>(from, from_stride, to, to_stride, rows, row_bytes);
  if (all % 4 == 0) return copy_rows<uint32_t>(from, from_stride, to, to_stride, rows, row_bytes);
  copy_rows<uint16_t>(from, from_stride, to, to_stride, rows, row_bytes);
}

__global__ void __launch_bounds__(kThreads)
    pack_kernel(const std::byte* from, ParcelHead head, std::byte* parcel) {
  if (blockIdx.x == 0 && threadIdx.x == 0) *reinterpret_cast<ParcelHead*>(parcel) = head;
  copy_any(from, head.stride_bytes, parcel + kParcelHeadBytes, head.row_bytes, head.rows, head.row_bytes);
}

// blockIdx.y: the sender.
__global__ void __launch_bounds__(kThreads)
    unpack_kernel(const std::byte* parcels, int64_t each, int first, int own, std::byte* const* regions) {
  const int sender = first + static_cast<int>(blockIdx.y);
  if (sender == own) return;
  const std::byte* parcel = parcels + sender * each;
  const ParcelHead head = *reinterpret_cast<const ParcelHead*>(parcel);
  if (head.rows == 0) return;
  copy_any(parcel + kParcelHeadBytes, head.row_bytes, regions[head.region] + head.offset, head.stride_bytes,
           head.rows, head.row_bytes);
}

template <class D, class Y, int kParts>
__global__ void __launch_bounds__(ops::cuda::norm_threads(kParts))
    add_kernel(const D* own, ReceivedRows received, After<Y> after, Y* y) {
  using Row = ops::cuda::BlockRow<kParts>;
  __shared__ typename Row::Shared shared;
  Row threads{shared};
  const auto weights = after.weights_of(threads);
  const int64_t width = after.width;
  for (int64_t row = received.rows.first + blockIdx.x; row < received.rows.end; row += gridDim.x) {
    Floats values[kParts];
    add_in_order(values, received.size, width, [&](int r) {
      if (r == received.rank) return own + row * width;
      const auto* box = static_cast<const std::byte*>(received.boxes) + r * received.box_bytes;
      return reinterpret_cast<const D*>(box) + (row - received.rows.first) * width;
    });
    after.run(threads, weights, values, row, width, y + row * after.y_stride);
    __syncthreads();  // `shared` is free again
  }
}

}  // namespace

void pack_parcel(device::cuda::Stream& stream, const ops::cuda::Matrix& part, int region, int64_t offset,
                 int64_t most_bytes, void* parcel) {
  const int64_t size = device::size_of(part.dtype);
  FATHOM_CHECK(size >= 2, "a gather of {}", device::to_string(part.dtype));
  ParcelHead head;
  head.region = region;
  head.offset = offset;
  head.rows = part.columns > 0 ? part.rows : 0;
  head.row_bytes = part.columns * size;
  head.stride_bytes = part.stride * size;
  FATHOM_CHECK(head.rows * head.row_bytes <= most_bytes, "{} bytes of {}", head.rows * head.row_bytes,
               most_bytes);
  pack_kernel<<<blocks_for(head.rows * head.row_bytes), kThreads, 0, stream.handle()>>>(
      static_cast<const std::byte*>(part.data), head, static_cast<std::byte*>(parcel));
  stream.launched("pack");
}

void unpack_parcels(device::cuda::Stream& stream, const void* parcels, int64_t each, RankRange senders,
                    int own, std::byte* const* regions, int64_t most_bytes) {
  const dim3 grid(blocks_for(most_bytes), static_cast<unsigned>(senders.end - senders.first));
  unpack_kernel<<<grid, kThreads, 0, stream.handle()>>>(static_cast<const std::byte*>(parcels), each,
                                                        senders.first, own, regions);
  stream.launched("unpack");
}

void add_received(device::cuda::Stream& stream, const SumArgs& args, const ReceivedRows& received) {
  const int64_t rows = received.rows.end - received.rows.first;
  if (rows == 0) return;
  with_kernel(args, [&](auto parts, auto* d, auto* y) {
    using D = std::remove_pointer_t<decltype(d)>;
    using Y = std::remove_pointer_t<decltype(y)>;
    add_kernel<D, Y, decltype(parts)::value>
        <<<static_cast<unsigned>(std::min<int64_t>(rows, 1024)), ops::cuda::norm_block(args.rows.columns), 0,
           stream.handle()>>>(static_cast<const D*>(args.rows.data), received, after_of<Y>(args),
                              static_cast<Y*>(args.y.data));
  });
  stream.launched("add received rows");
}

}  // namespace fathom::dist::cuda
