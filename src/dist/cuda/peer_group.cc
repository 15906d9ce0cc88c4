#include "dist/cuda/peer_group.h"

#include <algorithm>
#include <atomic>
#include <mutex>
#include <thread>

#include "device/cuda/memory.h"
#include "dist/cuda/kernels.h"
#include "dist/thread_group.h"
#include "ops/quantize/cuda.h"

namespace fathom::dist::cuda {

using device::cuda::DeviceBuffer;

struct PeerWorld::Inside {
  std::vector<int> names;
  // Whether any GPU has several ranks: all choose their ways, and their blocks that meet, alike.
  bool gpus_are_shared = false;
  std::chrono::milliseconds timeout{};
  FaultBoard* board = nullptr;
  mutable std::mutex mutex;
  bool ended = false;
  Error error;

  uint32_t waited(size_t id) const {
    return std::atomic_ref<uint32_t>(board->waited[id]).load(std::memory_order_acquire);
  }
};

namespace {

const char* to_string(uint32_t op) {
  return static_cast<Op>(op) == Op::kSum ? "a sum" : "a gather";
}

constexpr size_t kFlagBytes = sizeof(uint32_t) * kPhases * kMostBlocks * kMostRanks;

}  // namespace

Result<void> enable_peers(const std::vector<int>& gpus) {
  for (const int from : gpus) {
    FATHOM_TRY(device::cuda::check(cudaSetDevice(from), "cudaSetDevice"));
    for (const int to : gpus) {
      if (from == to) continue;
      int possible = 0;
      FATHOM_TRY(
          device::cuda::check(cudaDeviceCanAccessPeer(&possible, from, to), "cudaDeviceCanAccessPeer"));
      if (possible == 0) {
        return error(ErrorCode::kUnsupported,
                     "GPU {} cannot reach the memory of GPU {}: several GPUs need NVLink or PCIe peer access",
                     from, to);
      }
      const cudaError_t enabled = cudaDeviceEnablePeerAccess(to, 0);
      if (enabled == cudaErrorPeerAccessAlreadyEnabled) {
        cudaGetLastError();  // must not come back from the next call
      } else {
        FATHOM_TRY(device::cuda::check(enabled, "cudaDeviceEnablePeerAccess"));
      }
    }
  }
  return {};
}

PeerWorld::PeerWorld(std::unique_ptr<Inside> inside) : inside_(std::move(inside)) {}
PeerWorld::~PeerWorld() {
  if (inside_->board != nullptr) cudaFreeHost(inside_->board);
}

Result<std::shared_ptr<PeerWorld>> PeerWorld::create(std::vector<int> names, std::vector<int> gpus,
                                                     std::chrono::milliseconds timeout) {
  if (names.size() > static_cast<size_t>(kMostRanks)) {
    return error(ErrorCode::kUnsupported, "{} GPUs: one process has at most {}", names.size(), kMostRanks);
  }
  auto inside = std::make_unique<Inside>();
  inside->names = std::move(names);
  std::sort(gpus.begin(), gpus.end());
  inside->gpus_are_shared = std::adjacent_find(gpus.begin(), gpus.end()) != gpus.end();
  inside->timeout = timeout;
  FATHOM_TRY(device::cuda::check(cudaHostAlloc(reinterpret_cast<void**>(&inside->board), sizeof(FaultBoard),
                                               cudaHostAllocPortable | cudaHostAllocMapped),
                                 "cudaHostAlloc"));
  *inside->board = {};
  return std::shared_ptr<PeerWorld>(new PeerWorld(std::move(inside)));
}

void PeerWorld::end(Error error) {
  {
    const std::lock_guard lock(inside_->mutex);
    if (!inside_->ended) {
      inside_->ended = true;
      inside_->error = std::move(error);
    }
  }
  std::atomic_ref<uint32_t>(inside_->board->ended).store(1, std::memory_order_release);
}

Result<void> PeerWorld::state() const {
  {
    const std::lock_guard lock(inside_->mutex);
    if (inside_->ended) return inside_->error;
  }
  for (size_t id = 0; id < inside_->names.size(); ++id) {
    const uint32_t waited = inside_->waited(id);
    if (waited == 0) continue;
    return error(ErrorCode::kDeadlineExceeded, "rank {} waited {:.1f} s on its GPU in {}, held up by rank {}",
                 inside_->names[id], std::chrono::duration<double>(inside_->timeout).count(),
                 to_string(waited / 16), inside_->names[waited % 16 - 1]);
  }
  return {};
}

struct PeerGroup::State {
  // Memory that all ranks gave together.
  struct Region {
    std::byte* begin;
    int64_t bytes;
    Everywhere everywhere;
  };

