#include "dist/node_world.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <set>

#include "base/thread_start.h"

namespace fathom::dist {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kFarewell{1000};         // for the last words to go out
constexpr size_t kMaxUnsent = size_t{1} << 20;  // of a node that does not read: no more beats are put there
constexpr size_t kMaxLeft = size_t{1} << 16;    // groups that ranks have left

milliseconds beat_interval(milliseconds timeout) {
  return std::clamp(timeout / 8, milliseconds(10), milliseconds(5000));
}

std::string framed(const NodeMessage& message) {
  const std::string bytes = encode(message);
  WireWriter length;
  length.u32(static_cast<uint32_t>(bytes.size()));
  return length.take() + bytes;
}

}  // namespace

NodeWorld::NodeWorld(Wiring& wiring, milliseconds timeout_in)
    : timeout(timeout_in),
      node_(wiring.node),
      first_rank_(wiring.first_rank(wiring.node)),
      wake_(make_bell()),
      links_(wiring.ranks.size()),
      waits_(static_cast<size_t>(wiring.world_size())) {
  const auto now = steady_clock::now();
  for (int n = 0; n < nodes(); ++n) {
    const auto index = static_cast<size_t>(n);
    Link& link = links_[index];
    link.socket = std::move(wiring.nodes[index]);
    link.host = wiring.hosts[index];
    link.first_rank = wiring.first_rank(n);
    link.ranks = wiring.ranks[index];
    link.closed = n == node_;
    link.heard = now;
    node_of_.insert(node_of_.end(), static_cast<size_t>(link.ranks), n);
  }
  for (int r = 0; r < wiring.ranks[static_cast<size_t>(node_)]; ++r) bells_.push_back(make_bell());
  if (nodes() > 1) {
    watcher_ = std::thread([this] {
      begin_thread("node watcher");
      watch();
    });
  }
}

NodeWorld::~NodeWorld() {
  {
    std::lock_guard lock(mutex_);
    say({.kind = NodeMessage::Kind::kBye});
    ending_ = true;
  }
  ring(wake_);
  if (watcher_.joinable()) watcher_.join();
}

std::string NodeWorld::name(int rank) const {
  if (nodes() == 1) return fmt::format("rank {}", rank);
  return fmt::format("rank {} (node {})", rank, node_of_[static_cast<size_t>(rank)]);
}

std::string NodeWorld::describe(int node, const Link& link) const {
  const std::string ranks =
      link.ranks == 1 ? fmt::format("rank {}", link.first_rank)
                      : fmt::format("ranks {} to {}", link.first_rank, link.first_rank + link.ranks - 1);
  return fmt::format("node {}{} ({})", node, link.host.empty() ? "" : " at " + link.host, ranks);
}

void NodeWorld::ring_all() {
  for (const Socket& bell : bells_) ring(bell);
}

void NodeWorld::say(const NodeMessage& message) {
  const std::string bytes = framed(message);
  for (Link& link : links_) {
    if (!link.closed) link.out += bytes;
  }
  ring(wake_);
}

void NodeWorld::fail(Error error) {
  std::lock_guard lock(mutex_);
  fail_locked(std::move(error), -1);
}

void NodeWorld::fail_locked(Error error, int but_not) {
  if (failed()) return;
  error_ = std::move(error);
  failed_.store(true, std::memory_order_release);
  const std::string bytes = framed({.kind = NodeMessage::Kind::kFail, .error = error_});
  for (int n = 0; n < nodes(); ++n) {
    Link& link = links_[static_cast<size_t>(n)];
    if (!link.closed && n != but_not) link.out += bytes;
  }
  ring(wake_);
  ring_all();
}

Error NodeWorld::error() const {
  std::lock_guard lock(mutex_);
  return error_;
}

void NodeWorld::leave(uint64_t group, int rank, uint64_t calls) {
  std::lock_guard lock(mutex_);
  left_[{group, rank}] = calls;
  NodeMessage message{.kind = NodeMessage::Kind::kLeft};
  message.group = group;
  message.calls = calls;
  message.rank = static_cast<uint32_t>(rank);
  say(message);
  ring_all();
}

