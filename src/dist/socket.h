// Stream sockets of this room: owned, never blocking by themselves, with a deadline on every wait.
#pragma once

#include <sys/socket.h>

#include <chrono>
#include <cstddef>
#include <string>
#include <string_view>
#include <utility>

#include "base/result.h"

namespace fathom::dist {

using Deadline = std::chrono::steady_clock::time_point;

// Owns a file descriptor. Movable; closes it in the end.
class Socket {
 public:
  Socket() = default;
  explicit Socket(int fd) : fd_(fd) {}
  ~Socket() { close(); }
  Socket(Socket&& other) noexcept : fd_(std::exchange(other.fd_, -1)) {}
  Socket& operator=(Socket&& other) noexcept {
    if (this != &other) {
      close();
      fd_ = std::exchange(other.fd_, -1);
    }
    return *this;
  }

  int fd() const { return fd_; }
  bool open() const { return fd_ >= 0; }
  void close();

 private:
  int fd_ = -1;
};

struct Address {
  sockaddr_storage storage{};
  socklen_t length = 0;

  std::string host() const;  // as digits, without brackets
  uint16_t port() const;
  void set_port(uint16_t port);
  std::string text() const;  // "10.0.0.1:5000", "[::1]:5000"
  bool loopback() const;
};

// "10.0.0.1:5000", "[::1]:5000", "node0:5000": the first address that the system knows for it.
Result<Address> resolve(const std::string& host_port);

// Port 0: the system chooses one; see local_address.
Result<Socket> listen_at(const Address& address);
Address local_address(const Socket& socket);
Address peer_address(const Socket& socket);
// kUnavailable where nobody listens (yet), or the way there is not known.
Result<Socket> connect_to(const Address& address, Deadline deadline);
// Two ends of a connection within this process.
std::pair<Socket, Socket> socket_pair();
// Never blocks from here on, and sends small messages at once.
void prepare(const Socket& socket);
// A descriptor that becomes readable when ring() is called, until hush() is.
Socket make_bell();
void ring(const Socket& bell);
void hush(const Socket& bell);

// All of it, or an error: kDeadlineExceeded, or kUnavailable when the other end has closed.
Result<void> send_all(const Socket& socket, std::string_view bytes, Deadline deadline);
Result<void> receive_all(const Socket& socket, void* data, size_t bytes, Deadline deadline);
// Whether there is something to read, or the end, by the deadline.
bool readable(const Socket& socket, Deadline deadline);
bool writable(const Socket& socket, Deadline deadline);
// Has the other end closed? What it sent before stays to be read.
bool closed_by_peer(const Socket& socket);

// A message is its length (u32) and its bytes. An announced length above `most` is an error, before anything
// is allocated for it.
Result<void> send_message(const Socket& socket, std::string_view message, Deadline deadline);
Result<std::string> receive_message(const Socket& socket, size_t most, Deadline deadline);

}  // namespace fathom::dist
