// A sum by post: how rows travel, and the kernel, for rows of blocks and of clusters.
#pragma once

#include "device/cuda/launch_kernel.h"
#include "dist/cuda/kernels.h"
#include "dist/cuda/peers.cuh"
#include "dist/cuda/sum_row.cuh"
#include "ops/moe/expert_rows.cuh"

namespace fathom::dist::cuda {

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

// This rank's rows, as they are sent.
template <class D>
struct OwnRowsAsTheyAre {
  using Sent = D;
  const D* rows;
  int64_t width;

  __device__ RawPart<D> part(int64_t row, int64_t first) const {
    return *reinterpret_cast<const RawPart<D>*>(rows + row * width + first);
  }
};
// The same where its experts' answers are still to be added up.
template <int kTopK>
struct OwnAnswers {
  using Sent = float;
  ops::cuda::ExpertRows<ops::cuda::bf16, ops::cuda::bf16> experts;
  int64_t width;

  __device__ RawPart<float> part(int64_t row, int64_t first) const {
    Floats sum{};
    if (!experts.is_padding(row)) sum = experts.template sum<kTopK, true>(row, first, width);
    RawPart<float> raw;
    memcpy(&raw, &sum, sizeof(raw));
    return raw;
  }
};

// A row of `width` columns; of none, nothing is read, sent or written.
template <class Rows, class Y, class Row>
__device__ void post_row(const PeerView& peers, const Rows& rows, const After<Y>& after, Row& threads,
                         const ops::cuda::NormWeights<true, Row>& weights, int64_t width, Y* y) {
  using D = typename Rows::Sent;
  constexpr int kHeld = Row::kHeld;
  const int64_t row = threads.index();
  const int64_t words = width * static_cast<int64_t>(sizeof(D)) / 4;  // of a row
  const uint32_t posts = width > 0 ? peers.progress->posts : 0;
  const uint32_t slot = posts % kSlots;
  const auto box = [&](int rank, uint32_t in_slot, int from) {
    return peers.inbox[rank] + (static_cast<int64_t>(in_slot) * peers.size + from) * peers.box_words;
  };

  RawPart<D> own[kHeld];
#pragma unroll
  for (int p = 0; p < kHeld; ++p) {
    const int64_t first = threads.first(p);
    if (first >= width) continue;
    own[p] = rows.part(row, first);
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
    for (int p = 0; p < kHeld; ++p) {
      const int64_t first = threads.first(p);
      if (first >= width) continue;
      auto* vectors = reinterpret_cast<uint4*>(to + first * static_cast<int64_t>(sizeof(D)) / 4);
#pragma unroll
      for (int v = 0; v < kVectors<D>; ++v) store_relaxed(vectors + v, own[p].v[v]);
    }
  }

  const uint32_t old_slot = (slot + kSlots - 1) % kSlots;
  const int64_t old_vectors = width > 0 ? peers.progress->posted_words[old_slot] / 4 : 0;
  for (int r = 0; r < peers.size; ++r) {
    if (r == peers.rank) continue;
    auto* empty = reinterpret_cast<uint4*>(box(peers.rank, old_slot, r));
    for (int64_t i = blockIdx.x * int64_t{blockDim.x} + threadIdx.x; i < old_vectors;
         i += int64_t{gridDim.x} * blockDim.x) {
      empty[i] = {kNothing, kNothing, kNothing, kNothing};
    }
  }

  Floats values[kHeld];
  for (int r = 0; r < peers.size; ++r) {
    RawPart<D> theirs[kHeld];
    if (r == peers.rank) {
#pragma unroll
      for (int p = 0; p < kHeld; ++p) theirs[p] = own[p];
    } else {
      const uint32_t* from = box(peers.rank, slot, r) + row * words;
      Patience patience(peers, r, Op::kSum);
      bool all = false;
      while (!all) {
        all = true;
#pragma unroll
        for (int p = 0; p < kHeld; ++p) {
          const int64_t first = threads.first(p);
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
    for (int p = 0; p < kHeld; ++p) {
      const int64_t first = threads.first(p);
      if (r == 0) values[p] = Floats{};
      if (first >= width) continue;
      const Floats added = to_floats(theirs[p]);
#pragma unroll
      for (int i = 0; i < kPart; ++i) values[p].v[i] = r == 0 ? added.v[i] : values[p].v[i] + added.v[i];
    }
  }
  after.run(threads, weights, values, row, width, y + row * after.y_stride);
  if (width == 0) return;

  when_last(peers, [&](Progress& progress) {
    progress.posted_words[slot] = static_cast<uint32_t>(after.rows * words);
    progress.posts = posts + 1;
  });
}

// A block a row, or a cluster. Words of an inbox that are read are emptied one sum later: whoever writes the
// slot next has seen this rank's post of that later sum.
template <class Rows, class Y, int kParts, class Row>
__global__ void __launch_bounds__(ops::cuda::norm_threads(kParts))
    post_kernel(PeerView peers, Rows rows, After<Y> after, Y* y) {
  device::cuda::let_next_start();
  __shared__ typename Row::Shared shared;
  Row threads{shared};
  const auto weights = after.weights_of(threads);
#pragma unroll 1
  for (int pass = threads.rehearses() ? 0 : 1; pass < 2; ++pass) {
    if (pass > 0) device::cuda::wait_for_previous();
    post_row(peers, rows, after, threads, weights, pass == 0 ? 0 : after.width, y);
  }
}

// `cluster` CTAs a row.
template <class Y, int kParts, class Row, class Rows>
void launch_post(device::cuda::Stream& stream, const PeerView& peers, const SumArgs& args, const Rows& rows,
                 unsigned cluster, unsigned threads) {
  device::cuda::launch_early_clusters(stream, post_kernel<Rows, Y, kParts, Row>, cluster,
                                      static_cast<unsigned>(args.rows.rows) * cluster, threads, 0, peers,
                                      rows, after_of<Y>(args), static_cast<Y*>(args.y.data));
}

// Few rows, on Hopper. False, and nothing is done, for others.
bool sum_by_post_clusters(device::cuda::Stream& stream, const PeerView& peers, const SumArgs& args);

}  // namespace fathom::dist::cuda
