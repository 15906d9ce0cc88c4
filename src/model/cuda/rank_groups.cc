#include "model/cuda/rank_groups.h"

#include <algorithm>

#include "base/math.h"

namespace fathom::model::cuda {

using dist::cuda::GpuGroup;
using dist::cuda::SumArgs;
using ops::cuda::Matrix;

Result<RankGroups> RankGroups::join(GpuGroup* world, const Shard& shard) {
  RankGroups groups;
  if (world == nullptr) return groups;
  const Split& split = shard.split;
  const Place& place = shard.place;
  const int lanes = split.attention_ranks();
  FATHOM_CHECK(world->size() == split.world(), "{} ranks for a split over {}", world->size(), split.world());
  groups.shard_ = &shard;
  // Every rank splits in the same order. Only the sums of a group of requests are small enough for posts.
  GpuGroup* stage = world;
  if (split.pp > 1 && split.tp > 1) {
    FATHOM_ASSIGN(auto made, world->split(place.stage, fmt::format("stage {}", place.stage), split.dp == 1));
    stage = groups.owned_.emplace_back(std::move(made)).get();
  }
  if (split.tp > 1) groups.stage_ = stage;
  if (split.dp == 1) {
    groups.requests_ = groups.stage_;
  } else if (lanes > 1) {
    FATHOM_ASSIGN(auto made, stage->split(place.group, fmt::format("requests {}", place.group), true));
    groups.requests_ = groups.owned_.emplace_back(std::move(made)).get();
  }
  if (split.pp == 1) return groups;
  FATHOM_ASSIGN(groups.pipeline_, world->split(shard.rank % split.tp, "pipeline", false));
  for (int first = 0; first + 1 < split.pp; ++first) {
    const bool member = place.stage == first || place.stage == first + 1;
    // The others take part in the split alone.
    FATHOM_ASSIGN(auto hop, world->split(member ? place.group : split.dp,
                                         fmt::format("stages {} and {}", first, first + 1), false));
    if (!member) continue;
    (place.stage == first ? groups.after_ : groups.before_) = std::move(hop);
  }
  return groups;
}

Result<void> RankGroups::share(const Matrix& rows) {
  const int64_t bytes = rows.rows * rows.stride * device::size_of(rows.dtype);
  std::vector<GpuGroup*> all{stage_, requests_ != stage_ ? requests_ : nullptr, pipeline_.get()};
  // A rank in the middle meets the stage before it first, as that one does with its own.
  for (GpuGroup* hop : {before_.get(), after_.get()}) all.push_back(hop);
  for (GpuGroup* group : all) {
    if (group != nullptr) FATHOM_TRY(group->share(rows.data, bytes));
  }
  return {};
}

void RankGroups::sum(device::cuda::Stream& stream, const SumArgs& args) const {
  requests_->sum(stream, alike(args));
}

// A group of requests may lie in one process, and another in several: all go by what the stage has measured,
// for each sends the others as many rows as its own way takes.
SumArgs RankGroups::alike(const SumArgs& args) const {
  SumArgs sum = args;
  if (splits_tokens() && sum.way == dist::cuda::Way::kAuto)
    sum.way = stage_->way_of(args, shard_->split.attention_ranks());
  return sum;
}

void RankGroups::gather_columns(device::cuda::Stream& stream, const Matrix& mine, int64_t most) const {
  requests_->gather(stream, mine, most);
}

namespace {

// Part `index` of `parts`, as sums cut rows of which a group has `places` at most (dist::cuda::SumArgs::cut);
// perhaps none.
Matrix part_of(const Matrix& rows, int64_t places, int index, int parts) {
  const int64_t each = ceil_div<int64_t>(places, parts);
  const int64_t first = each * index;
  return first < rows.rows ? rows.row_range(first, std::min(rows.rows, first + each)) : rows.first_rows(0);
}

}  // namespace

void RankGroups::gather_tokens(device::cuda::Stream& stream, const Matrix& mine, int64_t places) const {
  // All ranks of the group have its rows: each sends a part of them.
  const int lanes = shard_->split.attention_ranks();
  stage_->gather(stream, part_of(mine, mine.rows, shard_->place.lane, lanes),
                 ceil_div<int64_t>(places, lanes) * mine.columns);
}

void RankGroups::sum_own_tokens(device::cuda::Stream& stream, const SumArgs& args) const {
  // Where the residual is here of a share alone, the others' norms come from them.
  const bool shares = splits_heads() && requests_->share_of(alike(args)).has_value();
  stage_->sum_own(stream, args,
                  {.most = args.cut, .lanes = shard_->split.attention_ranks(), .shared_out = shares});
}

void RankGroups::hand_on(device::cuda::Stream& stream, const Matrix& residual, int64_t places) const {
  if (residual.rows == 0) return;  // so it is there
  const int lanes = shard_->split.attention_ranks();
  after_->gather(stream, part_of(residual, places, shard_->place.lane, lanes),
                 ceil_div<int64_t>(places, lanes) * residual.columns, {0, lanes});
}

void RankGroups::take_over(device::cuda::Stream& stream, const Matrix& residual, int64_t places) const {
  if (residual.rows == 0) return;
  const int lanes = shard_->split.attention_ranks();
  before_->gather(stream, residual.first_rows(0), ceil_div<int64_t>(places, lanes) * residual.columns,
                  {0, lanes});
}

void RankGroups::hand_back(device::cuda::Stream& stream, const Matrix& rows) const {
  const bool mine = shard_->last_stage();
  const int stages = shard_->split.pp;
  pipeline_->gather(stream, mine ? rows : rows.first_rows(0), rows.rows * rows.columns, {stages - 1, stages});
}

}  // namespace fathom::model::cuda
