#include "dist/socket_group.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <thread>
#include <utility>

#include "base/math.h"
#include "base/random.h"
#include "dist/exchange.h"
#include "dist/reduce.h"

namespace fathom::dist {
namespace {

using Kind = Call::Kind;

// Up to so many bytes sent by a rank, every rank sends all its values to all others and adds for itself: one
// round. Above, each adds a share for everyone: two rounds, and 2 / N of the bytes.
constexpr int64_t kOneRound = 128 << 10;
// A rank's share of a sum is whole cache lines.
constexpr int64_t kShare = 32;
// A rank is seldom later than that when each has a processor of its own.
constexpr std::chrono::microseconds kPatience{50};

void copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}
const std::byte* at(const void* data, int64_t bytes) {
  return static_cast<const std::byte*>(data) + bytes;
}
std::byte* at(void* data, int64_t bytes) {
  return static_cast<std::byte*>(data) + bytes;
}
uint64_t digest(std::span<const int64_t> parts) {
  uint64_t digest = parts.size();
  for (const int64_t part : parts) digest = mix64(digest + static_cast<uint64_t>(part));
  return digest;
}

class SocketGroup final : public Group {
 public:
  SocketGroup(std::shared_ptr<RankLinks> links, uint64_t id, std::string name, std::vector<int> members)
      : links_(std::move(links)), id_(id), members_(std::move(members)) {
    rank_ = static_cast<int>(std::find(members_.begin(), members_.end(), links_->rank) - members_.begin());
    links_->groups[id] = std::move(name);
  }
  ~SocketGroup() override { links_->world->leave(id_, links_->rank, calls_); }

  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(members_.size()); }

