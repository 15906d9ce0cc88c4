#include "dist/thread_group.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <utility>

#include "base/math.h"
#include "dist/reduce.h"
#include "dist/thread_world.h"

namespace fathom::dist {
namespace {

using Kind = Call::Kind;

// A rank's share of a sum is whole cache lines.
constexpr int64_t kShare = 32;

void copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

const std::byte* at(const void* data, int64_t bytes) {
  return static_cast<const std::byte*>(data) + bytes;
}
std::byte* at(void* data, int64_t bytes) {
  return static_cast<std::byte*>(data) + bytes;
}

class ThreadGroup final : public Group {
 public:
  ThreadGroup(std::shared_ptr<Meeting> meeting, int rank) : meeting_(std::move(meeting)), rank_(rank) {}
  ~ThreadGroup() override {
    me().gone.store(true);
    meeting_->world->ring();
  }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(meeting_->members.size()); }

  Result<void> all_reduce(void* data, int64_t count, device::DType dtype) override {
    Call call(Kind::kAllReduce, dtype);
    call.count = count;
    call.receive = data;
    return together(call, [&] {
      // Each rank adds a share of the values for all: nobody else touches that share of any buffer.
      const int64_t share = round_up(ceil_div<int64_t>(count, size()), kShare);
      const int64_t begin = std::min(count, share * rank_);
      const int64_t end = std::min(count, begin + share);
      std::vector<const void*> in;
      std::vector<void*> out;
      for (const Member& member : meeting_->members) {
        in.push_back(member.call.receive);
        out.push_back(member.call.receive);
      }
      sum_into(in, out, begin, end, dtype);
    });
  }

  Result<void> all_gather(const void* send, std::span<const int64_t> bytes, void* receive) override {
    check_parts(bytes);
    Call call(Kind::kAllGather);
    call.parts = bytes;
    call.send = send;
    return together(call, [&] {
      int64_t offset = 0;
      for (size_t r = 0; r < bytes.size(); ++r) {
        copy(at(receive, offset), meeting_->members[r].call.send, bytes[r]);
        offset += bytes[r];
      }
    });
  }

  Result<void> reduce_scatter(const void* data, std::span<const int64_t> counts, device::DType dtype,
                              void* receive) override {
    check_parts(counts);
    Call call(Kind::kReduceScatter, dtype);
    call.parts = counts;
    call.send = data;
    return together(call, [&] {
      const int64_t before = std::accumulate(counts.begin(), counts.begin() + rank_, int64_t{0});
      std::vector<const void*> in;
      for (const Member& member : meeting_->members)
        in.push_back(at(member.call.send, before * device::size_of(dtype)));
      sum_into(in, {&receive, 1}, 0, counts[static_cast<size_t>(rank_)], dtype);
    });
  }

  Result<void> broadcast(void* data, int64_t bytes, int root) override {
    FATHOM_CHECK(root >= 0 && root < size(), "root={} size={}", root, size());
    Call call(Kind::kBroadcast);
    call.root = root;
    call.count = bytes;
    call.send = data;
    return together(call, [&] {
      if (rank_ != root) copy(data, meeting_->members[static_cast<size_t>(root)].call.send, bytes);
    });
  }

  Result<void> all_to_all(std::span<const Outgoing> send, std::span<const Incoming> receive) override {
    FATHOM_CHECK_EQ(static_cast<int>(send.size()), size());
    FATHOM_CHECK_EQ(static_cast<int>(receive.size()), size());
    Call call(Kind::kAllToAll);
    call.outgoing = send;
    call.incoming = receive;
    return together(call, [&] {
      for (size_t r = 0; r < receive.size(); ++r) {
        copy(receive[r].data, meeting_->members[r].call.outgoing[static_cast<size_t>(rank_)].data,
             receive[r].bytes);
      }
    });
  }

  Result<void> barrier() override {
    return together(Call(Kind::kBarrier), [] {});
  }