std::optional<uint64_t> NodeWorld::left(uint64_t group, int rank) const {
  std::lock_guard lock(mutex_);
  const auto found = left_.find({group, rank});
  if (found == left_.end()) return std::nullopt;
  return found->second;
}

void NodeWorld::set_waits(int rank, std::vector<uint32_t> missing) {
  std::lock_guard lock(mutex_);
  waits_[static_cast<size_t>(rank)] = std::move(missing);
}

std::vector<int> NodeWorld::culprits(int rank, const std::vector<uint32_t>& missing) const {
  std::lock_guard lock(mutex_);
  std::set<uint32_t> seen{static_cast<uint32_t>(rank)};
  std::vector<uint32_t> todo = missing;
  std::vector<int> found;
  while (!todo.empty()) {
    const uint32_t next = todo.back();
    todo.pop_back();
    if (!seen.insert(next).second) continue;
    const auto& theirs = waits_[next];
    if (theirs.empty()) found.push_back(static_cast<int>(next));
    todo.insert(todo.end(), theirs.begin(), theirs.end());
  }
  std::sort(found.begin(), found.end());
  return found;
}

void NodeWorld::ask_to_end() {
  std::lock_guard lock(mutex_);
  if (node_ == 0) {
    if (!asked_to_end_) asked_to_end_ = 0;
    return;
  }
  if (!links_[0].closed) links_[0].out += framed({.kind = NodeMessage::Kind::kAskedToEnd});
  ring(wake_);
}

std::optional<int> NodeWorld::asked_to_end() const {
  std::lock_guard lock(mutex_);
  return asked_to_end_;
}

// The watcher's thread.
void NodeWorld::watch() {
  const milliseconds interval = beat_interval(timeout);
  Deadline next_beat = steady_clock::now();
  std::optional<Deadline> end;
  while (true) {
    std::vector<pollfd> entries{{wake_.fd(), POLLIN, 0}};
    std::vector<int> polled;
    {
      std::lock_guard lock(mutex_);
      const auto now = steady_clock::now();
      if (now >= next_beat) {
        beat();
        next_beat = now + interval;
      }
      bool unsent = false;
      for (int n = 0; n < nodes(); ++n) {
        Link& link = links_[static_cast<size_t>(n)];
        if (link.closed) continue;
        write(link);
        unsent = unsent || !link.out.empty();
        entries.push_back(
            {link.socket.fd(), static_cast<short>(link.out.empty() ? POLLIN : POLLIN | POLLOUT), 0});
        polled.push_back(n);
      }
      if (ending_ && !end) end = now + kFarewell;
      if (end && (!unsent || now >= *end)) {
        // What came and is not read would have the system tear the connection down, and with it the last
        // words.
        for (Link& link : links_) {
          if (!link.closed) ::shutdown(link.socket.fd(), SHUT_WR);
        }
        return;
      }
    }
    const Deadline wake = end ? std::min(*end, next_beat) : next_beat;
    const auto left = std::chrono::ceil<milliseconds>(wake - steady_clock::now()).count();
    if (::poll(entries.data(), entries.size(), static_cast<int>(std::max<int64_t>(left, 0))) < 0) continue;
    if (entries[0].revents != 0) hush(wake_);
    std::lock_guard lock(mutex_);
    for (size_t i = 0; i < polled.size(); ++i) {
      Link& link = links_[static_cast<size_t>(polled[i])];
      if ((entries[i + 1].revents & ~POLLOUT) != 0) read(polled[i], link);
    }
    // After the reading: words that came while this process was stopped count.
    for (const int n : polled) {
      Link& link = links_[static_cast<size_t>(n)];
      const auto silence = steady_clock::now() - link.heard;
      if (link.closed || link.said_bye || silence < timeout * 3 / 4) continue;
      lost(n, link,
           fmt::format("has not been heard of for {:.1f} s: it is stopped, hung or cut off",
                       std::chrono::duration<double>(silence).count()));
    }
  }
}

