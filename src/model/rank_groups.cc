#include "model/rank_groups.h"

namespace fathom::model {

using device::Tensor;

Result<RankGroups> RankGroups::join(dist::Group* world, const Shard& shard) {
  RankGroups groups;
  const Split& split = shard.split;
  groups.split_ = split;
  if (split.world() == 1) return groups;
  FATHOM_CHECK(world != nullptr && world->size() == split.world(), "{} ranks for a split over {}",
               world != nullptr ? world->size() : 1, split.world());
  groups.world_ = world;
  const Place& place = shard.place;
  const int lanes = split.attention_ranks();
  // Every rank splits in the same order; colours are places in the axes that a group does not run along.
  if (split.pp > 1) {
    if (split.tp > 1) {
      FATHOM_ASSIGN(groups.stage_, world->split(place.stage, fmt::format("stage {}", place.stage)));
    }
    FATHOM_ASSIGN(groups.pipeline_, world->split(shard.rank % split.tp, "pipeline"));
  }
  if (split.dp > 1) {
    if (lanes > 1) {
      FATHOM_ASSIGN(groups.requests_, world->split(place.stage * split.dp + place.group,
                                                   fmt::format("requests {}", place.group)));
    }
    FATHOM_ASSIGN(groups.across_, world->split(place.stage * lanes + place.lane, "across requests"));
  }
  if (split.ep > 1) {
    const int ranks = split.expert_ranks();
    FATHOM_ASSIGN(groups.sets_, world->split(place.stage * ranks + shard.rank % split.tp % ranks, "experts"));
  }
  return groups;
}

void RankGroups::sum(const Tensor& rows) const {
  if (split_.attention_ranks() > 1) (void)requests()->all_reduce(rows.data, rows.numel(), rows.dtype);
}

void RankGroups::sum_stage(const Tensor& rows) const {
  if (split_.tp > 1) (void)stage()->all_reduce(rows.data, rows.numel(), rows.dtype);
}

void RankGroups::gather_tokens(const Tensor& mine, std::span<const int64_t> tokens, const Tensor& all) {
  sizes_.clear();
  const int64_t row_bytes = all.dim(1) * static_cast<int64_t>(sizeof(float));
  for (const int64_t count : tokens) sizes_.push_back(count * row_bytes);
  (void)across_->all_gather(mine.data, sizes_, all.data);
}

void RankGroups::sum_own_tokens(const Tensor& all, std::span<const int64_t> tokens, const Tensor& mine) {
  sizes_.clear();
  for (const int64_t count : tokens) sizes_.push_back(count * all.dim(1));
  (void)across_->reduce_scatter(all.data, sizes_, all.dtype, mine.data);
  if (mine.dim(0) > 0) sum(mine);
}

bool RankGroups::gather_columns(const Tensor& mine, std::span<const Range> columns, float* parts) {
  sizes_.clear();
  for (const Range& part : columns)
    sizes_.push_back(mine.dim(0) * part.count * static_cast<int64_t>(sizeof(float)));
  return requests()->all_gather(mine.data, sizes_, parts).ok();
}

bool RankGroups::exchange(std::span<const dist::Outgoing> send,
                          std::span<const dist::Incoming> receive) const {
  return sets_->all_to_all(send, receive).ok();
}

void RankGroups::hand_on(const Tensor& rows, int from) const {
  if (pipeline_ == nullptr || rows.dim(0) == 0) return;
  (void)pipeline_->broadcast(rows.data, rows.numel() * device::size_of(rows.dtype), from);
}

}  // namespace fathom::model