  Result<std::unique_ptr<Group>> split(int colour, const std::string& name) override {
    // Everyone offers a meeting of its colour; that of the lowest rank is taken.
    std::vector<int> colours(meeting_->members.size());
    const std::vector<int64_t> sizes(colours.size(), sizeof(int));
    FATHOM_TRY(all_gather(&colour, sizes, colours.data()));
    std::vector<int> world_ranks;
    int first = -1;
    int mine = 0;
    for (int r = 0; r < size(); ++r) {
      if (colours[static_cast<size_t>(r)] != colour) continue;
      if (first < 0) first = r;
      if (r == rank_) mine = static_cast<int>(world_ranks.size());
      world_ranks.push_back(meeting_->members[static_cast<size_t>(r)].world_rank);
    }
    auto offer = std::make_shared<Meeting>(meeting_->world, name, world_ranks);
    const std::shared_ptr<Meeting>* address = &offer;
    std::vector<const std::shared_ptr<Meeting>*> offers(colours.size());
    const std::vector<int64_t> pointers(colours.size(), sizeof(address));
    FATHOM_TRY(all_gather(&address, pointers, offers.data()));
    std::shared_ptr<Meeting> taken = *offers[static_cast<size_t>(first)];
    FATHOM_TRY(barrier());  // offers are read before they go
    return std::unique_ptr<Group>(std::make_unique<ThreadGroup>(std::move(taken), mine));
  }

  void abort(Error error) override { meeting_->world->fail(std::move(error)); }

  Result<void> state() const override {
    if (meeting_->world->failed.load()) return meeting_->world->error();
    return {};
  }

 private:
  Member& me() const { return meeting_->members[static_cast<size_t>(rank_)]; }

  void check_parts(std::span<const int64_t> parts) const {
    FATHOM_CHECK_EQ(static_cast<int>(parts.size()), size());
  }

  // `body` reads the others' calls and buffers, when all have come and agree.
  template <class Body>
  Result<void> together(const Call& call, const Body& body) {
    World& world = *meeting_->world;
    FATHOM_TRY(state());
    me().call = call;
    const uint64_t come = ++calls_ * 2 - 1;
    FATHOM_TRY(meeting_->meet(rank_, come));
    // In this order: whoever fails the world and sees nobody inside is seen by those who enter after.
    meeting_->inside.fetch_add(1);
    std::string apart;
    const bool entered = !world.failed.load();
    if (entered) apart = disagreement(call);
    if (entered && apart.empty()) body();
    meeting_->inside.fetch_sub(1);
    if (!apart.empty()) {
      world.fail(error(ErrorCode::kInternal, "the ranks disagree in {}: {}",
                       meeting_->describe(come, call.kind), apart));
    }
    if (!entered || !apart.empty()) return meeting_->leave();
    return meeting_->meet(rank_, come + 1);
  }

  std::string disagreement(const Call& call) const {
    for (size_t r = 0; r < meeting_->members.size(); ++r) {
      const Member& other = meeting_->members[r];
      std::string what = difference(call, other.call);
      if (what.empty() && call.kind == Kind::kAllToAll) {
        const int64_t sent = other.call.outgoing[static_cast<size_t>(rank_)].bytes;
        if (sent != call.incoming[r].bytes)
          what = fmt::format("{} bytes expected, {} sent", call.incoming[r].bytes, sent);
      }
      if (!what.empty())
        return fmt::format("rank {} and rank {}: {}", me().world_rank, other.world_rank, what);
    }
    return {};
  }

  const std::shared_ptr<Meeting> meeting_;
  const int rank_;
  uint64_t calls_ = 0;
};

}  // namespace

std::vector<std::unique_ptr<Group>> make_thread_groups(int size, std::chrono::milliseconds timeout) {
  FATHOM_CHECK_GE(size, 1);
  std::vector<int> ranks(static_cast<size_t>(size));
  std::iota(ranks.begin(), ranks.end(), 0);
  const auto meeting = std::make_shared<Meeting>(std::make_shared<World>(size, timeout), "world", ranks);
  std::vector<std::unique_ptr<Group>> groups;
  for (const int rank : ranks) groups.push_back(std::make_unique<ThreadGroup>(meeting, rank));
  return groups;
}

}  // namespace fathom::dist
