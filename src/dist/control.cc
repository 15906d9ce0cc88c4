#include "dist/control.h"

#include <algorithm>
#include <utility>

#include "dist/wire.h"

namespace fathom::dist {
namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// Between looks at whether the world has failed.
constexpr milliseconds kLook{50};
// A message grows with what has come of it: an announced length allocates nothing.
constexpr size_t kPiece = size_t{1} << 22;
// How long the error of a world whose connection just closed may take to come.
constexpr milliseconds kWord{1000};

// Above any length: no more messages will come.
constexpr uint64_t kEnd = ~uint64_t{0};

Error closed(const NodeWorld& world, const std::string& how) {
  const Deadline deadline = steady_clock::now() + kWord;
  while (!world.failed() && steady_clock::now() < deadline) std::this_thread::sleep_for(milliseconds(5));
  if (world.failed()) return world.error();
  return error(ErrorCode::kUnavailable, "a node has left: {}", how);
}

Result<void> send_watched(const NodeWorld& world, const Socket& socket, std::string_view bytes) {
  while (!bytes.empty()) {
    if (world.failed()) return world.error();
    const std::string_view piece = bytes.substr(0, kPiece);
    const ssize_t sent = ::send(socket.fd(), piece.data(), piece.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
    } else if (!writable(socket, steady_clock::now() + kLook)) {
      continue;
    } else if (closed_by_peer(socket)) {
      return closed(world, "the control connection closed");
    }
  }
  return {};
}

// False: `stopped` before all had come.
Result<bool> receive_watched(const NodeWorld& world, const Socket& socket, const std::atomic<bool>& stopped,
                             void* data, size_t bytes) {
  auto* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::recv(socket.fd(), to, bytes, MSG_DONTWAIT);
    if (got > 0) {
      to += got;
      bytes -= static_cast<size_t>(got);
      continue;
    }
    if (stopped.load(std::memory_order_acquire)) return false;
    if (got == 0 || closed_by_peer(socket)) return closed(world, "the control connection closed");
    if (world.failed()) return world.error();
    (void)readable(socket, steady_clock::now() + kLook);
  }
  return true;
}

std::string length_of(uint64_t length) {
  WireWriter writer;
  writer.u64(length);
  return writer.take();
}

Result<void> send_to(const NodeWorld& world, const Socket& socket, std::string_view message) {
  FATHOM_CHECK_LE(message.size(), kMaxControlBytes);
  const std::string length = length_of(message.size());
  // A short message goes out in one piece.
  if (message.size() < 65536) return send_watched(world, socket, length + std::string(message));
  FATHOM_TRY(send_watched(world, socket, length));
  return send_watched(world, socket, message);
}

// Nothing: the other end has said that no more will come, or `stopped`.
Result<std::optional<std::string>> receive_from(const NodeWorld& world, const Socket& socket,
                                                const std::atomic<bool>& stopped) {
  const std::optional<std::string> none;
  char bytes[8];
  FATHOM_ASSIGN(bool all, receive_watched(world, socket, stopped, bytes, sizeof(bytes)));
  if (!all) return none;
  const uint64_t length = WireReader({bytes, sizeof(bytes)}).u64();
  if (length == kEnd) return none;
  if (length > kMaxControlBytes)
    return error(ErrorCode::kTooLarge, "a node announced a message of {} bytes", length);
  std::string message;
  while (message.size() < length) {
    const size_t at = message.size();
    message.resize(at + std::min<size_t>(kPiece, length - at));
    FATHOM_ASSIGN(all, receive_watched(world, socket, stopped, message.data() + at, message.size() - at));
    if (!all) return none;
  }
  return std::optional<std::string>(std::move(message));
}

// `outcome`, or the world's error, which it ends with.
template <class T>
Result<T> ending(NodeWorld& world, Result<T> outcome) {
  if (outcome.ok()) return outcome;
  world.fail(outcome.error());
  return world.error();
}

}  // namespace

ControlHost::ControlHost(Wiring& wiring, std::shared_ptr<NodeWorld> world) : world_(std::move(world)) {
  for (Socket& socket : wiring.control) {
    if (socket.open()) nodes_.push_back(std::move(socket));
  }
}

ControlHost::~ControlHost() {
  end();
}

void ControlHost::end() {
  if (std::exchange(ended_, true)) return;
  for (const Socket& node : nodes_) (void)send_watched(*world_, node, length_of(kEnd));
}

Result<void> ControlHost::send(std::string_view message) {
  if (ended_) return {};
  for (const Socket& node : nodes_) FATHOM_TRY(ending(*world_, send_to(*world_, node, message)));
  return {};
}

Result<std::optional<std::string>> ControlHost::receive(int node) {
  return ending(*world_, receive_from(*world_, nodes_[static_cast<size_t>(node) - 1], stopped_));
}

ControlGuest::ControlGuest(Wiring& wiring, std::shared_ptr<NodeWorld> world)
    : world_(std::move(world)), host_(std::move(wiring.control.at(0))) {}

Result<std::optional<std::string>> ControlGuest::receive() {
  static const std::atomic<bool> never{false};
  return ending(*world_, receive_from(*world_, host_, never));
}

Result<void> ControlGuest::send(std::string_view message) {
  return ending(*world_, send_to(*world_, host_, message));
}

}  // namespace fathom::dist
