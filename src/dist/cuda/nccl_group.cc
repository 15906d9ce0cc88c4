#include "dist/cuda/nccl_group.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <thread>

#include "base/log.h"
#include "base/math.h"
#include "device/cuda/memory.h"
#include "dist/cuda/nccl.h"
#include "dist/cuda/parcels.h"
#include "dist/cuda/peer_group.h"
#include "ops/quantize/cuda.h"

namespace fathom::dist::cuda {
namespace {

using device::cuda::DeviceBuffer;
using ops::cuda::Matrix;

constexpr std::chrono::milliseconds kWatch{20};
constexpr std::chrono::milliseconds kCallTakes{2000};

// What this process's ranks share.
struct NcclWorld {
  NcclWorld(const Nccl& nccl_in, std::shared_ptr<PeerWorld> peers_in)
      : nccl(nccl_in), peers(std::move(peers_in)) {}

  const Nccl& nccl;
  const std::shared_ptr<PeerWorld> peers;
  std::atomic<bool> ended{false};
  std::mutex mutex;
  std::vector<Nccl::Comm> comms;  // of all groups and ranks here
  // Shared by who calls NCCL with one of them.
  std::shared_timed_mutex calls;

  // Whatever waits in NCCL gives up, here and on the GPUs.
  void end() {
    ended.store(true, std::memory_order_release);
    std::vector<Nccl::Comm> all;
    {
      const std::lock_guard lock(mutex);
      all.swap(comms);
    }
    // A call that does not return waits for a rank that is gone: it is ended too.
    const std::unique_lock lock(calls, kCallTakes);
    for (const Nccl::Comm comm : all) (void)nccl.comm_abort(comm);
  }
};

// Ends the world's work on GPUs where it has ended on the host. Of one rank of the process.
class Watcher {
 public:
  Watcher(std::shared_ptr<NcclWorld> world, const Group& host)
      : thread_([this, world = std::move(world), &host] { watch(*world, host); }) {}
  ~Watcher() {
    {
      const std::lock_guard lock(mutex_);
      over_ = true;
    }
    changed_.notify_all();
    thread_.join();
  }

 private:
  void watch(NcclWorld& world, const Group& host) {
    std::unique_lock lock(mutex_);
    while (!changed_.wait_for(lock, kWatch, [&] { return over_; })) {
      const auto state = host.state();
      if (state.ok()) continue;
      world.peers->end(state.error());
      world.end();
      return;
    }
  }

  std::mutex mutex_;
  std::condition_variable changed_;
  bool over_ = false;
  std::thread thread_;
};

// Memory for what a rank sends and gets, one op after another.
struct Boxes {
  DeviceBuffer in, out;
  int64_t in_bytes = 0, out_bytes = 0;

  // Before any work that uses them.
  Result<void> reserve(int64_t in_wanted, int64_t out_wanted) {
    if (in_wanted > in_bytes) {
      in = {};
      FATHOM_ASSIGN(in, DeviceBuffer::allocate(static_cast<size_t>(in_wanted)));
      in_bytes = in_wanted;
    }
    if (out_wanted > out_bytes) {
      out = {};
      FATHOM_ASSIGN(out, DeviceBuffer::allocate(static_cast<size_t>(out_wanted)));
      out_bytes = out_wanted;
    }
    return {};
  }
};

// Bytes for, or from, each rank.
struct Piece {
  void* data = nullptr;
  int64_t bytes = 0;
};

class NcclGroup final : public GpuGroup {
 public:
  struct Member {
    std::shared_ptr<NcclWorld> world;
    std::shared_ptr<Boxes> boxes;
    int rank = 0;     // in the world
    int process = 0;  // its first rank on the host
    int id = 0;       // of this process's ranks
    int gpu = 0;
  };

  NcclGroup(Member member, std::unique_ptr<Group> host) : me_(std::move(member)), host_(std::move(host)) {}
  ~NcclGroup() override {
    watcher_.reset();
    const std::lock_guard lock(me_.world->mutex);
    auto& comms = me_.world->comms;
    const auto found = std::find(comms.begin(), comms.end(), comm_);
    if (comm_ == nullptr || found == comms.end()) return;  // it was ended
    comms.erase(found);
    // Not destroyed, which would wait for the other ranks of this process.
    (void)me_.world->nccl.comm_abort(comm_);
  }

