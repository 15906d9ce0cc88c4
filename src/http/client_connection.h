// The socket of one Client.
#pragma once

#include <sys/socket.h>
#include <unistd.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "http/client.h"

namespace fathom::http {

// A connected socket and what was read from it beyond the last response.
class ClientConnection {
 public:
  ClientConnection(int fd, std::chrono::milliseconds read_timeout) : fd_(fd), read_timeout_(read_timeout) {}
  ~ClientConnection() { ::close(fd_); }
  ClientConnection(const ClientConnection&) = delete;
  ClientConnection& operator=(const ClientConnection&) = delete;

  static Result<std::unique_ptr<ClientConnection>> open(const std::string& host, uint16_t port,
                                                        const ClientOptions& options);

  Result<void> send(std::string_view bytes);
  void shutdown_sending() { ::shutdown(fd_, SHUT_WR); }
  struct Reply {
    ClientResponse response;
    bool reusable = false;
  };
  // `on_bytes`: false ends the reading.
  Result<Reply> receive(bool head_only, const ClientOptions& options,
                        const std::function<bool(const ClientResponse&, std::string_view)>& on_bytes);
  bool got_bytes() const { return got_bytes_; }

 private:
  Result<bool> read_more();  // false: end of file

  int fd_;
  std::chrono::milliseconds read_timeout_;
  std::string in_;
  bool got_bytes_ = false;  // of the response in progress
};

}  // namespace fathom::http
