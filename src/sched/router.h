// Several schedulers as one: each request goes to the one that is likely to have most of its prompt cached,
// unless that is much busier than another. For data parallelism, where every scheduler has a KV pool and a
// prefix cache of its own. Thread safe.
#pragma once

#include <cstdint>
#include <deque>
#include <mutex>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/request.h"

namespace fathom::sched {

// Which schedulers were given prompts that begin alike: a bounded memory of hashes of their first blocks.
// Guesses what the prefix caches hold without asking them; where it errs, a prompt is computed again.
class PrefixMap {
 public:
  static constexpr int32_t kBlock = 32;  // tokens
  static constexpr size_t kMaxBlocks = 1 << 18;

  // Leading prompt tokens that each of `groups` schedulers has seen in this namespace.
  std::vector<int32_t> seen(const std::string& cache_namespace, const std::vector<int32_t>& prompt,
                            int32_t groups) const;
  void add(const std::string& cache_namespace, const std::vector<int32_t>& prompt, int32_t group);
  void clear();

 private:
  std::unordered_map<uint64_t, uint64_t> groups_;  // of a prefix's hash: a bit for each scheduler
  std::deque<uint64_t> order_;                     // of first insertion, for forgetting
};

class Router final : public RequestSink {
 public:
  // At least one, at most 64; they must outlive the router.
  explicit Router(std::vector<RequestSink*> groups);

  // `request.data_parallel_rank` chooses where it is given: kInvalidArgument when there is no such scheduler.
  Result<std::shared_ptr<TokenStream>> submit(GenerateRequest request) override;
  void cancel(const std::string& id) override;
  void finish(const std::string& id) override;
  void cancel_all() override;
  Result<void> flush_cache() override;
  SchedulerStats stats() const override;  // of all together
  std::vector<SchedulerStats> group_stats() const override;

 private:
  // Best first.
  std::vector<int32_t> rank_groups(const GenerateRequest& request) const;

  std::vector<RequestSink*> groups_;
  mutable std::mutex mutex_;
  PrefixMap prefixes_;
};

}  // namespace fathom::sched