  // All ranks of the group at the same time.
  Result<void> meet(bool watches) {
    const Nccl& nccl = me_.world->nccl;
    FATHOM_TRY(device::cuda::check(cudaSetDevice(me_.gpu), "cudaSetDevice"));
    if (watches) watcher_ = std::make_unique<Watcher>(me_.world, *host_);
    std::vector<int> ranks(static_cast<size_t>(size()));
    FATHOM_TRY(host_->all_gather(&me_.rank, std::vector<int64_t>(ranks.size(), sizeof(int)), ranks.data()));
    rank_ = static_cast<int>(std::count_if(ranks.begin(), ranks.end(), [&](int r) { return r < me_.rank; }));
    const auto first = std::min_element(ranks.begin(), ranks.end()) - ranks.begin();  // on the host
    Nccl::UniqueId id;
    // NCCL listens from here on, on an address of its choice.
    if (rank_ == 0) FATHOM_TRY(nccl.check(nccl.get_unique_id(&id), "ncclGetUniqueId"));
    FATHOM_TRY(host_->broadcast(&id, sizeof(id), static_cast<int>(first)));
    Nccl::Comm made = nullptr;
    FATHOM_TRY(nccl.check(nccl.comm_init_rank(&made, size(), id, rank_), "ncclCommInitRank"));
    {
      const std::lock_guard lock(me_.world->mutex);
      me_.world->comms.push_back(made);
    }
    comm_ = made;
    FATHOM_ASSIGN(region_starts_, DeviceBuffer::allocate(kMostRegions * sizeof(std::byte*)));
    FATHOM_TRY(me_.boxes->reserve(slack() + kMostPostBytes * 2, slack()));
    return connect();
  }

  int rank() const override { return rank_; }
  int size() const override { return host_->size(); }
  int gpu() const override { return me_.gpu; }
  Group& host() override { return *host_; }
  bool spans_processes() const override { return true; }

  Result<std::unique_ptr<GpuGroup>> split(int colour, const std::string& name, bool posts) override {
    FATHOM_ASSIGN(auto host, host_->split(colour, name));
    std::vector<int> processes(static_cast<size_t>(host->size()));
    FATHOM_TRY(host->all_gather(&me_.process, std::vector<int64_t>(processes.size(), sizeof(int)),
                                processes.data()));
    const bool here =
        std::all_of(processes.begin(), processes.end(), [&](int p) { return p == me_.process; });
    if (here) {
      FATHOM_ASSIGN(auto part, PeerGroup::make(me_.world->peers, std::move(host), me_.gpu, me_.id, posts));
      return std::unique_ptr<GpuGroup>(std::move(part));
    }
    auto part = std::make_unique<NcclGroup>(me_, std::move(host));
    FATHOM_TRY(part->meet(false));
    return std::unique_ptr<GpuGroup>(std::move(part));
  }

  Result<void> share(void* data, int64_t bytes) override {
    std::vector<int64_t> all(static_cast<size_t>(size()));
    FATHOM_TRY(host_->all_gather(&bytes, std::vector<int64_t>(all.size(), sizeof(bytes)), all.data()));
    for (const int64_t theirs : all)
      FATHOM_CHECK(theirs == bytes, "{} bytes are shared, and {}", bytes, theirs);
    FATHOM_CHECK(regions_.size() < kMostRegions, "{} regions", regions_.size());
    auto* begin = static_cast<std::byte*>(data);
    FATHOM_TRY(
        device::cuda::check(cudaMemcpy(static_cast<std::byte**>(region_starts_.data()) + regions_.size(),
                                       &begin, sizeof(begin), cudaMemcpyHostToDevice),
                            "copy"));
    regions_.push_back({begin, bytes});
    // A sum's shares, or a gather's parts, are all of it at most; two ways of it where halves meet in stages.
    return me_.boxes->reserve(2 * bytes + slack(), bytes + slack());
  }

  std::optional<RowRange> share_of(const SumArgs& args) const override {
    if (sums_by_post(args, size())) return std::nullopt;
    return share_of_rows(args.rows.rows, rank_, size());
  }

  void sum(device::cuda::Stream& stream, const SumArgs& args) override {
    check_sum(args, size());
    const Matrix& rows = args.rows;
    if (rows.rows == 0 || ended()) return;
    const int64_t row_bytes = rows.columns * device::size_of(rows.dtype);
    const auto mine = share_of(args);
    ReceivedRows received{rank_, size(), me_.boxes->in.data(), 0, mine.value_or(RowRange{0, rows.rows})};
    auto& [out, in] = pieces();
    const int64_t most = mine ? ceil_div<int64_t>(rows.rows, size()) : rows.rows;
    received.box_bytes = round_up<int64_t>(most * row_bytes, 16);
    check_room(received.box_bytes * size(), 0);
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      const RowRange theirs = mine ? share_of_rows(rows.rows, r, size()) : RowRange{0, rows.rows};
      out[static_cast<size_t>(r)] = {static_cast<std::byte*>(rows.data) + theirs.first * row_bytes,
                                     (theirs.end - theirs.first) * row_bytes};
      in[static_cast<size_t>(r)] = {static_cast<std::byte*>(me_.boxes->in.data()) + r * received.box_bytes,
                                    (received.rows.end - received.rows.first) * row_bytes};
    }
    transfer(stream, out, in);
    SumArgs whole = args;
    if (mine) whole.rounded = {};  // others bring the rest of y
    add_received(stream, whole, received);
    if (!mine) return;
    gather_shares(stream, args.y);
    if (args.rounded.values != nullptr) ops::cuda::quantize(stream, {.x = args.y, .y = args.rounded});
  }

