// A group of GPUs of several processes, which send each other rows by NCCL. See gpu_group.h.
//
// Sums do not use NCCL's own, whose order of additions depends on the size of the message: rows are sent to
// whoever adds them, and added there in the order of ranks.
//
// NCCL waits for ever. Where a node dies, or another group of the world ends, a thread that watches the
// host's group ends NCCL's work as well; who waits for a GPU that hangs must keep the time
// (GpuGroup::spans_processes).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "dist/cuda/gpu_group.h"

namespace fathom::dist::cuda {

// The handles of this process's ranks of a world of several processes, in their order. `hosts`: the same
// ranks on the host, on GPUs `options.gpus`; all processes call it at the same time. A rank's number is its
// host's plus `shift`, modulo the size.
Result<std::vector<std::unique_ptr<GpuGroup>>> create_over_nodes(const GpuGroupOptions& options,
                                                                 std::vector<std::unique_ptr<Group>> hosts,
                                                                 int shift);

}  // namespace fathom::dist::cuda
