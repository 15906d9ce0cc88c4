#include "sched/router.h"

#include <algorithm>
#include <numeric>
#include <utility>

#include "base/result.h"

namespace fathom::sched {
namespace {

// What a running or waiting request is worth in prompt tokens when load is weighed against a cached prefix:
// a prompt is computed at some hundreds of times the rate at which a request decodes.
constexpr int64_t kRunningTokens = 16;
constexpr int64_t kWaitingTokens = 256;

uint64_t next_hash(uint64_t hash, const std::vector<int32_t>& prompt, size_t block) {
  const auto* begin = prompt.data() + block * PrefixMap::kBlock;
  for (int32_t i = 0; i < PrefixMap::kBlock; ++i) {
    hash = (hash ^ static_cast<uint32_t>(begin[i])) * 0x9e3779b97f4a7c15ULL;
    hash ^= hash >> 29;
  }
  return hash;
}

size_t blocks_of(const std::vector<int32_t>& prompt) {
  return prompt.size() / PrefixMap::kBlock;
}

void add_to(SchedulerStats& sum, const SchedulerStats& one) {
  sum.running_requests += one.running_requests;
  sum.waiting_requests += one.waiting_requests;
  sum.used_tokens += one.used_tokens;
  sum.cached_tokens += one.cached_tokens;
  sum.total_tokens += one.total_tokens;
  sum.steps += one.steps;
  sum.progress_ns = std::max(sum.progress_ns, one.progress_ns);
  sum.finished_requests += one.finished_requests;
  sum.aborted_requests += one.aborted_requests;
  sum.retractions += one.retractions;
  sum.prompt_tokens += one.prompt_tokens;
  sum.prompt_cached_tokens += one.prompt_cached_tokens;
  for (size_t reason = 0; reason < kMissReasons; ++reason) {
    sum.cache_misses.requests[reason] += one.cache_misses.requests[reason];
    sum.cache_misses.tokens[reason] += one.cache_misses.tokens[reason];
  }
  sum.generated_tokens += one.generated_tokens;
  sum.speculates = sum.speculates || one.speculates;
  sum.speculation.verify_steps += one.speculation.verify_steps;
  sum.speculation.draft_tokens += one.speculation.draft_tokens;
  sum.speculation.accepted_tokens += one.speculation.accepted_tokens;
  auto& histogram = sum.speculation.histogram;
  histogram.resize(std::max(histogram.size(), one.speculation.histogram.size()));
  for (size_t n = 0; n < one.speculation.histogram.size(); ++n) histogram[n] += one.speculation.histogram[n];
  sum.unguessed_steps += one.unguessed_steps;
  sum.evicted_tokens += one.evicted_tokens;
  sum.preempted_requests += one.preempted_requests;
  sum.leaked_pages += one.leaked_pages;
  sum.generation_rate += one.generation_rate;
}

}  // namespace

std::vector<int32_t> PrefixMap::seen(const std::string& cache_namespace, const std::vector<int32_t>& prompt,
                                     int32_t groups) const {
  std::vector<int32_t> tokens(static_cast<size_t>(groups), 0);
  uint64_t with_it = ~uint64_t{0};
  uint64_t hash = std::hash<std::string>()(cache_namespace);
  for (size_t block = 0; block < blocks_of(prompt) && with_it != 0; ++block) {
    hash = next_hash(hash, prompt, block);
    const auto found = groups_.find(hash);
    with_it = found == groups_.end() ? 0 : with_it & found->second;
    for (int32_t group = 0; group < groups; ++group) {
      if ((with_it >> group & 1) != 0) tokens[static_cast<size_t>(group)] += kBlock;
    }
  }
  return tokens;
}

void PrefixMap::add(const std::string& cache_namespace, const std::vector<int32_t>& prompt, int32_t group) {
  uint64_t hash = std::hash<std::string>()(cache_namespace);
  for (size_t block = 0; block < blocks_of(prompt); ++block) {
    hash = next_hash(hash, prompt, block);
    const auto [entry, is_new] = groups_.try_emplace(hash, 0);
    entry->second |= uint64_t{1} << group;
    if (!is_new) continue;
    order_.push_back(hash);
    if (order_.size() <= kMaxBlocks) continue;
    groups_.erase(order_.front());
    order_.pop_front();
  }
}

void PrefixMap::clear() {
  groups_.clear();
  order_.clear();
}

Router::Router(std::vector<RequestSink*> groups) : groups_(std::move(groups)) {
  FATHOM_CHECK(!groups_.empty() && groups_.size() <= 64, "{} schedulers", groups_.size());
}

std::vector<int32_t> Router::rank_groups(const GenerateRequest& request) const {
  const auto count = static_cast<int32_t>(groups_.size());
  std::vector<int32_t> order(groups_.size());
  std::iota(order.begin(), order.end(), 0);
  std::vector<int32_t> seen;
  {
    std::lock_guard lock(mutex_);
    seen = prefixes_.seen(request.cache_namespace, request.prompt, count);
  }
  std::vector<int64_t> cost;  // prompt tokens before this request's first output, roughly
  for (const int32_t group : order) {
    const SchedulerStats stats = groups_[static_cast<size_t>(group)]->stats();
    cost.push_back(stats.waiting_requests * kWaitingTokens + stats.running_requests * kRunningTokens +
                   static_cast<int64_t>(request.prompt.size()) - seen[static_cast<size_t>(group)]);
  }
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return cost[static_cast<size_t>(a)] < cost[static_cast<size_t>(b)];
  });
  return order;
}