  void sum_own(device::cuda::Stream&, const SumArgs&, int64_t, RowRange, std::span<const int>) override {
    FATHOM_CHECK(false, "groups of requests on GPUs of several processes");
  }

  using GpuGroup::gather;
  void gather(device::cuda::Stream& stream, const Matrix& part, int64_t most, RankRange senders) override {
    FATHOM_CHECK(part.rows * part.columns <= most, "a part of {} x {} values, most {}", part.rows,
                 part.columns, most);
    if (most == 0 || ended()) return;
    const int64_t most_bytes = most * device::size_of(part.dtype);
    const int64_t each = parcel_bytes(most_bytes);
    check_room(each * senders.end, each);
    const bool sends = rank_ >= senders.first && rank_ < senders.end;
    FATHOM_CHECK(sends || part.rows == 0, "rank {} has a part; the senders are [{}, {})", rank_,
                 senders.first, senders.end);
    if (sends) {
      const auto [region, offset] = locate(part.data);
      pack_parcel(stream, part, region, offset, most_bytes, me_.boxes->out.data());
    }
    auto& [out, in] = pieces();
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      if (sends) out[static_cast<size_t>(r)] = {me_.boxes->out.data(), each};
      if (r >= senders.first && r < senders.end)
        in[static_cast<size_t>(r)] = {static_cast<std::byte*>(me_.boxes->in.data()) + r * each, each};
    }
    transfer(stream, out, in);
    unpack_parcels(stream, me_.boxes->in.data(), each, senders, rank_,
                   static_cast<std::byte* const*>(region_starts_.data()), most_bytes);
  }

  Result<void> state() const override {
    FATHOM_TRY(me_.world->peers->state());
    FATHOM_TRY(host_->state());
    const std::shared_lock lock(me_.world->calls);
    if (ended() || comm_ == nullptr) return {};
    int result = Nccl::kSuccess;
    const Nccl& nccl = me_.world->nccl;
    FATHOM_TRY(nccl.check(nccl.comm_get_async_error(comm_, &result), "ncclCommGetAsyncError"));
    return nccl.check(result, "a transfer between nodes");
  }

  void abort(Error error) override {
    me_.world->peers->end(error);
    host_->abort(std::move(error));
    // The watcher does the rest.
  }

