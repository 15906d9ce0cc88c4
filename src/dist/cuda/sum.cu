#include <algorithm>

#include "device/cuda/launch_kernel.h"
#include "dist/cuda/kernels.h"
#include "dist/cuda/peers.cuh"
#include "dist/cuda/sum_row.cuh"

namespace fathom::dist::cuda {
namespace {

using ops::cuda::Floats;
using ops::cuda::kPart;

// Eight elements as they travel.
template <class D>
inline constexpr int kVectors = static_cast<int>(kPart * sizeof(D) / sizeof(uint4));
template <class D>
struct alignas(16) RawPart {
  uint4 v[kVectors<D>];
};

template <class D>
__device__ Floats to_floats(const RawPart<D>& raw) {
  Floats out;
  const auto* values = reinterpret_cast<const D*>(&raw);
#pragma unroll
  for (int i = 0; i < kPart; ++i) out.v[i] = ops::cuda::to_float(values[i]);
  return out;
}

// The same number, never kNothing: that is a NaN, or two.
template <class D>
__device__ uint32_t canonical(uint32_t word) {
  return word == kNothing ? (sizeof(D) == 4 ? 0x7fffffffU : 0x7fff7fffU) : word;
}
__device__ inline bool is_there(const uint4& v) {
  return v.x != kNothing && v.y != kNothing && v.z != kNothing && v.w != kNothing;
}

// A block a row. Words of an inbox that are read are emptied one sum later: whoever writes the slot next has
// seen this rank's post of that later sum.
template <class D, class Y, int kParts>
__global__ void __launch_bounds__(ops::cuda::norm_threads(kParts))
    post_kernel(PeerView peers, const D* rows, After<Y> after, Y* y) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  __shared__ float shared[32];
  const int64_t width = after.width;
  const int64_t row = blockIdx.x;
  const int64_t words = width * static_cast<int64_t>(sizeof(D)) / 4;  // of a row
  const uint32_t posts = peers.progress->posts;
  const uint32_t slot = posts % kSlots;
  const auto box = [&](int rank, uint32_t in_slot, int from) {
    return peers.inbox[rank] + (static_cast<int64_t>(in_slot) * peers.size + from) * peers.box_words;
  };

  RawPart<D> own[kParts];
#pragma unroll
  for (int p = 0; p < kParts; ++p) {
    const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
    if (first >= width) continue;
    own[p] = *reinterpret_cast<const RawPart<D>*>(rows + row * width + first);
#pragma unroll
    for (int v = 0; v < kVectors<D>; ++v) {
      uint4& word = own[p].v[v];
      word = {canonical<D>(word.x), canonical<D>(word.y), canonical<D>(word.z), canonical<D>(word.w)};
    }
  }
  for (int r = 0; r < peers.size; ++r) {
    if (r == peers.rank) continue;
    uint32_t* to = box(r, slot, peers.rank) + row * words;
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
      if (first >= width) continue;
      auto* vectors = reinterpret_cast<uint4*>(to + first * static_cast<int64_t>(sizeof(D)) / 4);
#pragma unroll
      for (int v = 0; v < kVectors<D>; ++v) store_relaxed(vectors + v, own[p].v[v]);
    }
  }

  const uint32_t old_slot = (slot + kSlots - 1) % kSlots;
  const int64_t old_vectors = peers.progress->posted_words[old_slot] / 4;
  for (int r = 0; r < peers.size; ++r) {
    if (r == peers.rank) continue;
    auto* empty = reinterpret_cast<uint4*>(box(peers.rank, old_slot, r));
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < old_vectors;
         i += int64_t{gridDim.x} * blockDim.x) {
      empty[i] = {kNothing, kNothing, kNothing, kNothing};
    }
  }

  Floats values[kParts];
  for (int r = 0; r < peers.size; ++r) {
    RawPart<D> theirs[kParts];
    if (r == peers.rank) {
#pragma unroll
      for (int p = 0; p < kParts; ++p) theirs[p] = own[p];
    } else {
      const uint32_t* from = box(peers.rank, slot, r) + row * words;
      Patience patience(peers, r, Op::kSum);
      bool all = false;
      while (!all) {
        all = true;
#pragma unroll
        for (int p = 0; p < kParts; ++p) {
          const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
          if (first >= width) continue;
          const auto* vectors =
              reinterpret_cast<const uint4*>(from + first * static_cast<int64_t>(sizeof(D)) / 4);
#pragma unroll
          for (int v = 0; v < kVectors<D>; ++v) {
            theirs[p].v[v] = load_relaxed(vectors + v);
            all = all && is_there(theirs[p].v[v]);
          }
        }
        if (!all && !patience.more()) break;
      }
    }
#pragma unroll
    for (int p = 0; p < kParts; ++p) {
      const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
      if (r == 0) values[p] = Floats{};
      if (first >= width) continue;
      const Floats added = to_floats(theirs[p]);
#pragma unroll
      for (int i = 0; i < kPart; ++i) values[p].v[i] = r == 0 ? added.v[i] : values[p].v[i] + added.v[i];
    }
  }
  after.run(values, row, y + row * after.y_stride, shared);

  when_last(peers, [&](Progress& progress) {
    progress.posted_words[slot] = static_cast<uint32_t>(gridDim.x * words);
    progress.posts = posts + 1;
  });
}

