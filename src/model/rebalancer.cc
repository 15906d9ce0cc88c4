#include "model/rebalancer.h"

#include <algorithm>

namespace fathom::model {

std::vector<ExpertChange> changes_of(const ExpertPlacement& before, const ExpertPlacement& after,
                                     size_t set) {
  std::vector<ExpertChange> found;
  for (size_t slot = 0; slot < after.sets[set].size(); ++slot) {
    const int32_t expert = after.sets[set][slot];
    if (expert == before.sets[set][slot]) continue;
    for (size_t i = 0; i <= before.sets.size(); ++i) {
      const size_t from = i == 0 ? set : i - 1;
      const auto& slots = before.sets[from];
      const auto at = std::find(slots.begin(), slots.end(), expert);
      if (at == slots.end()) continue;
      found.push_back({slot, from, static_cast<size_t>(at - slots.begin())});
      break;
    }
  }
  return found;
}

std::optional<ExpertPlacement> Rebalancer::next(const ExpertPlacement& placement, std::span<int64_t> load) {
  ExpertPlacement after = balance(placement, load);
  const double was = imbalance(placement, load);
  const double would_be = imbalance(after, load);
  const bool worthwhile = was - would_be >= kWorthwhileBalance;
  sum_.before += was;
  sum_.after += worthwhile ? would_be : was;
  ++layers_;
  for (int64_t& tokens : load) tokens /= 2;
  if (!worthwhile) return std::nullopt;
  for (const ExpertChange& change : changes_of(placement, after, set_))
    sum_.moved += change.set != set_ ? 1 : 0;
  return after;
}

ExpertBalance Rebalancer::result() const {
  if (layers_ == 0) return {};
  return {sum_.before / layers_, sum_.after / layers_, sum_.moved};
}

}  // namespace fathom::model
