#include "dist/exchange.h"

#include <fmt/ranges.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

namespace fathom::dist {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// A connection closed: how long the words of who closed it may take on their way.
constexpr milliseconds kGrace{1000};

// What is left of a header and the bytes after it, of which `done` have gone.
msghdr rest_of(char* header, void* bytes, size_t total, size_t done, iovec (&parts)[2]) {
  msghdr message{};
  message.msg_iov = parts;
  if (done < kFrameBytes) {
    parts[0] = {header + done, kFrameBytes - done};
    parts[1] = {bytes, total - kFrameBytes};
    message.msg_iovlen = total > kFrameBytes ? 2 : 1;
  } else {
    parts[0] = {static_cast<char*>(bytes) + (done - kFrameBytes), total - done};
    message.msg_iovlen = 1;
  }
  return message;
}

bool would_block() {
  return errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR;
}

const char* kind_of(uint8_t kind) {
  return kind <= static_cast<uint8_t>(Call::Kind::kBarrier) ? to_string(static_cast<Call::Kind>(kind)) : "?";
}

// "" when the two fit together, or what differs.
std::string difference(const FrameHeader& mine, const FrameHeader& theirs) {
  if (mine.kind != theirs.kind) return fmt::format("{} against {}", kind_of(mine.kind), kind_of(theirs.kind));
  if (mine.dtype != theirs.dtype) {
    const auto name = [](uint8_t dtype) { return device::to_string(static_cast<device::DType>(dtype)); };
    return fmt::format("{} against {}", name(mine.dtype), name(theirs.dtype));
  }
  if (mine.root != theirs.root) return fmt::format("root {} against {}", mine.root, theirs.root);
  if (mine.count != theirs.count) return fmt::format("size {} against {}", mine.count, theirs.count);
  if (mine.parts != theirs.parts) return "other sizes of the parts";
  if (mine.call != theirs.call || mine.phase != theirs.phase)
    return fmt::format("call {}.{} against {}.{}", mine.call, mine.phase, theirs.call, theirs.phase);
  return {};
}

}  // namespace

void Exchange::with(int peer, const void* send, int64_t bytes, void* receive, int64_t expected) {
  FrameHeader header = header_;
  header.payload = static_cast<uint64_t>(bytes);
  Transfer transfer;
  transfer.peer = peer;
  transfer.out_header = encode(header);
  transfer.send = send;
  transfer.receive = receive;
  transfer.out_total = kFrameBytes + static_cast<size_t>(bytes);
  transfer.in_total = kFrameBytes + static_cast<size_t>(expected);
  transfers_.push_back(transfer);
}

bool Exchange::all_done() const {
  return !disagreed_ &&
         std::all_of(transfers_.begin(), transfers_.end(), [](const Transfer& t) { return t.done(); });
}

Result<void> Exchange::run() {
  NodeWorld& world = *links_.world;
  const Deadline enough = steady_clock::now() + links_.patience;
  do {
    for (Transfer& transfer : transfers_) move(transfer);
    if (all_done()) return {};
    if (world.failed()) return world.error();
  } while (steady_clock::now() < enough);
  auto result = wait();
  world.set_waits(links_.rank, {});
  return result;
}

Result<void> Exchange::wait() {
  NodeWorld& world = *links_.world;
  const Socket& bell = world.bell(links_.rank);
  Deadline deadline = steady_clock::now() + world.timeout;
  std::vector<pollfd> entries;
  while (true) {
    bool moved = false;
    for (Transfer& transfer : transfers_) moved = move(transfer) || moved;
    if (all_done()) return {};
    if (world.failed()) return world.error();
    const auto now = steady_clock::now();
    if (moved) deadline = now + world.timeout;
    look_for_leavers();
    if (now >= deadline) give_up();
    if (world.failed()) return world.error();
    world.set_waits(links_.rank, missing());

    Deadline wake = deadline;
    entries.assign(1, {bell.fd(), POLLIN, 0});
    for (const Transfer& transfer : transfers_) {
      if (transfer.done()) continue;
      if (transfer.closed) {
        wake = std::min(wake, transfer.grace);
        continue;
      }
      const int events = (transfer.in_done < transfer.in_total ? POLLIN : 0) |
                         (transfer.out_done < transfer.out_total ? POLLOUT : 0);
      entries.push_back(
          {links_.peers[static_cast<size_t>(transfer.peer)].fd(), static_cast<short>(events), 0});
    }
    const auto left = std::chrono::ceil<milliseconds>(wake - now).count();
    if (::poll(entries.data(), entries.size(), static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000))) >
            0 &&
        entries[0].revents != 0) {
      hush(bell);
    }
  }
}

