#include "dist/socket.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "dist/wire.h"

namespace fathom::dist {
namespace {

const sockaddr* as_sockaddr(const Address& address) {
  return reinterpret_cast<const sockaddr*>(&address.storage);
}
sockaddr* as_sockaddr(Address& address) {
  return reinterpret_cast<sockaddr*>(&address.storage);
}

// Milliseconds for poll(): at least 1 before the deadline, 0 after.
int until(Deadline deadline) {
  const auto left =
      std::chrono::ceil<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now()).count();
  return static_cast<int>(std::clamp<int64_t>(left, 0, 3'600'000));
}

Result<void> wait_for(const Socket& socket, short events, Deadline deadline) {
  pollfd entry{socket.fd(), events, 0};
  while (true) {
    const int ready = ::poll(&entry, 1, until(deadline));
    if (ready > 0) return {};
    if (ready == 0) return error(ErrorCode::kDeadlineExceeded, "no answer in time");
    if (errno != EINTR) return error(ErrorCode::kInternal, "poll: {}", std::strerror(errno));
  }
}

Address name_of(const Socket& socket, int (*ask)(int, sockaddr*, socklen_t*)) {
  Address address;
  address.length = sizeof(address.storage);
  if (ask(socket.fd(), as_sockaddr(address), &address.length) != 0) address.length = 0;
  return address;
}

}  // namespace

void Socket::close() {
  if (fd_ >= 0) ::close(fd_);
  fd_ = -1;
}

std::string Address::host() const {
  char text[NI_MAXHOST] = {};
  if (::getnameinfo(as_sockaddr(*this), length, text, sizeof(text), nullptr, 0, NI_NUMERICHOST) != 0)
    return "?";
  return text;
}

uint16_t Address::port() const {
  if (storage.ss_family == AF_INET) return ntohs(reinterpret_cast<const sockaddr_in*>(&storage)->sin_port);
  if (storage.ss_family == AF_INET6) return ntohs(reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_port);
  return 0;
}

void Address::set_port(uint16_t port) {
  if (storage.ss_family == AF_INET) reinterpret_cast<sockaddr_in*>(&storage)->sin_port = htons(port);
  if (storage.ss_family == AF_INET6) reinterpret_cast<sockaddr_in6*>(&storage)->sin6_port = htons(port);
}

std::string Address::text() const {
  return storage.ss_family == AF_INET6 ? fmt::format("[{}]:{}", host(), port())
                                       : fmt::format("{}:{}", host(), port());
}

bool Address::loopback() const {
  if (storage.ss_family == AF_INET)
    return (ntohl(reinterpret_cast<const sockaddr_in*>(&storage)->sin_addr.s_addr) >> 24) == 127;
  if (storage.ss_family == AF_INET6)
    return IN6_IS_ADDR_LOOPBACK(&reinterpret_cast<const sockaddr_in6*>(&storage)->sin6_addr) != 0;
  return false;
}

