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
  return error(ErrorCode::kUnavailable, "node 0 has left: {}", how);
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

// Nothing: the connection ended before the first byte.
Result<void> receive_watched(const NodeWorld& world, const Socket& socket, void* data, size_t bytes) {
  auto* to = static_cast<char*>(data);
  while (bytes > 0) {
    const ssize_t got = ::recv(socket.fd(), to, bytes, MSG_DONTWAIT);
    if (got > 0) {
      to += got;
      bytes -= static_cast<size_t>(got);
      continue;
    }
    if (got == 0 || closed_by_peer(socket)) return closed(world, "the control connection closed");
    if (world.failed()) return world.error();
    (void)readable(socket, steady_clock::now() + kLook);
  }
  return {};
}

std::string length_of(uint64_t length) {
  WireWriter writer;
  writer.u64(length);
  return writer.take();
}

}  // namespace

ControlHost::ControlHost(Wiring& wiring, std::shared_ptr<NodeWorld> world) : world_(std::move(world)) {
  for (Socket& socket : wiring.control) {
    if (socket.open()) nodes_.push_back(std::move(socket));
  }
}

ControlHost::~ControlHost() {
  for (const Socket& node : nodes_) (void)send_watched(*world_, node, length_of(kEnd));
}

Result<void> ControlHost::send(std::string_view message) {
  FATHOM_CHECK_LE(message.size(), kMaxControlBytes);
  const std::string length = length_of(message.size());
  // A short message goes out in one piece.
  const std::string together = message.size() < 65536 ? length + std::string(message) : std::string();
  for (const Socket& node : nodes_) {
    Result<void> sent;
    if (!together.empty()) {
      sent = send_watched(*world_, node, together);
    } else if (sent = send_watched(*world_, node, length); sent.ok()) {
      sent = send_watched(*world_, node, message);
    }
    if (!sent.ok()) {
      world_->fail(sent.error());
      return world_->error();
    }
  }
  return {};
}

ControlGuest::ControlGuest(Wiring& wiring, std::shared_ptr<NodeWorld> world)
    : world_(std::move(world)), host_(std::move(wiring.control.at(0))) {}

Result<std::optional<std::string>> ControlGuest::receive() {
  const auto read = [&]() -> Result<std::optional<std::string>> {
    char bytes[8];
    FATHOM_TRY(receive_watched(*world_, host_, bytes, sizeof(bytes)));
    const uint64_t length = WireReader({bytes, sizeof(bytes)}).u64();
    if (length == kEnd) return std::optional<std::string>();
    if (length > kMaxControlBytes)
      return error(ErrorCode::kTooLarge, "node 0 announced a message of {} bytes", length);
    std::string message;
    while (message.size() < length) {
      const size_t at = message.size();
      message.resize(at + std::min<size_t>(kPiece, length - at));
      FATHOM_TRY(receive_watched(*world_, host_, message.data() + at, message.size() - at));
    }
    return std::optional<std::string>(std::move(message));
  };
  auto message = read();
  if (message.ok()) return message;
  world_->fail(message.error());
  return world_->error();
}

}  // namespace fathom::dist