void NodeWorld::beat() {
  NodeMessage message{.kind = NodeMessage::Kind::kBeat};
  for (int r = first_rank_; r < first_rank_ + ranks_here(); ++r) {
    const auto& missing = waits_[static_cast<size_t>(r)];
    if (!missing.empty()) message.waits.push_back({static_cast<uint32_t>(r), missing});
  }
  const std::string bytes = framed(message);
  for (Link& link : links_) {
    if (!link.closed && link.out.size() < kMaxUnsent) link.out += bytes;
  }
}

void NodeWorld::write(Link& link) {
  while (!link.out.empty()) {
    const ssize_t sent =
        ::send(link.socket.fd(), link.out.data(), link.out.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      link.out.erase(0, static_cast<size_t>(sent));
    } else if (errno != EINTR) {
      // A connection that has closed is noticed by reading, after its last words.
      if (errno != EAGAIN && errno != EWOULDBLOCK) link.out.clear();
      return;
    }
  }
}

void NodeWorld::read(int node, Link& link) {
  char bytes[16384];
  std::string how = "has died: its connection closed without a good-bye";
  while (!link.closed) {
    const ssize_t got = ::recv(link.socket.fd(), bytes, sizeof(bytes), MSG_DONTWAIT);
    if (got > 0) {
      link.heard = steady_clock::now();
      link.in.append(bytes, static_cast<size_t>(got));
      size_t at = 0;
      while (link.in.size() - at >= 4) {
        const uint32_t length = WireReader(std::string_view(link.in).substr(at, 4)).u32();
        if (length > kMaxNodeMessage) return lost(node, link, "sent a message without end");
        if (link.in.size() - at - 4 < length) break;
        const auto message = parse_node_message(std::string_view(link.in).substr(at + 4, length));
        if (!message.ok()) return lost(node, link, "sent " + message.error().message);
        take(node, link, *message);
        at += 4 + length;
      }
      link.in.erase(0, at);
    } else if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK)) {
      return;
    } else if (got == 0 || errno != EINTR) {
      // A reset is a death too: of a process that had not read all that was sent to it.
      if (got < 0 && errno != ECONNRESET && errno != EPIPE)
        how = fmt::format("cannot be reached: {}", std::strerror(errno));
      return lost(node, link, how);
    }
  }
}

void NodeWorld::take(int node, Link& link, const NodeMessage& message) {
  const auto theirs = [&](uint32_t rank) {
    return rank >= static_cast<uint32_t>(link.first_rank) &&
           rank < static_cast<uint32_t>(link.first_rank + link.ranks);
  };
  switch (message.kind) {
    case NodeMessage::Kind::kBeat:
      for (int r = link.first_rank; r < link.first_rank + link.ranks; ++r)
        waits_[static_cast<size_t>(r)].clear();
      for (const auto& wait : message.waits) {
        const bool known = std::all_of(wait.missing.begin(), wait.missing.end(),
                                       [&](uint32_t rank) { return rank < waits_.size(); });
        if (theirs(wait.rank) && known) waits_[wait.rank] = wait.missing;
      }
      break;
    case NodeMessage::Kind::kFail:
      fail_locked(message.error, node);
      break;
    case NodeMessage::Kind::kLeft:
      if (theirs(message.rank) && left_.size() < kMaxLeft)
        left_[{message.group, static_cast<int>(message.rank)}] = message.calls;
      ring_all();
      break;
    case NodeMessage::Kind::kBye:
      link.said_bye = true;
      break;
    case NodeMessage::Kind::kAskedToEnd:
      if (!asked_to_end_) asked_to_end_ = node;
      break;
  }
}

void NodeWorld::lost(int node, Link& link, const std::string& how) {
  link.closed = true;
  link.out.clear();
  if (!link.said_bye)
    fail_locked(fathom::error(ErrorCode::kUnavailable, "{} {}", describe(node, link), how), node);
}

}  // namespace fathom::dist
