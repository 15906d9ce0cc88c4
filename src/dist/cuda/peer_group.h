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
  // The process's ranks, in their order: their numbers in the world, and their GPUs.
  static Result<std::shared_ptr<PeerWorld>> create(std::vector<int> names, std::vector<int> gpus,
                                                   std::chrono::milliseconds timeout);
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
  Way way_of(const SumArgs& args, int size) const override;
  std::optional<RowRange> share_of(const SumArgs& args) const override;
  void sum_own(device::cuda::Stream& stream, const SumArgs& args, const OwnRows& own) override;
  using GpuGroup::gather;
  void gather(device::cuda::Stream& stream, const ops::cuda::Matrix& part, int64_t most,
              RankRange senders) override;
  Result<void> exchange(device::cuda::Stream& stream, std::span<const Piece> out,
                        std::span<const Piece> in) override;
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

// Rows [0, rows), cut as if there were `cut` of them, in a group of `size` that does not send them all by
// post: rank `rank`'s share.
RowRange share_of_rows(int64_t rows, int64_t cut, int rank, int size);
// What the way is chosen by, and shares are cut of.
inline int64_t cut_of(const SumArgs& args) {
  return args.cut > 0 ? args.cut : args.rows.rows;
}
void check_sum(const SumArgs& args, int size);
void check_own(const SumArgs& args, const OwnRows& own, int size);

}  // namespace fathom::dist::cuda
