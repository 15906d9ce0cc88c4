// What the tests of groups of GPUs share, whether their ranks are threads of one process
// (gpu_group_cuda_test.cc) or nodes (gpu_group_nodes_cuda_test.cc). Included by tests only.
#pragma once

#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <memory>
#include <vector>

#include "device/cuda/stream.h"
#include "dist/cuda/gpu_group.h"

namespace fathom::dist::cuda {

#define FATHOM_GPUS_OR_SKIP() \
  if (device::cuda::gpu_count() < 2) GTEST_SKIP() << "fewer than two GPUs"

using device::cuda::Stream;
using Groups = std::vector<std::unique_ptr<GpuGroup>>;

inline constexpr std::chrono::milliseconds kPatient{20'000};

// fn(group, stream) on a thread for each group, which is a rank's.
void run_groups(Groups groups, const std::function<void(GpuGroup&, Stream&)>& fn);

// Each is called on every rank of the group at once; what they find wrong fails the test.

// Random rows, taken by either way, as they are or with residual and norm: the bits of one GPU.
void check_sum(GpuGroup& group, Stream& stream, uint64_t seed);
// Experts' answers that the sum is to add up first: the bits of expert_combine() and a sum.
void check_answers(GpuGroup& group, Stream& stream);
// Each rank has rows of its own among all, perhaps none.
void check_own_rows(GpuGroup& group, Stream& stream);
// Lanes that have the same rows, and each a share of their residual: a sum by shares, and one of own rows.
void check_lanes(GpuGroup& world, GpuGroup& lanes, Stream& stream);
// Parts of any size, of rows and of columns.
void check_gathers(GpuGroup& group, Stream& stream);
// Pieces of any number and size between any two ranks.
void check_exchanges(GpuGroup& group, Stream& stream);
// Two ranks: graphs of sums by both ways, replayed in a random order without the host looking on.
void check_replays(GpuGroup& group, Stream& stream);
// Ranks that share a GPU: a sum of many rows waits while the last rank still has whole multiprocessors to
// use.
void check_room(GpuGroup& group, Stream& stream);

}  // namespace fathom::dist::cuda
