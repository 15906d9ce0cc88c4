// Where the ranks of a model on GPUs meet in a pass, by what they do there: the counterpart of
// model/rank_groups.h. All calls but join() and share() only queue work.
//
// A group of requests of several ranks keeps the rows of its residual stream on all of them, or each rank a
// share of them (dist::cuda::GpuGroup::share_of), as the number of rows says, or where there are several
// groups that of the one with most; either way all have all of a norm.
//
// Not thread safe: the rank's thread alone.
#pragma once

#include <memory>
#include <vector>

#include "base/result.h"
#include "dist/cuda/gpu_group.h"
#include "model/shard.h"
#include "ops/cuda_batch.h"

namespace fathom::model::cuda {

class RankGroups {
 public:
  // `world`: all ranks of the split, or null where there is one. Every rank must join at the same time.
  static Result<RankGroups> join(dist::cuda::GpuGroup* world, const Shard& shard);

  // Attention, dense MLPs, embedding and head are split over several ranks.
  bool splits_heads() const { return requests_ != nullptr; }
  bool splits_tokens() const { return shard_ != nullptr && shard_->split.dp > 1; }
  bool splits_layers() const { return shard_ != nullptr && shard_->split.pp > 1; }

  // All ranks of the stage, where they are several.
  dist::cuda::GpuGroup& stage() const { return *stage_; }

  // Memory that the calls below reach on other ranks, of the same size and use on all of them.
  Result<void> share(const ops::cuda::Matrix& rows);

  // The ranks' rows of this group of requests, added, into the residual stream; see GpuGroup::sum.
  void sum(device::cuda::Stream& stream, const dist::cuda::SumArgs& args) const;
  // Of a matrix [T, V] of this group: the columns of each rank to all others of it.
  void gather_columns(device::cuda::Stream& stream, const ops::cuda::Matrix& mine, int64_t most) const;
  // This group's rows of a matrix of all groups', to all ranks of the stage; at most `places` of a group.
  void gather_tokens(device::cuda::Stream& stream, const ops::cuda::Matrix& mine, int64_t places) const;
  // The way back: `args.rows` is this group's rows of a matrix that all ranks of the stage have filled, and
  // `args.cut` the most of a group.
  void sum_own_tokens(device::cuda::Stream& stream, const dist::cuda::SumArgs& args) const;

  // The residual stream [T, H] of this group, as sums leave it whose `cut` was `places`, to the next stage.
  void hand_on(device::cuda::Stream& stream, const ops::cuda::Matrix& residual, int64_t places) const;
  // There: all of it.
  void take_over(device::cuda::Stream& stream, const ops::cuda::Matrix& residual, int64_t places) const;
  // What the last stage has, to all stages.
  void hand_back(device::cuda::Stream& stream, const ops::cuda::Matrix& rows) const;

 private:
  using Group = dist::cuda::GpuGroup;
  // The same, and how it is to travel where groups of requests must choose alike.
  dist::cuda::SumArgs alike(const dist::cuda::SumArgs& args) const;

  const Shard* shard_ = nullptr;
  Group* stage_ = nullptr;     // all ranks of the stage; none where that is one
  Group* requests_ = nullptr;  // of the group of requests; likewise
  // Those of them that are not the world itself.
  std::vector<std::unique_ptr<Group>> owned_;
  std::unique_ptr<Group> pipeline_;  // the same place in every stage
  // This stage and the one before, or after: of the group of requests.
  std::unique_ptr<Group> before_, after_;
};

}  // namespace fathom::model::cuda
