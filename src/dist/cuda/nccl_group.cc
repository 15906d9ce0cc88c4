#include "dist/cuda/nccl_group.h"

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <mutex>
#include <shared_mutex>
#include <thread>

#include "base/log.h"
#include "base/math.h"
#include "base/thread_start.h"
#include "device/cuda/graph.h"
#include "device/cuda/memory.h"
#include "dist/cuda/nccl.h"
#include "dist/cuda/nccl_comms.h"
#include "dist/cuda/parcels.h"
#include "dist/cuda/peer_group.h"
#include "dist/network.h"
#include "ops/quantize/cuda.h"

namespace fathom::dist::cuda {
namespace {

using device::cuda::DeviceBuffer;
using ops::cuda::Matrix;

constexpr std::chrono::milliseconds kWatch{20};
constexpr std::chrono::milliseconds kCallTakes{2000};

// What this process's ranks share.
struct NcclWorld {
  NcclWorld(const Nccl& nccl_in, std::shared_ptr<PeerWorld> peers_in, std::chrono::milliseconds timeout_in)
      : nccl(nccl_in), peers(std::move(peers_in)), timeout(timeout_in) {}

  const Nccl& nccl;
  const std::shared_ptr<PeerWorld> peers;
  const std::chrono::milliseconds timeout;
  const std::shared_ptr<NcclComms> comms = std::make_shared<NcclComms>(nccl);  // of all groups and ranks here
  std::atomic<int> groups{0};
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
      NcclComms::end(world.comms, kCallTakes);
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

// NCCL waits for all ranks for ever when it connects them, and cannot be told to stop: a thread of its own
// does it, which is left behind where the world ends first, or the time is over.
Result<Nccl::Comm> connect_ranks(const NcclWorld& world, const Group& host, int gpu, const Nccl::UniqueId& id,
                                 int rank) {
  struct Outcome {
    std::mutex mutex;
    std::condition_variable changed;
    bool there = false, unwanted = false;
    int result = Nccl::kSuccess;
    Nccl::Comm comm = nullptr;
  };
  const auto outcome = std::make_shared<Outcome>();
  // The library stays loaded.
  std::thread([outcome, &nccl = world.nccl, gpu, id, rank, size = host.size()] {
    begin_thread("nccl connect");
    (void)cudaSetDevice(gpu);
    Nccl::Comm comm = nullptr;
    const int result = nccl.comm_init_rank(&comm, size, id, rank);
    const std::lock_guard lock(outcome->mutex);
    outcome->there = true;
    outcome->result = result;
    outcome->comm = comm;
    if (outcome->unwanted && result == Nccl::kSuccess) (void)nccl.comm_abort(comm);
    outcome->changed.notify_all();
  }).detach();
  const auto end = std::chrono::steady_clock::now() + world.timeout;
  std::unique_lock lock(outcome->mutex);
  while (!outcome->changed.wait_for(lock, kWatch, [&] { return outcome->there; })) {
    Result<void> state = host.state();
    if (state.ok() && std::chrono::steady_clock::now() > end) {
      state =
          error(ErrorCode::kDeadlineExceeded,
                "NCCL did not connect rank {} with the other {} within {:.1f} s: NCCL_DEBUG=INFO says where "
                "it tries to, NCCL_SOCKET_IFNAME by which network",
                rank, host.size() - 1, std::chrono::duration<double>(world.timeout).count());
    }
    if (state.ok()) continue;
    outcome->unwanted = true;
    return state.error();
  }
  FATHOM_TRY(world.nccl.check(outcome->result, "ncclCommInitRank"));
  return outcome->comm;
}

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

