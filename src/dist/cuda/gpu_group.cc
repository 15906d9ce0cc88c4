#include "dist/cuda/gpu_group.h"

#include <algorithm>
#include <atomic>
#include <mutex>

#include "device/cuda/memory.h"
#include "dist/cuda/kernels.h"
#include "dist/thread_group.h"
#include "ops/quantize/cuda.h"

namespace fathom::dist::cuda {
namespace {

using device::cuda::DeviceBuffer;

// What all ranks of a group share on the host.
struct World {
  World(int size_in, std::chrono::milliseconds timeout_in) : size(size_in), timeout(timeout_in) {}
  ~World() {
    if (board != nullptr) cudaFreeHost(board);
  }
  World(const World&) = delete;
  World& operator=(const World&) = delete;

  const int size;
  const std::chrono::milliseconds timeout;
  FaultBoard* board = nullptr;
  std::mutex mutex;
  bool aborted = false;
  Error error;

  uint32_t waited(int rank) const {
    return std::atomic_ref<uint32_t>(board->waited[rank]).load(std::memory_order_acquire);
  }
};

const char* to_string(uint32_t op) {
  return static_cast<Op>(op) == Op::kSum ? "a sum" : "a gather";
}

// Every GPU of `gpus` may use the memory of every other one.
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

constexpr size_t kFlagBytes = sizeof(uint32_t) * kPhases * kMostBlocks * kMostRanks;

}  // namespace

struct GpuGroup::State {
  // Memory that all ranks gave together.
  struct Region {
    std::byte* begin;
    int64_t bytes;
    Everywhere everywhere;
  };

  std::shared_ptr<World> world;
  std::unique_ptr<Group> host;
  int gpu = 0;
  DeviceBuffer inbox, flags, progress;
  PeerView peers;
  std::vector<Region> regions;