  Result<void> all_reduce(void* data, int64_t count, device::DType dtype) override {
    FrameHeader header = begin(Kind::kAllReduce, dtype);
    header.count = static_cast<uint64_t>(count);
    const int64_t width = device::size_of(dtype);
    if (size() == 1) return state();
    if (size() == 2 || count * width * (size() - 1) <= kOneRound) return add_all(header, data, count, dtype);

    // The share of rank r begins at r * share.
    const int64_t share = round_up(ceil_div<int64_t>(count, size()), kShare);
    const auto first = [&](int rank) { return std::min(count, share * rank); };
    const int64_t begin = first(rank_);
    const int64_t mine = first(rank_ + 1) - begin;
    const int64_t bytes = mine * width;
    FATHOM_TRY(state());
    std::byte* others = scratch(bytes * (size() - 1));
    std::vector<const void*> in;
    Exchange shares(*links_, header);
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) {
        in.push_back(at(data, begin * width));
        continue;
      }
      shares.with(member(r), at(data, first(r) * width), (first(r + 1) - first(r)) * width, others, bytes);
      in.push_back(others);
      others += bytes;
    }
    FATHOM_TRY(shares.run());
    void* const sum = at(data, begin * width);
    if (mine > 0) sum_into(in, {&sum, 1}, 0, mine, dtype);
    header.phase = 1;
    Exchange sums(*links_, header);
    for (int r = 0; r < size(); ++r) {
      if (r != rank_)
        sums.with(member(r), sum, bytes, at(data, first(r) * width), (first(r + 1) - first(r)) * width);
    }
    return sums.run();
  }

  Result<void> all_gather(const void* send, std::span<const int64_t> bytes, void* receive) override {
    check_parts(bytes);
    FrameHeader header = begin(Kind::kAllGather);
    header.parts = digest(bytes);
    FATHOM_TRY(state());
    Exchange exchange(*links_, header);
    int64_t offset = 0;
    for (int r = 0; r < size(); ++r) {
      const int64_t part = bytes[static_cast<size_t>(r)];
      if (r == rank_) {
        copy(at(receive, offset), send, part);
      } else {
        exchange.with(member(r), send, bytes[static_cast<size_t>(rank_)], at(receive, offset), part);
      }
      offset += part;
    }
    return exchange.run();
  }

  Result<void> reduce_scatter(const void* data, std::span<const int64_t> counts, device::DType dtype,
                              void* receive) override {
    check_parts(counts);
    FrameHeader header = begin(Kind::kReduceScatter, dtype);
    header.parts = digest(counts);
    FATHOM_TRY(state());
    const int64_t width = device::size_of(dtype);
    const int64_t mine = counts[static_cast<size_t>(rank_)];
    std::byte* others = scratch(mine * width * (size() - 1));
    std::vector<const void*> in;
    Exchange exchange(*links_, header);
    const std::byte* part = at(data, 0);
    for (int r = 0; r < size(); ++r) {
      const int64_t bytes = counts[static_cast<size_t>(r)] * width;
      if (r == rank_) {
        in.push_back(part);
      } else {
        exchange.with(member(r), part, bytes, others, mine * width);
        in.push_back(others);
        others += mine * width;
      }
      part += bytes;
    }
    FATHOM_TRY(exchange.run());
    if (mine > 0) sum_into(in, {&receive, 1}, 0, mine, dtype);
    return {};
  }

  Result<void> broadcast(void* data, int64_t bytes, int root) override {
    FATHOM_CHECK(root >= 0 && root < size(), "root={} size={}", root, size());
    FrameHeader header = begin(Kind::kBroadcast);
    header.root = static_cast<uint32_t>(root);
    header.count = static_cast<uint64_t>(bytes);
    FATHOM_TRY(state());
    Exchange exchange(*links_, header);
    for (int r = 0; r < size(); ++r) {
      if (r != rank_) exchange.with(member(r), data, rank_ == root ? bytes : 0, data, r == root ? bytes : 0);
    }
    return exchange.run();
  }

  Result<void> all_to_all(std::span<const Outgoing> send, std::span<const Incoming> receive) override {
    FATHOM_CHECK_EQ(static_cast<int>(send.size()), size());
    FATHOM_CHECK_EQ(static_cast<int>(receive.size()), size());
    const FrameHeader header = begin(Kind::kAllToAll);
    FATHOM_TRY(state());
    Exchange exchange(*links_, header);
    for (int r = 0; r < size(); ++r) {
      const Outgoing& out = send[static_cast<size_t>(r)];
      const Incoming& in = receive[static_cast<size_t>(r)];
      if (r == rank_) {
        if (out.bytes != in.bytes) {
          abort(error(ErrorCode::kInternal,
                      "the ranks disagree in {}: {} with itself: {} bytes expected, {} sent",
                      describe(header), links_->world->name(links_->rank), in.bytes, out.bytes));
          return state();
        }
        copy(in.data, out.data, out.bytes);
      } else {
        exchange.with(member(r), out.data, out.bytes, in.data, in.bytes);
      }
    }
    return exchange.run();
  }

  Result<void> barrier() override {
    const FrameHeader header = begin(Kind::kBarrier);
    FATHOM_TRY(state());
    Exchange exchange(*links_, header);
    for (int r = 0; r < size(); ++r) {
      if (r != rank_) exchange.with(member(r), nullptr, 0, nullptr, 0);
    }
    return exchange.run();
  }

  Result<std::unique_ptr<Group>> split(int colour, const std::string& name) override {
    // The first of a new group names it: its rank in the world, and how many it was the first of before.
    struct Offer {
      int64_t colour, splits;
    };
    const Offer mine{colour, links_->splits};
    std::vector<Offer> offers(members_.size());
    FATHOM_TRY(all_gather(&mine, std::vector<int64_t>(members_.size(), sizeof(Offer)), offers.data()));
    std::vector<int> members;
    uint64_t id = 0;
    for (size_t r = 0; r < members_.size(); ++r) {
      if (offers[r].colour != colour) continue;
      if (members.empty()) {
        id = (static_cast<uint64_t>(members_[r]) + 1) << 32 | static_cast<uint64_t>(offers[r].splits);
        if (members_[r] == links_->rank) ++links_->splits;
      }
      members.push_back(members_[r]);
    }
    return std::unique_ptr<Group>(std::make_unique<SocketGroup>(links_, id, name, std::move(members)));
  }

  void abort(Error error) override { links_->world->fail(std::move(error)); }

  Result<void> state() const override {
    if (links_->world->failed()) return links_->world->error();
    return {};
  }

 private:
  int member(int rank) const { return members_[static_cast<size_t>(rank)]; }

  void check_parts(std::span<const int64_t> parts) const {
    FATHOM_CHECK_EQ(static_cast<int>(parts.size()), size());
  }

  FrameHeader begin(Kind kind, device::DType dtype = device::DType::kF32) {
    FrameHeader header;
    header.kind = static_cast<uint8_t>(kind);
    header.dtype = static_cast<uint8_t>(dtype);
    header.group = id_;
    header.call = ++calls_;
    return header;
  }
  std::string describe(const FrameHeader& header) const {
    return fmt::format("{} {} of group {}", to_string(static_cast<Kind>(header.kind)), header.call,
                       links_->groups.at(id_));
  }

  // Kept by the rank: most calls need as much as the ones before.
  std::byte* scratch(int64_t bytes) {
    if (links_->scratch.size() < static_cast<size_t>(bytes))
      links_->scratch.resize(static_cast<size_t>(bytes));
    return links_->scratch.data();
  }

  // In one round.
  Result<void> add_all(const FrameHeader& header, void* data, int64_t count, device::DType dtype) {
    FATHOM_TRY(state());
    const int64_t bytes = count * device::size_of(dtype);
    std::byte* others = scratch(bytes * (size() - 1));
    std::vector<const void*> in;
    Exchange exchange(*links_, header);
    for (int r = 0; r < size(); ++r) {
      if (r == rank_) {
        in.push_back(data);
        continue;
      }
      exchange.with(member(r), data, bytes, others, bytes);
      in.push_back(others);
      others += bytes;
    }
    FATHOM_TRY(exchange.run());
    if (count > 0) sum_into(in, {&data, 1}, 0, count, dtype);
    return {};
  }

  const std::shared_ptr<RankLinks> links_;
  const uint64_t id_;
  const std::vector<int> members_;  // ranks in the world
  int rank_ = 0;
  uint64_t calls_ = 0;
};

}  // namespace