Result<std::shared_ptr<TokenStream>> Router::submit(GenerateRequest request) {
  const auto count = static_cast<int32_t>(groups_.size());
  std::vector<int32_t> order;
  if (request.data_parallel_rank) {
    const int32_t rank = *request.data_parallel_rank;
    if (rank < 0 || rank >= count) {
      return error(ErrorCode::kInvalidArgument, "data_parallel_rank {}: there {} {}, counted from 0", rank,
                   count == 1 ? "is" : "are", count);
    }
    order = {rank};
  } else if (count == 1) {
    order = {0};
  } else {
    order = rank_groups(request);
  }
  for (const int32_t group : order) {
    const bool last = group == order.back();
    GenerateRequest copy = request;
    auto stream = groups_[static_cast<size_t>(group)]->submit(std::move(copy));
    const bool full = !stream.ok() && stream.error().code == ErrorCode::kUnavailable;
    if (full && !last) continue;
    if (stream.ok() && count > 1) {
      std::lock_guard lock(mutex_);
      prefixes_.add(request.cache_namespace, request.prompt, group);
    }
    return stream;
  }
  check_failed(__FILE__, __LINE__, "order", "no scheduler");
}

void Router::cancel(const std::string& id) {
  for (auto* group : groups_) group->cancel(id);
}

void Router::finish(const std::string& id) {
  for (auto* group : groups_) group->finish(id);
}

void Router::cancel_all() {
  for (auto* group : groups_) group->cancel_all();
}

Result<void> Router::flush_cache() {
  Result<void> result;
  for (auto* group : groups_) {
    auto flushed = group->flush_cache();
    if (result.ok()) result = std::move(flushed);
  }
  std::lock_guard lock(mutex_);
  prefixes_.clear();
  return result;
}

SchedulerStats Router::stats() const {
  SchedulerStats sum = groups_.front()->stats();
  for (size_t group = 1; group < groups_.size(); ++group) add_to(sum, groups_[group]->stats());
  return sum;
}

std::vector<SchedulerStats> Router::group_stats() const {
  std::vector<SchedulerStats> all;
  all.reserve(groups_.size());
  for (const auto* group : groups_) all.push_back(group->stats());
  return all;
}

}  // namespace fathom::sched