template <class D, class Y, int kParts>
__global__ void __launch_bounds__(ops::cuda::norm_threads(kParts))
    meeting_kernel(PeerView peers, Everywhere rows, After<Y> after, Everywhere y, Share share) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  __shared__ float shared[32];
  const int64_t width = after.width;
  const uint32_t meeting = peers.progress->meetings + 1;
  meet(peers, 0, meeting, Op::kSum);
  for (int64_t row = share.first + blockIdx.x; row < share.end; row += gridDim.x) {
    Floats values[kParts];
    add_in_order(values, peers.size, width,
                 [&](int r) { return static_cast<const D*>(rows.at[r]) + row * width; });
    Y* mine = static_cast<Y*>(y.at[peers.rank]) + row * after.y_stride;
    after.run(values, row, mine, shared);
    // Each thread sends on what it has just written itself.
    for (int p = 0; p < kParts; ++p) {
      const int64_t first = (p * static_cast<int64_t>(blockDim.x) + threadIdx.x) * kPart;
      if (first >= width) continue;
      const auto part = *reinterpret_cast<const ops::cuda::Part<Y>*>(mine + first);
      for (int r = 0; r < peers.size; ++r) {
        if (r == peers.rank || y.at[r] == nullptr) continue;
        *reinterpret_cast<ops::cuda::Part<Y>*>(static_cast<Y*>(y.at[r]) + row * after.y_stride + first) =
            part;
      }
    }
    __syncthreads();  // `shared` is free again
  }
  meet(peers, 1, meeting, Op::kSum);
  when_last(peers, [&](Progress& progress) { progress.meetings = meeting; });
}

}  // namespace

void sum_by_post(device::cuda::Stream& stream, const PeerView& peers, const SumArgs& args) {
  const int64_t bytes = args.rows.rows * args.rows.columns * device::size_of(args.rows.dtype);
  FATHOM_CHECK(bytes <= peers.box_words * 4, "a post of {} bytes", bytes);
  with_kernel(args, [&](auto parts, auto* d, auto* y) {
    using D = std::remove_pointer_t<decltype(d)>;
    using Y = std::remove_pointer_t<decltype(y)>;
    device::cuda::launch_early(
        stream, post_kernel<D, Y, decltype(parts)::value>, static_cast<unsigned>(args.rows.rows),
        ops::cuda::norm_block(args.rows.columns), 0, peers, static_cast<const D*>(args.rows.data),
        after_of<Y>(args), static_cast<Y*>(args.y.data));
  });
  stream.launched("sum by post");
}

void sum_by_meeting(device::cuda::Stream& stream, const PeerView& peers, const SumArgs& args,
                    const Everywhere& rows, const Everywhere& y, const Share& share) {
  const auto blocks = static_cast<unsigned>(std::min<int64_t>(share.most, most_blocks(stream.gpu())));
  with_kernel(args, [&](auto parts, auto* d, auto* y_null) {
    using D = std::remove_pointer_t<decltype(d)>;
    using Y = std::remove_pointer_t<decltype(y_null)>;
    device::cuda::launch_early(stream, meeting_kernel<D, Y, decltype(parts)::value>, blocks,
                               ops::cuda::norm_block(args.rows.columns), 0, peers, rows, after_of<Y>(args), y,
                               share);
  });
  stream.launched("sum by meeting");
}

}  // namespace fathom::dist::cuda