bool Exchange::move(Transfer& transfer) {
  bool moved = false;
  if (transfer.done() || transfer.closed) return false;
  put(transfer, &moved);
  take(transfer, &moved);
  return moved;
}

void Exchange::put(Transfer& transfer, bool* moved) {
  const int fd = links_.peers[static_cast<size_t>(transfer.peer)].fd();
  while (transfer.out_done < transfer.out_total) {
    iovec parts[2];
    const msghdr message = rest_of(transfer.out_header.data(), const_cast<void*>(transfer.send),
                                   transfer.out_total, transfer.out_done, parts);
    const ssize_t sent = ::sendmsg(fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent < 0) return;  // a connection that has closed is noticed by reading what came before that
    transfer.out_done += static_cast<size_t>(sent);
    *moved = true;
  }
}

void Exchange::take(Transfer& transfer, bool* moved) {
  const int fd = links_.peers[static_cast<size_t>(transfer.peer)].fd();
  while (transfer.in_done < transfer.in_total || transfer.out_done < transfer.out_total) {
    if (transfer.in_done == transfer.in_total) {
      // Only to notice that nobody will take the rest.
      if (!closed_by_peer(links_.peers[static_cast<size_t>(transfer.peer)])) return;
      transfer.closed = true;
      transfer.grace = steady_clock::now() + kGrace;
      return;
    }
    iovec parts[2];
    msghdr message =
        rest_of(transfer.in_header.data(), transfer.receive, transfer.in_total, transfer.in_done, parts);
    const ssize_t got = ::recvmsg(fd, &message, MSG_DONTWAIT);
    if (got < 0 && would_block()) return;
    if (got <= 0) {
      transfer.closed = true;
      transfer.grace = steady_clock::now() + kGrace;
      return;
    }
    transfer.in_done += static_cast<size_t>(got);
    *moved = true;
    if (!transfer.checked && transfer.in_done >= kFrameBytes) check(transfer);
    if (disagreed_) return;
  }
}

// What came with a header that does not fit is in this rank's buffers, but never more of it than was
// expected.
void Exchange::check(Transfer& transfer) {
  transfer.checked = true;
  const FrameHeader theirs = parse_frame(transfer.in_header);
  std::string what;
  if (theirs.group != header_.group) {
    const auto found = links_.groups.find(theirs.group);
    what = fmt::format("{} of another group{}", kind_of(theirs.kind),
                       found == links_.groups.end() ? "" : ", " + found->second);
  } else {
    what = difference(header_, theirs);
    const uint64_t expected = transfer.in_total - kFrameBytes;
    if (what.empty() && theirs.payload != expected)
      what = fmt::format("{} bytes expected, {} sent", expected, theirs.payload);
  }
  if (what.empty()) return;
  disagreed_ = true;
  NodeWorld& world = *links_.world;
  world.fail(error(ErrorCode::kInternal, "the ranks disagree in {}: {} and {}: {}", describe(),
                   world.name(links_.rank), world.name(transfer.peer), what));
}

void Exchange::look_for_leavers() {
  NodeWorld& world = *links_.world;
  const auto now = steady_clock::now();
  for (const Transfer& transfer : transfers_) {
    if (transfer.done()) continue;
    // What it sent before it left is on its way.
    const auto calls = world.left(header_.group, transfer.peer);
    const bool left = calls.has_value() && *calls < header_.call;
    if (left || (transfer.closed && now >= transfer.grace)) {
      world.fail(error(ErrorCode::kInternal, "{} has left: {} waits for it in {}", world.name(transfer.peer),
                       world.name(links_.rank), describe()));
    }
  }
}

void Exchange::give_up() {
  NodeWorld& world = *links_.world;
  std::vector<std::string> names;
  for (const int rank : world.culprits(links_.rank, missing())) names.push_back(world.name(rank));
  world.fail(
      error(ErrorCode::kDeadlineExceeded, "{} waited {:.1f} s in {}, held up by {}", world.name(links_.rank),
            std::chrono::duration<double>(world.timeout).count(), describe(),
            names.empty() ? "ranks that wait for each other" : fmt::format("{}", fmt::join(names, ", "))));
}

std::vector<uint32_t> Exchange::missing() const {
  std::vector<uint32_t> ranks;
  for (const Transfer& transfer : transfers_) {
    if (!transfer.done()) ranks.push_back(static_cast<uint32_t>(transfer.peer));
  }
  return ranks;
}

std::string Exchange::describe() const {
  return fmt::format("{} {} of group {}", kind_of(header_.kind), header_.call,
                     links_.groups.at(header_.group));
}

}  // namespace fathom::dist