Result<Address> resolve(const std::string& host_port) {
  const size_t colon = host_port.rfind(':');
  std::string host = host_port.substr(0, colon);
  const std::string port = colon == std::string::npos ? "" : host_port.substr(colon + 1);
  const bool bracketed = host.size() > 2 && host.front() == '[' && host.back() == ']';
  if (bracketed) host = host.substr(1, host.size() - 2);
  const bool digits =
      !port.empty() && port.size() <= 5 && port.find_first_not_of("0123456789") == std::string::npos;
  if (host.empty() || !digits || std::stoi(port) > 65535 ||
      (!bracketed && host.find(':') != std::string::npos)) {
    return error(ErrorCode::kInvalidArgument,
                 "got \"{}\", expected HOST:PORT, such as 10.0.0.1:5000, node0:5000 or [fd00::1]:5000",
                 host_port);
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  if (const int code = ::getaddrinfo(host.c_str(), port.c_str(), &hints, &found); code != 0) {
    return error(ErrorCode::kUnavailable, "the address of \"{}\" is not known: {}", host,
                 ::gai_strerror(code));
  }
  Address address;
  std::memcpy(&address.storage, found->ai_addr, found->ai_addrlen);
  address.length = found->ai_addrlen;
  ::freeaddrinfo(found);
  return address;
}

Result<Socket> listen_at(const Address& address) {
  Socket socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  const int on = 1;
  if (socket.open()) ::setsockopt(socket.fd(), SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
  if (!socket.open() || ::bind(socket.fd(), as_sockaddr(address), address.length) != 0 ||
      ::listen(socket.fd(), 128) != 0) {
    const int code = errno;
    return error(ErrorCode::kInvalidArgument, "cannot listen on {}: {}{}", address.text(),
                 std::strerror(code),
                 code == EADDRNOTAVAIL ? "; it must be an address of this machine, which is node 0" : "");
  }
  return socket;
}

Address local_address(const Socket& socket) {
  return name_of(socket, ::getsockname);
}
Address peer_address(const Socket& socket) {
  return name_of(socket, ::getpeername);
}

Result<Socket> connect_to(const Address& address, Deadline deadline) {
  Socket socket(::socket(address.storage.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!socket.open()) return error(ErrorCode::kInternal, "socket: {}", std::strerror(errno));
  if (::connect(socket.fd(), as_sockaddr(address), address.length) != 0) {
    int code = errno;
    if (code == EINPROGRESS) {
      FATHOM_TRY(wait_for(socket, POLLOUT, deadline));
      socklen_t size = sizeof(code);
      ::getsockopt(socket.fd(), SOL_SOCKET, SO_ERROR, &code, &size);
    }
    if (code != 0)
      return error(ErrorCode::kUnavailable, "cannot connect to {}: {}", address.text(), std::strerror(code));
  }
  prepare(socket);
  return socket;
}

std::pair<Socket, Socket> socket_pair() {
  int ends[2] = {-1, -1};
  FATHOM_CHECK(::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) == 0,
               "socketpair: {}", std::strerror(errno));
  return {Socket(ends[0]), Socket(ends[1])};
}

void prepare(const Socket& socket) {
  ::fcntl(socket.fd(), F_SETFL, ::fcntl(socket.fd(), F_GETFL) | O_NONBLOCK);
  const int on = 1;
  ::setsockopt(socket.fd(), IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
}

Socket make_bell() {
  Socket bell(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
  FATHOM_CHECK(bell.open(), "eventfd: {}", std::strerror(errno));
  return bell;
}
void ring(const Socket& bell) {
  const uint64_t one = 1;
  while (::write(bell.fd(), &one, sizeof(one)) < 0 && errno == EINTR) {
  }
}
void hush(const Socket& bell) {
  uint64_t count = 0;
  while (::read(bell.fd(), &count, sizeof(count)) < 0 && errno == EINTR) {
  }
}

Result<void> send_all(const Socket& socket, std::string_view bytes, Deadline deadline) {
  while (!bytes.empty()) {
    const ssize_t sent = ::send(socket.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent > 0) {
      bytes.remove_prefix(static_cast<size_t>(sent));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      FATHOM_TRY(wait_for(socket, POLLOUT, deadline));
    } else if (errno != EINTR) {
      return error(ErrorCode::kUnavailable, "the connection closed: {}", std::strerror(errno));
    }
  }
  return {};
}

Result<void> receive_all(const Socket& socket, void* data, size_t bytes, Deadline deadline) {
  auto* to = static_cast<std::byte*>(data);
  while (bytes > 0) {
    const ssize_t got = ::recv(socket.fd(), to, bytes, MSG_DONTWAIT);
    if (got > 0) {
      to += got;
      bytes -= static_cast<size_t>(got);
    } else if (got == 0) {
      return error(ErrorCode::kUnavailable, "the connection closed");
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      FATHOM_TRY(wait_for(socket, POLLIN, deadline));
    } else if (errno != EINTR) {
      return error(ErrorCode::kUnavailable, "the connection closed: {}", std::strerror(errno));
    }
  }
  return {};
}

bool readable(const Socket& socket, Deadline deadline) {
  return wait_for(socket, POLLIN, deadline).ok();
}

bool writable(const Socket& socket, Deadline deadline) {
  return wait_for(socket, POLLOUT, deadline).ok();
}

bool closed_by_peer(const Socket& socket) {
  std::byte byte{};
  const ssize_t got = ::recv(socket.fd(), &byte, 1, MSG_PEEK | MSG_DONTWAIT);
  return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
}

Result<void> send_message(const Socket& socket, std::string_view message, Deadline deadline) {
  WireWriter writer;
  writer.u32(static_cast<uint32_t>(message.size()));
  std::string framed = writer.take();
  framed += message;
  return send_all(socket, framed, deadline);
}

Result<std::string> receive_message(const Socket& socket, size_t most, Deadline deadline) {
  char length[4];
  FATHOM_TRY(receive_all(socket, length, sizeof(length), deadline));
  const uint32_t announced = WireReader({length, sizeof(length)}).u32();
  if (announced > most) {
    return error(ErrorCode::kTooLarge, "a message of {} bytes was announced, at most {} are taken", announced,
                 most);
  }
  std::string message(announced, '\0');
  FATHOM_TRY(receive_all(socket, message.data(), message.size(), deadline));
  return message;
}

}  // namespace fathom::dist