SocketGroups make_socket_groups(Wiring& wiring, std::chrono::milliseconds timeout) {
  SocketGroups groups;
  groups.world = std::make_shared<NodeWorld>(wiring, timeout);
  const int size = wiring.world_size();
  const int first = groups.world->first_rank();
  std::vector<int> everyone(static_cast<size_t>(size));
  std::iota(everyone.begin(), everyone.end(), 0);
  std::vector<std::shared_ptr<RankLinks>> here;
  for (auto& peers : wiring.peers) {
    auto links = std::make_shared<RankLinks>();
    links->world = groups.world;
    links->rank = first + static_cast<int>(here.size());
    links->peers = std::move(peers);
    if (wiring.peers.size() < std::thread::hardware_concurrency()) links->patience = kPatience;
    here.push_back(std::move(links));
  }
  wiring.peers.clear();
  for (size_t a = 0; a < here.size(); ++a) {
    for (size_t b = a + 1; b < here.size(); ++b) {
      auto [one, other] = socket_pair();
      here[a]->peers[static_cast<size_t>(first) + b] = std::move(one);
      here[b]->peers[static_cast<size_t>(first) + a] = std::move(other);
    }
  }
  for (auto& links : here) groups.ranks.push_back(std::make_unique<SocketGroup>(links, 0, "world", everyone));
  return groups;
}

}  // namespace fathom::dist
