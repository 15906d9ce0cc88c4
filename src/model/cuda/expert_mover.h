// Moves routed experts between the GPUs of a stage, wherever these are: each rank gets the weights that its
// slots are to have from the ranks that have them. The counterpart of model/expert_mover.h.
#pragma once

#include <vector>

#include "device/cuda/memory.h"
#include "device/cuda/stream.h"
#include "dist/cuda/gpu_group.h"
#include "model/cuda/weights.h"
#include "model/rebalancer.h"
#include "model/shard.h"

namespace fathom::model::cuda {

class ExpertMover {
 public:
  // Of one rank of a stage, whose group is `stage`; all its ranks must do the same with the same layers at
  // the same time, with no pass queued that the others have not queued too.
  // `staging`: memory of this GPU that it may use meanwhile, as large on all ranks.
  ExpertMover(dist::cuda::GpuGroup& stage, const Shard& shard, device::cuda::Stream& stream,
              const device::cuda::DeviceBuffer& staging)
      : stage_(stage), shard_(shard), stream_(stream), staging_(staging), rebalancer_(shard.place.set) {}

  static constexpr int64_t kStagingBytes = int64_t{64} << 20;

  // Nothing where a new placement would hardly be better. Waits for the stream, and so for all ranks.
  Result<void> balance(MoeWeights& moe);
  ExpertBalance result() const { return rebalancer_.result(); }

 private:
  // An array with a part for each slot.
  struct Parts {
    std::byte* data = nullptr;
    int64_t bytes = 0;  // of a part
  };
  Result<void> move(const Parts& mine, const std::vector<std::vector<ExpertChange>>& changes);

  dist::cuda::GpuGroup& stage_;
  const Shard& shard_;
  device::cuda::Stream& stream_;
  const device::cuda::DeviceBuffer& staging_;
  Rebalancer rebalancer_;
};

}  // namespace fathom::model::cuda
