#include "model/expert_placement.h"

#include <algorithm>
#include <numeric>

#include "base/check.h"
#include "model/shard.h"

namespace fathom::model {
namespace {

std::vector<int32_t> copies_of(const ExpertPlacement& placement, size_t experts) {
  std::vector<int32_t> copies(experts, 0);
  for (const auto& set : placement.sets) {
    for (const int32_t expert : set) ++copies[static_cast<size_t>(expert)];
  }
  return copies;
}

bool has(const std::vector<int32_t>& set, int32_t expert) {
  return std::find(set.begin(), set.end(), expert) != set.end();
}

// The set's experts with those that it had before in their old slots.
std::vector<int32_t> keep_slots(const std::vector<int32_t>& before, std::vector<int32_t> now) {
  std::vector<int32_t> kept(before.size(), -1);
  for (size_t slot = 0; slot < before.size(); ++slot) {
    const auto found = std::find(now.begin(), now.end(), before[slot]);
    if (found == now.end()) continue;
    kept[slot] = before[slot];
    now.erase(found);
  }
  for (int32_t& slot : kept) {
    if (slot >= 0) continue;
    slot = now.front();
    now.erase(now.begin());
  }
  return kept;
}

}  // namespace

ExpertPlacement first_placement(int64_t experts, int64_t redundant, int sets) {
  ExpertPlacement placement;
  for (int set = 0; set < sets; ++set) {
    const Range range = split_range(experts + redundant, 1, set, sets);
    std::vector<int32_t> mine(static_cast<size_t>(range.count));
    std::iota(mine.begin(), mine.end(), static_cast<int32_t>(range.first));
    for (int32_t& expert : mine) expert %= static_cast<int32_t>(std::max<int64_t>(experts, 1));
    placement.sets.push_back(std::move(mine));
  }
  return placement;
}

ExpertPlacement balance(const ExpertPlacement& before, std::span<const int64_t> load) {
  const size_t experts = load.size();
  size_t places = 0;
  for (const auto& set : before.sets) places += set.size();
  FATHOM_CHECK(places >= experts, "{} places for {} experts", places, experts);
  const auto most = static_cast<int32_t>(before.sets.size());  // a set needs no second copy
  std::vector<int32_t> copies(experts, 1);
  const auto share = [&](size_t e) { return static_cast<double>(load[e]) / copies[e]; };
  for (size_t extra = experts; extra < places; ++extra) {
    size_t busiest = experts;
    for (size_t e = 0; e < experts; ++e) {
      if (copies[e] < most && (busiest == experts || share(e) > share(busiest))) busiest = e;
    }
    ++copies[busiest == experts ? extra % experts : busiest];
  }
  std::vector<int32_t> items;
  for (size_t e = 0; e < experts; ++e)
    items.insert(items.end(), static_cast<size_t>(copies[e]), static_cast<int32_t>(e));
  std::stable_sort(items.begin(), items.end(), [&](int32_t a, int32_t b) {
    return share(static_cast<size_t>(a)) > share(static_cast<size_t>(b));
  });
  ExpertPlacement after;
  after.sets.resize(before.sets.size());
  std::vector<double> busy(before.sets.size(), 0.0);
  for (const int32_t expert : items) {
    size_t best = before.sets.size();
    const auto better = [&](size_t set) {
      if (best == before.sets.size()) return true;
      const bool twice = has(after.sets[set], expert);
      const bool best_twice = has(after.sets[best], expert);
      return twice != best_twice ? best_twice : busy[set] < busy[best];
    };
    for (size_t set = 0; set < before.sets.size(); ++set) {
      if (after.sets[set].size() < before.sets[set].size() && better(set)) best = set;
    }
    after.sets[best].push_back(expert);
    busy[best] += share(static_cast<size_t>(expert));
  }
  for (size_t set = 0; set < before.sets.size(); ++set)
    after.sets[set] = keep_slots(before.sets[set], std::move(after.sets[set]));
  return after;
}

double imbalance(const ExpertPlacement& placement, std::span<const int64_t> load) {
  const auto copies = copies_of(placement, load.size());
  const auto total = static_cast<double>(std::accumulate(load.begin(), load.end(), int64_t{0}));
  if (total == 0.0) return 1.0;
  double busiest = 0.0;
  for (const auto& set : placement.sets) {
    double tokens = 0.0;
    for (const int32_t expert : set) {
      const auto e = static_cast<size_t>(expert);
      tokens += static_cast<double>(load[e]) / copies[e];
    }
    busiest = std::max(busiest, tokens);
  }
  return busiest * static_cast<double>(placement.sets.size()) / total;
}

ExpertSlots slots_of(const ExpertPlacement& placement, int set, int64_t experts) {
  ExpertSlots slots;
  slots.first.push_back(0);
  for (const int32_t count : copies_of(placement, static_cast<size_t>(experts)))
    slots.first.push_back(slots.first.back() + count);
  slots.slots.assign(static_cast<size_t>(slots.first.back()), -1);
  std::vector<int32_t> next(slots.first.begin(), slots.first.end() - 1);
  for (size_t s = 0; s < placement.sets.size(); ++s) {
    for (size_t slot = 0; slot < placement.sets[s].size(); ++slot) {
      const auto place = static_cast<size_t>(next[static_cast<size_t>(placement.sets[s][slot])]++);
      if (static_cast<int>(s) == set) slots.slots[place] = static_cast<int32_t>(slot);
    }
  }
  return slots;
}

}  // namespace fathom::model