  NcclGroup(Member member, std::unique_ptr<Group> host) : me_(std::move(member)), host_(std::move(host)) {
    ++me_.world->groups;
  }
  ~NcclGroup() override {
    watcher_.reset();
    // Not destroyed, which would wait for the other ranks of this process.
    if (comm_ != nullptr && me_.world->comms->remove(comm_)) (void)me_.world->nccl.comm_abort(comm_);
    // All graphs are gone when the last group is.
    if (--me_.world->groups == 0 && !me_.world->comms->wait(kCallTakes))
      LOG_WARNING("NCCL has not ended its communicators within {} ms", kCallTakes.count());
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
    FATHOM_ASSIGN(const Nccl::Comm made, connect_ranks(*me_.world, *host_, me_.gpu, id, rank_));
    me_.world->comms->add(made);
    comm_ = made;
    FATHOM_ASSIGN(region_starts_, DeviceBuffer::allocate(kMostRegions * sizeof(std::byte*)));
    FATHOM_TRY(me_.boxes->reserve(slack() + kMostPostBytes * 2, slack() + kProbeBytes));
    // Nobody waits on a GPU while another rank takes memory.
    FATHOM_TRY(host_->barrier());
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
    if ((args.way == Way::kAuto ? way_of(args, size()) : args.way) == Way::kPost) return std::nullopt;
    return share_of_rows(args.rows.rows, cut_of(args), rank_, size());
  }

  void sum(device::cuda::Stream& stream, const SumArgs& args) override {
    check_sum(args, size());
    const Matrix& rows = args.rows;
    if (rows.rows == 0 || ended()) return;
    if (args.answers) ops::cuda::expert_combine(stream, *args.answers);
    const int64_t row_bytes = rows.columns * device::size_of(rows.dtype);
    const auto mine = share_of(args);
    ReceivedRows received{rank_, size(), me_.boxes->in.data(), 0, mine.value_or(RowRange{0, rows.rows})};
    const int64_t cut = cut_of(args);
    const auto share = [&](int r) {
      return mine ? share_of_rows(rows.rows, cut, r, size()) : RowRange{0, rows.rows};
    };
    const RowRange largest = share(0);
    received.box_bytes = round_up<int64_t>((largest.end - largest.first) * row_bytes, 16);
    check_room(received.box_bytes * size(), 0);
    clear_pieces();
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      add_rows(out_, r, rows.data, share(r), row_bytes);
      in_.push_back({r, box(received, r), (received.rows.end - received.rows.first) * row_bytes});
    }
    transfer(stream, out_, in_);
    SumArgs whole = args;
    if (mine) whole.rounded = {};  // others bring the rest of y
    add_received(stream, whole, received);
    if (!mine) return;
    gather_shares(stream, args.y, cut);
    if (args.rounded.values != nullptr) ops::cuda::quantize(stream, {.x = args.y, .y = args.rounded});
  }

  Way way_of(const SumArgs& args, int size) const override {
    const int64_t values = cut_of(args) * args.rows.columns;
    const int64_t bytes = values * device::size_of(args.rows.dtype);
    // The boxes have room for the rows of all ranks, of this group too (sum_own).
    const bool fits = bytes * std::max(size, this->size()) <= 2 * kMostPostBytes;
    // As bfloat16, whatever y is: all sums into a residual stream must go the same way.
    const int64_t results = values * device::size_of(device::DType::kBF16);
    return fits && sums_at_once(network_, bytes, results, size) ? Way::kPost : Way::kMeet;
  }