  std::shared_ptr<PeerWorld> world;
  std::unique_ptr<Group> host;
  int gpu = 0;
  DeviceBuffer inbox, flags, progress;
  PeerView peers;
  std::vector<Region> regions;

  bool gpus_are_shared() const { return world->inside_->gpus_are_shared; }
  // Where `data` lies on every rank.
  Everywhere everywhere(const void* data) const {
    const auto* at = static_cast<const std::byte*>(data);
    // The latest first: memory that was given before may have been given back.
    for (auto region = regions.rbegin(); region != regions.rend(); ++region) {
      if (at < region->begin || at >= region->begin + region->bytes) continue;
      Everywhere found;
      for (int r = 0; r < peers.size; ++r)
        found.at[r] = static_cast<std::byte*>(region->everywhere.at[r]) + (at - region->begin);
      return found;
    }
    FATHOM_CHECK(false, "{} is not in memory that the ranks share", data);
    return {};
  }
};

PeerGroup::PeerGroup(std::unique_ptr<State> state) : state_(std::move(state)) {}
PeerGroup::~PeerGroup() = default;

Result<void> PeerGroup::allocate(bool posts) {
  State& s = *state_;
  FATHOM_TRY(device::cuda::check(cudaSetDevice(s.gpu), "cudaSetDevice"));
  FATHOM_ASSIGN(s.flags, DeviceBuffer::allocate(kFlagBytes));
  FATHOM_ASSIGN(s.progress, DeviceBuffer::allocate(sizeof(Progress)));
  FATHOM_TRY(device::cuda::check(cudaMemset(s.flags.data(), 0, kFlagBytes), "fill"));
  FATHOM_TRY(device::cuda::check(cudaMemset(s.progress.data(), 0, sizeof(Progress)), "fill"));
  if (s.gpus_are_shared()) {
    int multiprocessors = 0;
    FATHOM_TRY(device::cuda::check(
        cudaDeviceGetAttribute(&multiprocessors, cudaDevAttrMultiProcessorCount, s.gpu), "attribute"));
    s.peers.most_blocks = multiprocessors / kMostRanks;
  }
  if (posts && s.host->size() > 1) {
    const size_t bytes = kSlots * static_cast<size_t>(s.host->size()) * static_cast<size_t>(kMostPostBytes);
    FATHOM_ASSIGN(s.inbox, DeviceBuffer::allocate(bytes));
    FATHOM_TRY(device::cuda::check(cudaMemset(s.inbox.data(), 0xff, bytes), "fill"));
  }
  return device::cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

Result<void> PeerGroup::meet(int id) {
  State& s = *state_;
  // What the others know of a rank.
  struct Seat {
    int id;
    uint32_t *inbox, *flags;
  };
  const Seat mine{id, static_cast<uint32_t*>(s.inbox.data()), static_cast<uint32_t*>(s.flags.data())};
  std::vector<Seat> seats(static_cast<size_t>(s.host->size()));
  const std::vector<int64_t> sizes(seats.size(), sizeof(Seat));
  FATHOM_TRY(s.host->all_gather(&mine, sizes, seats.data()));
  s.peers.rank = s.host->rank();
  s.peers.size = s.host->size();
  s.peers.progress = static_cast<Progress*>(s.progress.data());
  s.peers.box_words = s.inbox.data() != nullptr ? kMostPostBytes / static_cast<int64_t>(sizeof(uint32_t)) : 0;
  s.peers.fault = s.world->inside_->board;
  s.peers.timeout_ns = static_cast<uint64_t>(s.world->inside_->timeout.count()) * 1'000'000U;
  for (size_t r = 0; r < seats.size(); ++r) {
    s.peers.ids[r] = seats[r].id;
    s.peers.inbox[r] = seats[r].inbox;
    s.peers.flags[r] = seats[r].flags;
  }
  return {};
}

Result<std::unique_ptr<PeerGroup>> PeerGroup::make(std::shared_ptr<PeerWorld> world,
                                                   std::unique_ptr<Group> host, int gpu, int id, bool posts) {
  FATHOM_CHECK(host->size() <= kMostRanks, "{} ranks", host->size());
  auto state = std::make_unique<State>();
  state->world = std::move(world);
  state->host = std::move(host);
  state->gpu = gpu;
  std::unique_ptr<PeerGroup> group(new PeerGroup(std::move(state)));
  FATHOM_TRY(group->allocate(posts));
  FATHOM_TRY(group->meet(id));
  return group;
}

Result<std::vector<std::unique_ptr<GpuGroup>>> GpuGroup::create(const GpuGroupOptions& options) {
  const auto size = static_cast<int>(options.gpus.size());
  FATHOM_CHECK(size >= 1, "a group of {}", size);
  std::vector<int> names(options.gpus.size());
  for (int rank = 0; rank < size; ++rank) names[static_cast<size_t>(rank)] = rank;
  FATHOM_ASSIGN(const auto world, PeerWorld::create(std::move(names), options.gpus, options.timeout));
  FATHOM_TRY(enable_peers(options.gpus));
  auto hosts = make_thread_groups(size, options.timeout);
  // They meet, each on a thread.
  std::vector<std::optional<Result<std::unique_ptr<PeerGroup>>>> made(hosts.size());
  std::vector<std::thread> threads;
  for (size_t rank = 0; rank < hosts.size(); ++rank) {
    threads.emplace_back([&, rank] {
      made[rank] = PeerGroup::make(world, std::move(hosts[rank]), options.gpus[rank], static_cast<int>(rank),
                                   options.posts);
    });
  }
  for (auto& thread : threads) thread.join();
  std::vector<std::unique_ptr<GpuGroup>> groups;
  for (auto& group : made) {
    if (!group->ok()) return group->error();
    groups.push_back(std::move(**group));
  }
  return groups;
}

Result<std::unique_ptr<GpuGroup>> PeerGroup::split(int colour, const std::string& name, bool posts) {
  FATHOM_ASSIGN(auto host, state_->host->split(colour, name));
  FATHOM_ASSIGN(auto part, make(state_->world, std::move(host), state_->gpu,
                                state_->peers.ids[state_->peers.rank], posts));
  return std::unique_ptr<GpuGroup>(std::move(part));
}

int PeerGroup::rank() const {
  return state_->peers.rank;
}
int PeerGroup::size() const {
  return state_->peers.size;
}
int PeerGroup::gpu() const {
  return state_->gpu;
}
Group& PeerGroup::host() {
  return *state_->host;
}

Result<void> PeerGroup::share(void* data, int64_t bytes) {
  struct Given {
    void* data;
    int64_t bytes;
  };
  const Given mine{data, bytes};
  std::vector<Given> all(static_cast<size_t>(size()));
  const std::vector<int64_t> sizes(all.size(), sizeof(Given));
  FATHOM_TRY(host().all_gather(&mine, sizes, all.data()));
  State::Region region{static_cast<std::byte*>(data), bytes, {}};
  for (size_t r = 0; r < all.size(); ++r) {
    FATHOM_CHECK(all[r].bytes == bytes, "rank {} shares {} bytes, rank {} {}", rank(), bytes, r,
                 all[r].bytes);
    region.everywhere.at[r] = all[r].data;
  }
  state_->regions.push_back(region);
  return {};
}

namespace {

// Up to so many bytes rows are sent at once: above, a meeting's fewer bytes win (README.md). Between two
// H100s a float32 sum takes as long either way at 48 rows of 7168, a bfloat16 one at about 290.
constexpr int64_t kPostBytes = int64_t{1400} << 10;
constexpr int64_t kPostBytesBf16 = int64_t{4000} << 10;

}  // namespace

Way PeerGroup::way_of(const SumArgs& args, int size) const {
  const int64_t bytes = cut_of(args) * args.rows.columns * device::size_of(args.rows.dtype);
  const int64_t most = args.rows.dtype == device::DType::kBF16 ? kPostBytesBf16 : kPostBytes;
  // A post has a block a row.
  const bool has_room = !state_->gpus_are_shared() || cut_of(args) <= state_->peers.most_blocks;
  return has_room && bytes <= most / (size - 1) ? Way::kPost : Way::kMeet;
}

RowRange share_of_rows(int64_t rows, int64_t cut, int rank, int size) {
  const int64_t each = (cut + size - 1) / size;
  return {std::min(rows, each * rank), std::min(rows, each * (rank + 1))};
}

void check_sum(const SumArgs& args, int size) {
  const ops::cuda::Matrix& rows = args.rows;
  FATHOM_CHECK(size > 1, "a sum of one rank");
  FATHOM_CHECK(rows.columns > 0 && rows.columns % 8 == 0 && rows.stride == rows.columns,
               "rows of {} columns, {} apart", rows.columns, rows.stride);
  FATHOM_CHECK(args.y.rows == rows.rows && args.y.columns == rows.columns, "y [{}, {}] of rows [{}, {}]",
               args.y.rows, args.y.columns, rows.rows, rows.columns);
}

void check_own(const SumArgs& args, const OwnRows& own, int size) {
  check_sum(args, size);
  FATHOM_CHECK(size % own.lanes == 0 && args.rows.rows <= own.most, "{} rows of {}, {} lanes of {}",
               args.rows.rows, own.most, own.lanes, size);
  FATHOM_CHECK(!own.shared_out || args.y.stride == args.y.columns, "y strided by {}", args.y.stride);
}

std::optional<RowRange> PeerGroup::share_of(const SumArgs& args) const {
  const PeerView& peers = state_->peers;
  const Way way = args.way == Way::kAuto ? way_of(args, peers.size) : args.way;
  if (peers.box_words > 0 && way == Way::kPost) return std::nullopt;
  return share_of_rows(args.rows.rows, cut_of(args), peers.rank, peers.size);
}

void PeerGroup::sum_own(device::cuda::Stream& stream, const SumArgs& args, const OwnRows& own) {
  const State& s = *state_;
  const int64_t count = args.rows.rows;
  check_own(args, own, s.peers.size);
  if (own.most == 0) return;
  const int lane = s.peers.rank % own.lanes;
  RowRange mine{0, count};
  Everywhere y;
  SumArgs whole = args;
  if (own.shared_out) {
    mine = share_of_rows(count, own.most, lane, own.lanes);
    whole.rounded = {};  // others write the rest of y
    if (count > 0) {
      const Everywhere all = s.everywhere(args.y.data);
      const int first = s.peers.rank - lane;
      std::copy_n(all.at + first, own.lanes, y.at + first);
    }
  }
  y.at[s.peers.rank] = args.y.data;
  sum_by_meeting(stream, s.peers, whole, s.everywhere(args.rows.data), y,
                 {.first = mine.first, .end = mine.end, .most = own.most});
  if (own.shared_out && args.rounded.values != nullptr && count > 0)
    ops::cuda::quantize(stream, {.x = args.y, .y = args.rounded});
}

void PeerGroup::sum(device::cuda::Stream& stream, const SumArgs& args) {
  const State& s = *state_;
  const ops::cuda::Matrix& rows = args.rows;
  check_sum(args, s.peers.size);
  if (rows.rows == 0) return;
  const auto mine = share_of(args);
  if (args.answers && (mine || !adds_answers(args))) ops::cuda::expert_combine(stream, *args.answers);
  if (!mine) return sum_by_post(stream, s.peers, args);
  SumArgs whole = args;
  whole.rounded = {};  // a rank writes its share of y alone, for all
  sum_by_meeting(stream, s.peers, whole, s.everywhere(rows.data), s.everywhere(args.y.data),
                 {.first = mine->first,
                  .end = mine->end,
                  .most = share_of_rows(rows.rows, cut_of(args), 0, s.peers.size).end});
  if (args.rounded.values != nullptr) ops::cuda::quantize(stream, {.x = args.y, .y = args.rounded});
}

void PeerGroup::gather(device::cuda::Stream& stream, const ops::cuda::Matrix& part, int64_t most,
                       RankRange senders) {
  FATHOM_CHECK(part.rows * part.columns <= most, "a part of {} x {} values, most {}", part.rows, part.columns,
               most);
  FATHOM_CHECK(part.rows == 0 || (rank() >= senders.first && rank() < senders.end),
               "rank {} has a part; the senders are [{}, {})", rank(), senders.first, senders.end);
  if (most == 0) return;
  gather_parts(stream, state_->peers, part, state_->everywhere(part.data), most);
}

Result<void> PeerGroup::exchange(device::cuda::Stream& stream, std::span<const Piece> out,
                                 std::span<const Piece> in) {
  // Everyone learns where what it is to get lies, once it is there.
  FATHOM_TRY(stream.synchronize());
  const auto count = static_cast<size_t>(size());
  std::vector<std::vector<void*>> offers(count), offered(count);
  for (const Piece& piece : out) offers[static_cast<size_t>(piece.rank)].push_back(piece.data);
  for (const Piece& piece : in) offered[static_cast<size_t>(piece.rank)].push_back(nullptr);
  std::vector<Outgoing> send;
  std::vector<Incoming> receive;
  const auto bytes = [](const std::vector<void*>& pointers) {
    return static_cast<int64_t>(pointers.size() * sizeof(void*));
  };
  for (size_t r = 0; r < count; ++r) {
    send.push_back({offers[r].data(), bytes(offers[r])});
    receive.push_back({offered[r].data(), bytes(offered[r])});
  }
  FATHOM_TRY(host().all_to_all(send, receive));
  std::vector<size_t> taken(count, 0);
  for (const Piece& piece : in) {
    const auto from = static_cast<size_t>(piece.rank);
    stream.copy(piece.data, offered[from][taken[from]++], static_cast<size_t>(piece.bytes));
  }
  FATHOM_TRY(stream.synchronize());
  return host().barrier();
}

Result<void> PeerGroup::state() const {
  FATHOM_TRY(state_->world->state());
  return state_->host->state();
}

void PeerGroup::abort(Error error) {
  state_->world->end(error);
  state_->host->abort(std::move(error));
}

}  // namespace fathom::dist::cuda
