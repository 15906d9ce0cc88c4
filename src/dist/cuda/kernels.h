// The kernels' launchers. Used by gpu_group.cc alone.
#pragma once

#include "dist/cuda/gpu_group.h"
#include "dist/cuda/peers.h"

namespace fathom::dist::cuda {

// The same place on every rank; null: not there.
struct Everywhere {
  void* at[kMostRanks] = {};
};

// With args.answers: where it adds_answers(), they are added up by the same kernel, else they are in `rows`.
void sum_by_post(device::cuda::Stream& stream, const PeerView& peers, const SumArgs& args);
bool adds_answers(const SumArgs& args);
// The rank adds rows [first, end), and sends their y wherever y is.
struct Share {
  int64_t first = 0, end = 0, most = 0;  // most rows of any rank's share
};
void sum_by_meeting(device::cuda::Stream& stream, const PeerView& peers, const SumArgs& args,
                    const Everywhere& rows, const Everywhere& y, const Share& share);
void gather_parts(device::cuda::Stream& stream, const PeerView& peers, const ops::cuda::Matrix& part,
                  const Everywhere& to, int64_t most);

}  // namespace fathom::dist::cuda