  // What the others know of a rank.
  struct Seat {
    int id;
    uint32_t *inbox, *flags;
  };
  // `host` and `gpu` are there.
  Result<void> allocate(bool posts);
  Seat seat(int id) const;
  void meet(std::span<const Seat> seats);

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

GpuGroup::GpuGroup(std::unique_ptr<State> state) : state_(std::move(state)) {}
GpuGroup::~GpuGroup() = default;

Result<void> GpuGroup::State::allocate(bool posts) {
  FATHOM_TRY(device::cuda::check(cudaSetDevice(gpu), "cudaSetDevice"));
  FATHOM_ASSIGN(flags, DeviceBuffer::allocate(kFlagBytes));
  FATHOM_ASSIGN(progress, DeviceBuffer::allocate(sizeof(Progress)));
  FATHOM_TRY(device::cuda::check(cudaMemset(flags.data(), 0, kFlagBytes), "fill"));
  FATHOM_TRY(device::cuda::check(cudaMemset(progress.data(), 0, sizeof(Progress)), "fill"));
  if (posts) {
    const size_t bytes = kSlots * static_cast<size_t>(host->size()) * static_cast<size_t>(kMostPostBytes);
    FATHOM_ASSIGN(inbox, DeviceBuffer::allocate(bytes));
    FATHOM_TRY(device::cuda::check(cudaMemset(inbox.data(), 0xff, bytes), "fill"));
  }
  return device::cuda::check(cudaDeviceSynchronize(), "cudaDeviceSynchronize");
}

GpuGroup::State::Seat GpuGroup::State::seat(int id) const {
  return {id, static_cast<uint32_t*>(inbox.data()), static_cast<uint32_t*>(flags.data())};
}

void GpuGroup::State::meet(std::span<const Seat> seats) {
  peers.rank = host->rank();
  peers.size = host->size();
  peers.progress = static_cast<Progress*>(progress.data());
  peers.box_words = inbox.data() != nullptr ? kMostPostBytes / static_cast<int64_t>(sizeof(uint32_t)) : 0;
  peers.fault = world->board;
  peers.timeout_ns = static_cast<uint64_t>(world->timeout.count()) * 1'000'000U;
  for (size_t r = 0; r < seats.size(); ++r) {
    peers.ids[r] = seats[r].id;
    peers.inbox[r] = seats[r].inbox;
    peers.flags[r] = seats[r].flags;
  }
}

Result<std::vector<std::unique_ptr<GpuGroup>>> GpuGroup::create(const GpuGroupOptions& options) {
  const auto size = static_cast<int>(options.gpus.size());
  FATHOM_CHECK(size >= 1, "a group of {}", size);
  if (size > kMostRanks) {
    return error(ErrorCode::kUnsupported, "{} GPUs: a group of one process has at most {}", size, kMostRanks);
  }
  FATHOM_TRY(enable_peers(options.gpus));
  const auto world = std::make_shared<World>(size, options.timeout);
  FATHOM_TRY(device::cuda::check(cudaHostAlloc(reinterpret_cast<void**>(&world->board), sizeof(FaultBoard),
                                               cudaHostAllocPortable | cudaHostAllocMapped),
                                 "cudaHostAlloc"));
  *world->board = {};

  auto hosts = make_thread_groups(size, options.timeout);
  std::vector<std::unique_ptr<State>> states;
  std::vector<State::Seat> seats;
  for (int rank = 0; rank < size; ++rank) {
    auto state = std::make_unique<State>();
    state->world = world;
    state->host = std::move(hosts[static_cast<size_t>(rank)]);
    state->gpu = options.gpus[static_cast<size_t>(rank)];
    FATHOM_TRY(state->allocate(options.posts));
    seats.push_back(state->seat(rank));
    states.push_back(std::move(state));
  }
  std::vector<std::unique_ptr<GpuGroup>> groups;
  for (auto& state : states) {
    state->meet(seats);
    groups.push_back(std::unique_ptr<GpuGroup>(new GpuGroup(std::move(state))));
  }
  return groups;
}

Result<std::unique_ptr<GpuGroup>> GpuGroup::split(int colour, const std::string& name, bool posts) {
  auto part = std::make_unique<State>();
  part->world = state_->world;
  part->gpu = state_->gpu;
  FATHOM_ASSIGN(part->host, state_->host->split(colour, name));
  FATHOM_TRY(part->allocate(posts && part->host->size() > 1));
  const State::Seat mine = part->seat(state_->peers.ids[state_->peers.rank]);
  std::vector<State::Seat> seats(static_cast<size_t>(part->host->size()));
  const std::vector<int64_t> sizes(seats.size(), sizeof(State::Seat));
  FATHOM_TRY(part->host->all_gather(&mine, sizes, seats.data()));
  part->meet(seats);
  return std::unique_ptr<GpuGroup>(new GpuGroup(std::move(part)));
}

int GpuGroup::rank() const {
  return state_->peers.rank;
}
int GpuGroup::size() const {
  return state_->peers.size;
}
int GpuGroup::gpu() const {
  return state_->gpu;
}
Group& GpuGroup::host() {
  return *state_->host;
}

Result<void> GpuGroup::share(void* data, int64_t bytes) {
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

bool goes_by_post(const SumArgs& args, const PeerView& peers) {
  if (peers.box_words == 0) return false;
  if (args.way != Way::kAuto) return args.way == Way::kPost;
  const int64_t bytes = args.rows.rows * args.rows.columns * device::size_of(args.rows.dtype);
  const int64_t most = args.rows.dtype == device::DType::kBF16 ? kPostBytesBf16 : kPostBytes;
  return bytes <= most / (peers.size - 1);
}

}  // namespace

namespace {

void check_sum(const SumArgs& args, const PeerView& peers) {
  const ops::cuda::Matrix& rows = args.rows;
  FATHOM_CHECK(peers.size > 1, "a sum of one rank");
  FATHOM_CHECK(rows.columns > 0 && rows.columns % 8 == 0 && rows.stride == rows.columns,
               "rows of {} columns, {} apart", rows.columns, rows.stride);
  FATHOM_CHECK(args.y.rows == rows.rows && args.y.columns == rows.columns, "y [{}, {}] of rows [{}, {}]",
               args.y.rows, args.y.columns, rows.rows, rows.columns);
}

}  // namespace

std::optional<RowRange> GpuGroup::share_of(const SumArgs& args) const {
  const PeerView& peers = state_->peers;
  if (goes_by_post(args, peers)) return std::nullopt;
  const int64_t rows = args.rows.rows;
  const int64_t each = (rows + peers.size - 1) / peers.size;
  return RowRange{std::min(rows, each * peers.rank), std::min(rows, each * (peers.rank + 1))};
}

void GpuGroup::sum_own(device::cuda::Stream& stream, const SumArgs& args, int64_t most, RowRange mine,
                       std::span<const int> to) {
  const State& s = *state_;
  check_sum(args, s.peers);
  FATHOM_CHECK(args.rows.rows <= most && mine.end <= args.rows.rows, "rows [{}, {}) of {}, most {}",
               mine.first, mine.end, args.rows.rows, most);
  if (most == 0) return;
  Everywhere y;
  if (!to.empty() && args.rows.rows > 0) {
    const Everywhere all = s.everywhere(args.y.data);
    for (const int rank : to) y.at[rank] = all.at[rank];
  }
  y.at[s.peers.rank] = args.y.data;
  SumArgs whole = args;
  if (!to.empty()) whole.rounded = {};  // others write the rest of y
  sum_by_meeting(stream, s.peers, whole, s.everywhere(args.rows.data), y,
                 {.first = mine.first, .end = mine.end, .most = most});
  if (!to.empty() && args.rounded.values != nullptr && args.rows.rows > 0)
    ops::cuda::quantize(stream, {.x = args.y, .y = args.rounded});
}

void GpuGroup::sum(device::cuda::Stream& stream, const SumArgs& args) {
  const State& s = *state_;
  const ops::cuda::Matrix& rows = args.rows;
  check_sum(args, s.peers);
  if (rows.rows == 0) return;
  const auto mine = share_of(args);
  if (!mine) return sum_by_post(stream, s.peers, args);
  SumArgs whole = args;
  whole.rounded = {};  // a rank writes its share of y alone, for all
  sum_by_meeting(
      stream, s.peers, whole, s.everywhere(rows.data), s.everywhere(args.y.data),
      {.first = mine->first, .end = mine->end, .most = (rows.rows + s.peers.size - 1) / s.peers.size});
  if (args.rounded.values != nullptr) ops::cuda::quantize(stream, {.x = args.y, .y = args.rounded});
}

void GpuGroup::gather(device::cuda::Stream& stream, const ops::cuda::Matrix& part, int64_t most) {
  FATHOM_CHECK(part.rows * part.columns <= most, "a part of {} x {} values, most {}", part.rows, part.columns,
               most);
  if (most == 0) return;
  gather_parts(stream, state_->peers, part, state_->everywhere(part.data), most);
}

Result<void> GpuGroup::state() const {
  World& world = *state_->world;
  {
    const std::lock_guard lock(world.mutex);
    if (world.aborted) return world.error;
  }
  for (int r = 0; r < world.size; ++r) {
    const uint32_t waited = world.waited(r);
    if (waited == 0) continue;
    return error(ErrorCode::kDeadlineExceeded, "rank {} waited {:.1f} s on its GPU in {}, held up by rank {}",
                 r, std::chrono::duration<double>(world.timeout).count(), to_string(waited / 16),
                 waited % 16 - 1);
  }
  return state_->host->state();
}

void GpuGroup::abort(Error error) {
  World& world = *state_->world;
  {
    const std::lock_guard lock(world.mutex);
    if (!world.aborted) {
      world.aborted = true;
      world.error = error;
    }
  }
  std::atomic_ref<uint32_t>(world.board->ended).store(1, std::memory_order_release);
  state_->host->abort(std::move(error));
}

}  // namespace fathom::dist::cuda
