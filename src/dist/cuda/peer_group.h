// The group of GPUs of one process, which use each other's memory. See gpu_group.h.
#pragma once

#include <memory>
#include <span>
#include <string>
#include <vector>

#include "dist/cuda/gpu_group.h"

namespace fathom::dist::cuda {

// What all peer groups of a process share: whether they go on, and how their ranks are named in errors.
class PeerWorld {
 public:
  // `names`: the process's ranks, in their order, by number in the world.
  static Result<std::shared_ptr<PeerWorld>> create(std::vector<int> names, std::chrono::milliseconds timeout);
  ~PeerWorld();
  PeerWorld(const PeerWorld&) = delete;
  PeerWorld& operator=(const PeerWorld&) = delete;

  // Thread safe. The first error stays; kernels that wait give up.
  void end(Error error);
  Result<void> state() const;

 private:
  friend class PeerGroup;
  struct Inside;
  explicit PeerWorld(std::unique_ptr<Inside> inside);
  std::unique_ptr<Inside> inside_;
};

// Every GPU of `gpus` may use the memory of every other one from now on.
Result<void> enable_peers(const std::vector<int>& gpus);

class PeerGroup final : public GpuGroup {
 public:
  // The handle of rank host->rank(), which is number `id` of the process's: all ranks of `host` must be of
  // this process, and make theirs at the same time.
  static Result<std::unique_ptr<PeerGroup>> make(std::shared_ptr<PeerWorld> world,
                                                 std::unique_ptr<Group> host, int gpu, int id, bool posts);
  ~PeerGroup() override;

  int rank() const override;
  int size() const override;
  int gpu() const override;
  Group& host() override;
  bool spans_processes() const override { return false; }
  Result<std::unique_ptr<GpuGroup>> split(int colour, const std::string& name, bool posts) override;
  Result<void> share(void* data, int64_t bytes) override;
  void sum(device::cuda::Stream& stream, const SumArgs& args) override;
  std::optional<RowRange> share_of(const SumArgs& args) const override;
  void sum_own(device::cuda::Stream& stream, const SumArgs& args, int64_t most, RowRange mine,
               std::span<const int> to) override;
  using GpuGroup::gather;
  void gather(device::cuda::Stream& stream, const ops::cuda::Matrix& part, int64_t most,
              RankRange senders) override;
  Result<void> state() const override;
  void abort(Error error) override;

 private:
  struct State;
  explicit PeerGroup(std::unique_ptr<State> state);
  // `host` and `gpu` are there.
  Result<void> allocate(bool posts);
  Result<void> meet(int id);
  std::unique_ptr<State> state_;
};

// Of a sum's `rows` rows in a group of `size` that does not send them all by post: rank `rank`'s share.
RowRange share_of_rows(int64_t rows, int rank, int size);
// Whether so few rows are sent that every rank adds all of them.
bool sums_by_post(const SumArgs& args, int size);
void check_sum(const SumArgs& args, int size);

}  // namespace fathom::dist::cuda