  void sum_own(device::cuda::Stream& stream, const SumArgs& args, const OwnRows& own) override {
    check_own(args, own, size());
    if (own.most == 0 || ended()) return;
    const Matrix& rows = args.rows;
    const int64_t row_bytes = rows.columns * device::size_of(rows.dtype);
    const int lane = rank_ % own.lanes;
    // How many rows others have nobody knows here: they get as many as they may have.
    const auto share = [&](int r, int64_t count) {
      return own.shared_out ? share_of_rows(count, own.most, r % own.lanes, own.lanes) : RowRange{0, count};
    };
    auto* all = static_cast<std::byte*>(rows.data) - rank_ / own.lanes * own.most * row_bytes;
    const RowRange mine = share(rank_, own.most), largest = share(0, own.most);
    ReceivedRows received{rank_, size(), me_.boxes->in.data(), 0, share(rank_, rows.rows)};
    received.box_bytes = round_up<int64_t>((largest.end - largest.first) * row_bytes, 16);
    check_room(received.box_bytes * size(), 0);
    clear_pieces();
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      add_rows(out_, r, all + r / own.lanes * own.most * row_bytes, share(r, own.most), row_bytes);
      in_.push_back({r, box(received, r), (mine.end - mine.first) * row_bytes});
    }
    transfer(stream, out_, in_);
    SumArgs whole = args;
    if (own.shared_out) whole.rounded = {};  // others bring the rest of y
    add_received(stream, whole, received);
    if (!own.shared_out || rows.rows == 0) return;
    send_shares(stream, args.y, own.most, rank_ - lane, own.lanes);
    if (args.rounded.values != nullptr) ops::cuda::quantize(stream, {.x = args.y, .y = args.rounded});
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
    clear_pieces();
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) continue;
      if (sends) out_.push_back({r, me_.boxes->out.data(), each});
      if (r >= senders.first && r < senders.end)
        in_.push_back({r, static_cast<std::byte*>(me_.boxes->in.data()) + r * each, each});
    }
    transfer(stream, out_, in_);
    unpack_parcels(stream, me_.boxes->in.data(), each, senders, rank_,
                   static_cast<std::byte* const*>(region_starts_.data()), most_bytes);
  }

  Result<void> exchange(device::cuda::Stream& stream, std::span<const Piece> out,
                        std::span<const Piece> in) override {
    transfer(stream, out, in);
    return state();
  }

  Result<void> state() const override {
    FATHOM_TRY(me_.world->peers->state());
    FATHOM_TRY(host_->state());
    const std::shared_lock lock(me_.world->comms->calls());
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
  // NCCL connects two ranks when they first send, which it cannot do while a graph is captured. Then what an
  // exchange takes is measured.
  Result<void> connect() {
    FATHOM_ASSIGN(const auto gpu, device::cuda::open_gpu(me_.gpu));
    FATHOM_ASSIGN(const auto stream, device::cuda::Stream::create(gpu));
    FATHOM_ASSIGN(auto begun, device::cuda::Event::create(true));
    FATHOM_ASSIGN(auto done, device::cuda::Event::create(true));
    const auto exchange_bytes = [&](int64_t bytes) {
      clear_pieces();
      for (int r = 0; r < size(); ++r) {
        if (r == rank_) continue;
        out_.push_back({r, me_.boxes->out.data(), bytes});
        in_.push_back({r, static_cast<std::byte*>(me_.boxes->in.data()) + r * bytes, bytes});
      }
      transfer(*stream, out_, in_);
    };
    // In a graph, as most are: the host takes longer to queue one than the GPUs for it.
    constexpr int kTimes = 16;
    const auto seconds = [&](int64_t bytes) -> Result<double> {
      FATHOM_ASSIGN(auto graph, device::cuda::Graph::capture(*stream, [&] {
                      for (int i = 0; i < kTimes; ++i) exchange_bytes(bytes);
                    }));
      graph.launch(*stream);  // whoever is late has come
      stream->record(begun);
      graph.launch(*stream);
      stream->record(done);
      FATHOM_TRY(stream->synchronize());
      FATHOM_TRY(state());
      FATHOM_ASSIGN(const double all, done.seconds_since(begun));
      return all / kTimes;
    };
    exchange_bytes(16);
    FATHOM_TRY(stream->synchronize());
    FATHOM_TRY(state());
    const int64_t large = std::min(kProbeBytes, me_.boxes->in_bytes / size() / 16 * 16);
    Network mine;
    FATHOM_ASSIGN(mine.latency, seconds(16));
    FATHOM_ASSIGN(const double longer, seconds(large));
    mine.per_byte = std::max(0.0, longer - mine.latency) / static_cast<double>(large * (size() - 1));
    // All must choose alike.
    std::vector<Network> all(static_cast<size_t>(size()));
    FATHOM_TRY(host_->all_gather(&mine, std::vector<int64_t>(all.size(), sizeof(Network)), all.data()));
    for (const Network& theirs : all) {
      network_.latency = std::max(network_.latency, theirs.latency);
      network_.per_byte = std::max(network_.per_byte, theirs.per_byte);
    }
    if (rank_ == 0) {
      LOG_INFO("between {} GPUs of several nodes an exchange takes {:.1f} us, and each sends {:.1f} GB/s",
               size(), network_.latency * 1e6, network_.per_byte > 0 ? 1e-9 / network_.per_byte : 0.0);
    }
    return {};
  }

  static constexpr int64_t kProbeBytes = int64_t{4} << 20;
  static constexpr size_t kMostRegions = 1024;
  struct Region {
    std::byte* begin;
    int64_t bytes;
  };
  struct Place {
    int region;
    int64_t offset;
  };

  // Of the next transfer; their memory is taken again by each op, so that none asks for more.
  void clear_pieces() {
    out_.clear();
    in_.clear();
  }
  // Rows `range` of those at `data`, for rank `r` or from it.
  static void add_rows(std::vector<Piece>& pieces, int r, void* data, RowRange range, int64_t row_bytes) {
    pieces.push_back(
        {r, static_cast<std::byte*>(data) + range.first * row_bytes, (range.end - range.first) * row_bytes});
  }
  void* box(const ReceivedRows& received, int r) const {
    return static_cast<std::byte*>(me_.boxes->in.data()) + r * received.box_bytes;
  }

  bool ended() const { return me_.world->comms->ended(); }
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
  void gather_shares(device::cuda::Stream& stream, const Matrix& y, int64_t cut) {
    if (y.stride == y.columns) return send_shares(stream, y, cut, 0, size());
    const RowRange mine = share_of_rows(y.rows, cut, rank_, size());
    gather(stream, y.row_range(mine.first, mine.end), share_of_rows(y.rows, cut, 0, size()).end * y.columns);
  }

  // Those of the `lanes` ranks from `first` on, to each other.
  void send_shares(device::cuda::Stream& stream, const Matrix& y, int64_t cut, int first, int lanes) {
    const int64_t row_bytes = y.columns * device::size_of(y.dtype);
    const RowRange mine = share_of_rows(y.rows, cut, rank_ - first, lanes);
    clear_pieces();
    for (int lane = 0; lane < lanes; ++lane) {
      if (first + lane == rank_) continue;
      add_rows(out_, first + lane, y.data, mine, row_bytes);
      add_rows(in_, first + lane, y.data, share_of_rows(y.rows, cut, lane, lanes), row_bytes);
    }
    transfer(stream, out_, in_);
  }

  void transfer(device::cuda::Stream& stream, std::span<const Piece> out, std::span<const Piece> in) {
    const Nccl& nccl = me_.world->nccl;
    const std::shared_lock lock(me_.world->comms->calls());
    if (ended()) return;
    int result = nccl.group_start();
    for (const Piece& to : out) {
      if (to.bytes > 0 && result == Nccl::kSuccess)
        result =
            nccl.send(to.data, static_cast<size_t>(to.bytes), Nccl::kBytes, to.rank, comm_, stream.handle());
    }
    for (const Piece& from : in) {
      if (from.bytes > 0 && result == Nccl::kSuccess) {
        result = nccl.recv(from.data, static_cast<size_t>(from.bytes), Nccl::kBytes, from.rank, comm_,
                           stream.handle());
      }
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
  Network network_;
  std::vector<Piece> out_, in_;
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
  auto peers = PeerWorld::create(names, options.gpus, options.timeout);
  if (!peers.ok()) return fail(peers.error());
  if (const auto enabled = enable_peers(options.gpus); !enabled.ok()) return fail(enabled.error());
  LOG_INFO("GPUs of several nodes: NCCL {}.{}.{}", (*nccl)->version / 10000, (*nccl)->version / 100 % 100,
           (*nccl)->version % 100);
  const auto world = std::make_shared<NcclWorld>(**nccl, *peers, options.timeout);
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