 private:
  // NCCL connects two ranks when they first send, which it cannot do while a graph is captured.
  Result<void> connect() {
    FATHOM_ASSIGN(const auto gpu, device::cuda::open_gpu(me_.gpu));
    FATHOM_ASSIGN(const auto stream, device::cuda::Stream::create(gpu));
    auto& [out, in] = pieces();
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      out[static_cast<size_t>(r)] = {me_.boxes->out.data(), 16};
      in[static_cast<size_t>(r)] = {static_cast<std::byte*>(me_.boxes->in.data()) + r * 16, 16};
    }
    transfer(*stream, out, in);
    FATHOM_TRY(stream->synchronize());
    return state();
  }

  static constexpr size_t kMostRegions = 1024;
  struct Region {
    std::byte* begin;
    int64_t bytes;
  };
  struct Place {
    int region;
    int64_t offset;
  };

  // Of all ranks, empty; taken again by each op, so that none asks for memory.
  struct Pieces {
    std::vector<Piece> out, in;
  };
  Pieces& pieces() {
    pieces_.out.assign(static_cast<size_t>(size()), {});
    pieces_.in.assign(static_cast<size_t>(size()), {});
    return pieces_;
  }

  bool ended() const { return me_.world->ended.load(std::memory_order_acquire); }
  // Heads, and the rows by which shares are rounded up.
  int64_t slack() const { return int64_t{size()} * (kParcelHeadBytes + 32 + int64_t{32768} * 4); }
  void check_room(int64_t in, int64_t out) const {
    FATHOM_CHECK(in <= me_.boxes->in_bytes && out <= me_.boxes->out_bytes, "{} and {} bytes of {} and {}", in,
                 out, me_.boxes->in_bytes, me_.boxes->out_bytes);
  }

  Place locate(const void* data) const {
    const auto* at = static_cast<const std::byte*>(data);
    // The latest first: memory that was given before may have been given back.
    for (size_t i = regions_.size(); i-- > 0;) {
      if (at >= regions_[i].begin && at < regions_[i].begin + regions_[i].bytes)
        return {static_cast<int>(i), at - regions_[i].begin};
    }
    FATHOM_CHECK(false, "{} is not in memory that the ranks share", data);
    return {};
  }

  // Every rank's share of y's rows, to all.
  void gather_shares(device::cuda::Stream& stream, const Matrix& y) {
    const RowRange mine = share_of_rows(y.rows, rank_, size());
    if (y.stride != y.columns) {
      gather(stream, y.row_range(mine.first, mine.end), ceil_div<int64_t>(y.rows, size()) * y.columns);
      return;
    }
    const int64_t row_bytes = y.columns * device::size_of(y.dtype);
    auto* data = static_cast<std::byte*>(y.data);
    auto& [out, in] = pieces();
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      const RowRange theirs = share_of_rows(y.rows, r, size());
      out[static_cast<size_t>(r)] = {data + mine.first * row_bytes, (mine.end - mine.first) * row_bytes};
      in[static_cast<size_t>(r)] = {data + theirs.first * row_bytes, (theirs.end - theirs.first) * row_bytes};
    }
    transfer(stream, out, in);
  }

  void transfer(device::cuda::Stream& stream, const std::vector<Piece>& out, const std::vector<Piece>& in) {
    const Nccl& nccl = me_.world->nccl;
    const std::shared_lock lock(me_.world->calls);
    if (ended()) return;
    int result = nccl.group_start();
    for (int r = 0; r < size() && result == Nccl::kSuccess; ++r) {
      const Piece &to = out[static_cast<size_t>(r)], &from = in[static_cast<size_t>(r)];
      if (to.bytes > 0)
        result = nccl.send(to.data, static_cast<size_t>(to.bytes), Nccl::kBytes, r, comm_, stream.handle());
      if (from.bytes > 0 && result == Nccl::kSuccess)
        result =
            nccl.recv(from.data, static_cast<size_t>(from.bytes), Nccl::kBytes, r, comm_, stream.handle());
    }
    const int end = nccl.group_end();
    const auto outcome = nccl.check(result != Nccl::kSuccess ? result : end, "a transfer between nodes");
    if (!outcome.ok() && !ended()) abort(outcome.error());
    stream.launched("transfer");
  }

  const Member me_;
  std::unique_ptr<Group> host_;
  int rank_ = 0;
  Nccl::Comm comm_ = nullptr;
  Pieces pieces_;
  std::vector<Region> regions_;
  DeviceBuffer region_starts_;
  std::unique_ptr<Watcher> watcher_;
};

}  // namespace

Result<std::vector<std::unique_ptr<GpuGroup>>> create_over_nodes(const GpuGroupOptions& options,
                                                                 std::vector<std::unique_ptr<Group>> hosts,
                                                                 int shift) {
  FATHOM_CHECK(!hosts.empty() && hosts.size() == options.gpus.size(), "{} ranks on {} GPUs", hosts.size(),
               options.gpus.size());
  const auto fail = [&](const Error& why) {
    hosts.front()->abort(why);
    return why;
  };
  const auto nccl = Nccl::load();
  if (!nccl.ok()) return fail(nccl.error());
  const int world_size = hosts.front()->size();
  std::vector<int> names;
  for (const auto& host : hosts) names.push_back((host->rank() + shift) % world_size);
  auto peers = PeerWorld::create(names, options.timeout);
  if (!peers.ok()) return fail(peers.error());
  if (const auto enabled = enable_peers(options.gpus); !enabled.ok()) return fail(enabled.error());
  LOG_INFO("GPUs of several nodes: NCCL {}.{}.{}", (*nccl)->version / 10000, (*nccl)->version / 100 % 100,
           (*nccl)->version % 100);
  const auto world = std::make_shared<NcclWorld>(**nccl, *peers);
  const int process = hosts.front()->rank();
  std::vector<std::unique_ptr<NcclGroup>> made;
  for (size_t r = 0; r < hosts.size(); ++r) {
    made.push_back(
        std::make_unique<NcclGroup>(NcclGroup::Member{world, std::make_shared<Boxes>(), names[r], process,
                                                      static_cast<int>(r), options.gpus[r]},
                                    std::move(hosts[r])));
  }
  std::vector<Result<void>> met(made.size());
  std::vector<std::thread> threads;
  for (size_t r = 0; r < made.size(); ++r) threads.emplace_back([&, r] { met[r] = made[r]->meet(r == 0); });
  for (auto& thread : threads) thread.join();
  std::vector<std::unique_ptr<GpuGroup>> groups;
  for (size_t r = 0; r < made.size(); ++r) {
    if (!met[r].ok()) {
      made[r]->abort(met[r].error().with_context(fmt::format("rank {}", names[r])));
      return met[r].error();
    }
    groups.push_back(std::move(made[r]));
  }
  return groups;
}

}  // namespace fathom::dist::cuda
