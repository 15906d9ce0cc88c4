// Where the ranks of a model meet in a pass, by what they do there. Of a whole model every call is nothing.
//
// Not thread safe: the rank's thread alone. A failure is the world's (state()): what passes give since then
// is worth nothing.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "device/tensor.h"
#include "dist/group.h"
#include "model/shard.h"

namespace fathom::model {

class RankGroups {
 public:
  // `world`: all ranks of the split, or null where there is one. Every rank must join at the same time.
  static Result<RankGroups> join(dist::Group* world, const Shard& shard);

  Result<void> state() const { return world_ != nullptr ? world_->state() : Result<void>(); }
  bool failed() const { return world_ != nullptr && !world_->state().ok(); }

  // Rows [t, H] of f32 become their sums over the ranks of this group of requests.
  void sum(const device::Tensor& rows) const;
  // The same over all ranks of the stage.
  void sum_stage(const device::Tensor& rows) const;
  // [t, H] of this group's tokens to [Ta, H] of all groups', in their order, `tokens` of each.
  void gather_tokens(const device::Tensor& mine, std::span<const int64_t> tokens, const device::Tensor& all);
  // The way back: this group's rows of the sum of all ranks' [Ta, H].
  void sum_own_tokens(const device::Tensor& all, std::span<const int64_t> tokens, const device::Tensor& mine);
  // mine [R, columns of this rank] -> parts: one after another, [R, columns] of every rank of the group.
  bool gather_columns(const device::Tensor& mine, std::span<const Range> columns, float* parts);
  // send[s] goes to set s of experts, receive[s] comes from it: between the ranks that have the same part of
  // an expert.
  bool exchange(std::span<const dist::Outgoing> send, std::span<const dist::Incoming> receive) const;
  // Rows of stage `from` to all stages.
  void hand_on(const device::Tensor& rows, int from) const;

 private:
  dist::Group* world_ = nullptr;
  // Each none where it would be of one rank, or is the world itself.
  std::unique_ptr<dist::Group> stage_, requests_, across_, sets_, pipeline_;
  // The ones above, or the world.
  dist::Group* stage() const { return stage_ != nullptr ? stage_.get() : split_.pp == 1 ? world_ : nullptr; }
  dist::Group* requests() const {
    return requests_ != nullptr ? requests_.get() : split_.dp == 1 ? stage() : nullptr;
  }
  Split split_;
  std::vector<int64_t> sizes_;  // of the collective in progress
};

}  // namespace fathom::model
