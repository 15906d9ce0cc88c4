// A group of GPUs that compute a model together: a rank is a GPU, with a thread of the host that queues its
// work. What a rank queues here waits on the GPU, not on the host, for the others' part; it can be captured
// in a graph and replayed in any order, as long as all ranks queue the same ops with the same sizes in the
// same order. Who carries the bytes:
//
// GPUs of one process read and write each other's memory (NVLink, or PCIe; peer_group.h). Those of several,
// on as many machines, send them by NCCL (nccl_group.h); the parts of such a group that lie in one process do
// as the former.
//
// Sums are added in float32 in the order of ranks: all ranks have the same bits, every time, whichever way a
// sum takes.
//
// A rank that does not come to an op within the timeout, or abort(), ends the group for good: kernels that
// wait give up, what they leave is worth nothing, and state() of every rank says why.
//
// A handle belongs to one rank and its thread; state() and abort() may be called by any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/result.h"
#include "device/cuda/stream.h"
#include "dist/group.h"
#include "ops/cuda_batch.h"
#include "ops/moe/cuda.h"

namespace fathom::dist::cuda {

enum class Op { kSum, kGather };

struct GpuGroupOptions {
  // Of this process's ranks, in their order; at most 8. One GPU may have several ranks where their kernels
  // fit on it together, as those of small models in tests do.
  std::vector<int> gpus;
  bool posts = true;  // sums by Way::kPost, which take memory; without them all go by Way::kMeet
  std::chrono::milliseconds timeout{kDefaultTimeout};
};

// How a sum travels; all ranks choose alike.
enum class Way {
  kAuto,  // as way_of() says
  kPost,  // every rank sends its rows to all others, who add them: one trip, for few rows
  kMeet,  // a rank adds its share of the rows for all and sends them what becomes of it: fewer bytes
};

// values = the sum over the ranks of `rows` [T, W]; with a residual stream, `residual` += values, or = values
// where it is `fresh`, and that goes on as values; with `weight`, y = RMSNorm(values), else y = values.
// The bits are those of ops::cuda::add_rms_norm.
//
// By Way::kMeet a rank keeps only its own share of the residual rows: all sums into one stream must have the
// same T, and `cut`. `rows` and `y` must then be in shared memory.
struct SumArgs {
  ops::cuda::Matrix rows;  // F32 or BF16, not strided; W a multiple of 8, at most 32768
  // What expert_combine() is still to leave in `rows`, its y: done before, or in the same launch, and then
  // `rows` stay as they are and a row of padding is as if all zeros.
  std::optional<ops::cuda::ExpertCombineArgs> answers{};
  float* residual = nullptr;  // [T, W], or null
  bool fresh = false;
  const float* weight = nullptr;  // [W], or null
  float eps = 1e-6F;
  ops::cuda::Matrix y;                      // [T, W], perhaps strided; may be `rows`
  ops::cuda::QuantizedMatrix rounded = {};  // [T, W] with `weight`: what y holds in FP8 too; or empty
  Way way = Way::kAuto;
  // The way is chosen, and shares are cut, as of so many rows, T or more; 0: T.
  int64_t cut = 0;
};

struct RowRange {
  int64_t first = 0, end = 0;
};

// Of sum_own(): neighbouring ranks, `lanes` each, have the same rows, at most `most`; those of the g-th ones
// begin at row g * most of a shared matrix. The same on all ranks.
struct OwnRows {
  int64_t most = 0;
  int lanes = 1;
  // Each lane adds its share of them alone, cut of `most` rows, and y goes to the others: it must then be in
  // shared memory, and not strided.
  bool shared_out = false;
};

// What a rank sends to another, or gets from it.
struct Piece {
  int rank = 0;
  void* data = nullptr;
  int64_t bytes = 0;
};

// Ranks of a group, one after another.
struct RankRange {
  int first = 0, end = 0;
};

class GpuGroup {
 public:
  // The handles of all ranks, in their order. kUnsupported where two of the GPUs cannot reach each other.
  static Result<std::vector<std::unique_ptr<GpuGroup>>> create(const GpuGroupOptions& options);
  virtual ~GpuGroup() = default;
  GpuGroup(const GpuGroup&) = delete;
  GpuGroup& operator=(const GpuGroup&) = delete;

  virtual int rank() const = 0;
  virtual int size() const = 0;
  virtual int gpu() const = 0;
  // The same ranks on the host, perhaps in another order: for what they agree on before they queue work.
  virtual Group& host() = 0;
  // Whether the work waits for GPUs of other processes, for as long as it takes: the host has to keep the
  // time then.
  virtual bool spans_processes() const = 0;

  // Those who give the same colour become a group, in the order of their ranks; every rank must call it. What
  // ends one group of a world ends all of them, and errors name ranks by their number in the first one.
  virtual Result<std::unique_ptr<GpuGroup>> split(int colour, const std::string& name, bool posts) = 0;

  // Meets all ranks: each gives memory of its own GPU, of the same size and use, that the ops below may write
  // on behalf of others from now on. It must outlive the group's work.
  virtual Result<void> share(void* data, int64_t bytes) = 0;

  virtual void sum(device::cuda::Stream& stream, const SumArgs& args) = 0;
  // Of kPost and kMeet the one that takes less time in a group of `size` of these ranks, wherever they lie:
  // the same on all ranks of this group.
  virtual Way way_of(const SumArgs& args, int size) const = 0;
  // The rows whose residual this rank has after sum(); nothing: every rank has all of them.
  virtual std::optional<RowRange> share_of(const SumArgs& args) const = 0;
  // The sum of this rank's own rows alone: `args.rows` is those rows [T, W] of a shared matrix that all ranks
  // have written; y and the residual [T, W] are the rank's. T may differ between lanes' neighbours and
  // others, and be 0.
  virtual void sum_own(device::cuda::Stream& stream, const SumArgs& args, const OwnRows& own) = 0;
  // `part` of shared memory goes to the same place on every rank; no other rank may write there. `most`:
  // values of the largest part of any rank. Ranks but `senders` have an empty part.
  virtual void gather(device::cuda::Stream& stream, const ops::cuda::Matrix& part, int64_t most,
                      RankRange senders) = 0;
  void gather(device::cuda::Stream& stream, const ops::cuda::Matrix& part, int64_t most) {
    gather(stream, part, most, {0, size()});
  }

  // Pieces `out` go to other ranks, and `in` come from them: those of each two ranks in the same order on
  // both. Any memory of the GPU; what was queued before is done first. Not in a graph. Of a group of one
  // process it waits for all ranks.
  virtual Result<void> exchange(device::cuda::Stream& stream, std::span<const Piece> out,
                                std::span<const Piece> in) = 0;

  // The error that ended the group, or nothing. Looks at what the kernels wrote: once a stream has come to
  // its end, what it ran is accounted for.
  virtual Result<void> state() const = 0;
  virtual void abort(Error error) = 0;

  // For sums of up to so many bytes a message goes by post.
  static constexpr int64_t kMostPostBytes = int64_t{8} << 20;

 protected:
  GpuGroup() = default;
};

}  // namespace fathom::dist::cuda
