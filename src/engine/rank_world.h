// The ranks of a model in this process, a thread and a shard each, and the passes that all of its ranks
// compute together. Where there are several processes (EngineOptions::nodes), those of node 0 drive them all:
// its engines say what each pass is, also of groups whose ranks are elsewhere, and the other nodes obey().
//
// Where ranks are split in groups of requests (Split::dp), each group has an engine of its own, and experts
// need all groups at once: a pass begins when every group that is in a step has come with what it wants, and
// groups that are in none sleep through it with their part in the experts alone.
//
// run(), begin_step() and end_step() are called by the group's engine thread; state() by any.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/result.h"
#include "dist/control.h"
#include "engine/engine.h"
#include "engine/pass_wire.h"
#include "engine/rank_pass.h"
#include "model/model.h"

namespace fathom::engine {

class RankWorld {
 public:
  // `options.load` is complete but for the group. Errors name the rank.
  static Result<std::shared_ptr<RankWorld>> start(const EngineOptions& options);
  // Ends the ranks. One that hangs is left behind after the group's timeout.
  ~RankWorld();
  RankWorld(const RankWorld&) = delete;
  RankWorld& operator=(const RankWorld&) = delete;

  // On every rank of this node, with the same pages; before the first pass.
  Result<void> allocate_cache(int64_t num_pages, int64_t page_size);
  // On every rank of all nodes, with the same pages, as many as the node with the least room for them has;
  // before the first pass. `request` is this node's, which its ranks have taken their weights of.
  Result<PoolSize> make_cache(const PoolRequest& request);
  int64_t page_size() const { return limits_.page_size; }

  // The group's leader, or a rank of this node where it is on another.
  const model::Model& leader(int group) const;
  int64_t weight_bytes() const;           // of all ranks here, in memory
  int64_t workspace_bytes() const;        // likewise
  int64_t cache_bytes_per_token() const;  // likewise; of a page place that every group has

  // Between the two, others wait for this group's passes.
  void begin_step(int group);
  void end_step(int group);
  // The leader's output, valid until the group's next pass. A failure is final and stands in state(); what
  // the passes give since then is worth nothing.
  model::ForwardOutput run(int group, RankPass pass);
  Result<void> state() const;
  std::optional<ExpertReport> experts() const;

  // On other nodes than 0: does what node 0 says until that ends the world, in good order or with an error.
  Result<void> obey();
  // There: asks node 0 to end it. Thread safe.
  void ask_to_end();
  // On node 0: a node that asked. Thread safe.
  std::optional<int> asked_to_end() const;

 private:
  struct Rank;
  struct Group;
  struct Board;
  struct Remote;
  RankWorld() = default;
  Result<void> connect(const EngineOptions& options, std::vector<std::unique_ptr<dist::Group>>* handles);
  Result<void> build(const EngineOptions& options);
  static Result<void> pair_leaders(Rank& rank);
  static void serve(Rank& rank);
  static void balance(Rank& rank);
  static void compute(Rank& rank, const RankPass& pass, std::span<const int64_t> group_tokens);
  static void deliver(Rank& rank, const WorldPass& world);
  static void hand_over(Rank& rank, const RankPass& pass, Remote& remote, model::ForwardOutput* output);
  static void agree(Rank& rank, int64_t pages);
  Result<int64_t> least_pages(int64_t mine);

  // With the board's mutex held.
  std::chrono::steady_clock::time_point ready_at(RankPass::Kind* kind) const;
  void launch(RankPass::Kind kind);
  void tell(const std::shared_ptr<const WorldPass>& pass);

  model::Split split_;
  int64_t rebalance_passes_ = 0, passes_ = 0;
  int first_rank_ = 0;  // of this node's
  PassLimits limits_;
  std::chrono::milliseconds timeout_{0};
  std::vector<std::shared_ptr<Rank>> ranks_;  // shared with their threads, which may outlive this
  std::shared_ptr<Board> board_;              // likewise
  // One of them where there are several nodes.
  std::unique_ptr<dist::ControlHost> host_;
  std::unique_ptr<dist::ControlGuest> guest_;
};

// Threads of each rank when `threads` are split over `ranks`, at least one each.
std::vector<int32_t> thread_shares(int32_t threads, int32_t ranks);
// The processors of `cpus` that rank `rank` binds its threads to, so that ranks do not share any they need
// not.
std::vector<int> cpu_share(const std::vector<int>& cpus, const std::vector<int32_t>& shares, size_t rank);

}  // namespace fathom::engine
