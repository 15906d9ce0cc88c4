#include "dist/doorman.h"

#include <poll.h>
#include <sys/socket.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/log.h"

namespace fathom::dist {
namespace {

constexpr std::chrono::seconds kPatience{10};  // with one guest
constexpr size_t kGuests = 64;                 // at once; above, the oldest is sent away

}  // namespace

Result<std::unique_ptr<Doorman>> Doorman::open(const Address& address, std::string secret) {
  FATHOM_ASSIGN(Socket listener, listen_at(address));
  return std::unique_ptr<Doorman>(new Doorman(std::move(listener), std::move(secret)));
}

std::optional<Doorman::Visitor> Doorman::next(Deadline deadline) {
  while (true) {
    const auto now = std::chrono::steady_clock::now();
    guests_.remove_if([&](const Guest& guest) { return guest.deadline <= now; });
    Deadline wake = deadline;
    std::vector<pollfd> entries{{listener_.fd(), POLLIN, 0}};
    for (const Guest& guest : guests_) {
      entries.push_back({guest.socket.fd(), POLLIN, 0});
      wake = std::min(wake, guest.deadline);
    }
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(wake - now).count();
    const int ready =
        ::poll(entries.data(), entries.size(), static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000)));
    size_t at = 1;
    for (auto guest = guests_.begin(); ready > 0 && guest != guests_.end(); ++at) {
      const bool stays = entries[at].revents == 0 || talk(*guest);
      if (stays && guest->handshake.done()) {
        Visitor visitor{std::move(guest->socket), guest->address};
        guests_.erase(guest);
        return visitor;
      }
      guest = stays ? std::next(guest) : guests_.erase(guest);
    }
    if (ready > 0 && entries[0].revents != 0) accept_all();
    if (ready <= 0 && std::chrono::steady_clock::now() >= deadline) return std::nullopt;
  }
}

void Doorman::accept_all() {
  while (true) {
    Socket socket(::accept4(listener_.fd(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
    if (!socket.open()) return;
    prepare(socket);
    const Address address = peer_address(socket);
    if (guests_.size() == kGuests) guests_.pop_front();
    guests_.push_back(
        {std::move(socket), address, HostHandshake(secret_), std::chrono::steady_clock::now() + kPatience});
  }
}

bool Doorman::talk(Guest& guest) {
  while (!guest.handshake.done()) {
    char bytes[HostHandshake::kHelloBytes];
    const ssize_t got = ::recv(guest.socket.fd(), bytes, guest.handshake.wanted(), MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return true;
    if (got <= 0) return false;
    std::string last;
    const auto answer = guest.handshake.feed({bytes, static_cast<size_t>(got)}, &last);
    const std::string& words = answer.ok() ? *answer : last;
    // A connection's first bytes always find room.
    const ssize_t sent = ::send(guest.socket.fd(), words.data(), words.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (!answer.ok())
      LOG_WARNING("refused a connection from {}: {}", guest.address.text(), answer.error().message);
    if (!answer.ok() || sent != static_cast<ssize_t>(words.size())) return false;
  }
  return true;
}

}  // namespace fathom::dist
