#include "http/client_connection.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>

#include <boost/beast/http/parser.hpp>
#include <cerrno>
#include <cstring>
#include <optional>
#include <utility>

#include "http/growing_body.h"

namespace fathom::http {
namespace beast = boost::beast;

namespace {

Error system_error(std::string_view what) {
  return error(ErrorCode::kUnavailable, "{}: {}", what, std::strerror(errno));
}

// True once `events` hold; false after the timeout.
bool wait_for(int fd, short events, std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (true) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - std::chrono::steady_clock::now());
    if (left.count() < 0) return false;
    pollfd poll_fd{fd, events, 0};
    const int n = ::poll(&poll_fd, 1, static_cast<int>(left.count()) + 1);
    if (n > 0) return true;
    if (n < 0 && errno != EINTR) return false;
  }
}

// The socket, connected and non-blocking, or -1 with errno set.
int connect_to(const addrinfo& address, std::chrono::milliseconds timeout) {
  const int fd = ::socket(address.ai_family, address.ai_socktype | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -1;
  int failure = 0;
  if (::connect(fd, address.ai_addr, address.ai_addrlen) != 0) {
    failure = errno;
    if (failure == EINPROGRESS) {
      socklen_t length = sizeof(failure);
      failure = ETIMEDOUT;
      if (wait_for(fd, POLLOUT, timeout)) ::getsockopt(fd, SOL_SOCKET, SO_ERROR, &failure, &length);
    }
  }
  if (failure != 0) {
    ::close(fd);
    errno = failure;
    return -1;
  }
  const int on = 1;
  ::setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
  return fd;
}

}  // namespace

Result<std::unique_ptr<ClientConnection>> ClientConnection::open(const std::string& host, uint16_t port,
                                                                 const ClientOptions& options) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* addresses = nullptr;
  if (const int failure = ::getaddrinfo(host.c_str(), std::to_string(port).c_str(), &hints, &addresses);
      failure != 0) {
    return error(ErrorCode::kInvalidArgument, "cannot find the host \"{}\": {}", host,
                 ::gai_strerror(failure));
  }
  int fd = -1;
  for (const addrinfo* it = addresses; it != nullptr && fd < 0; it = it->ai_next) {
    fd = connect_to(*it, options.connect_timeout);
  }
  const int failure = errno;
  ::freeaddrinfo(addresses);
  errno = failure;
  if (fd < 0) return system_error(fmt::format("cannot connect to {}:{}", host, port));
  return std::make_unique<ClientConnection>(fd, options.read_timeout);
}

Result<void> ClientConnection::send(std::string_view bytes) {
  got_bytes_ = !in_.empty();
  while (!bytes.empty()) {
    const ssize_t n = ::send(fd_, bytes.data(), bytes.size(), MSG_NOSIGNAL);
    if (n >= 0) {
      bytes.remove_prefix(static_cast<size_t>(n));
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(fd_, POLLOUT, read_timeout_))
        return error(ErrorCode::kDeadlineExceeded, "sending timed out");
    } else if (errno != EINTR) {
      return system_error("sending failed");
    }
  }
  return {};
}

Result<bool> ClientConnection::read_more() {
  while (true) {
    char buffer[16 << 10];
    const ssize_t n = ::recv(fd_, buffer, sizeof(buffer), 0);
    if (n > 0) {
      in_.append(buffer, static_cast<size_t>(n));
      got_bytes_ = true;
      return true;
    }
    if (n == 0) return false;
    if (errno == EAGAIN || errno == EWOULDBLOCK) {
      if (!wait_for(fd_, POLLIN, read_timeout_)) {
        return error(ErrorCode::kDeadlineExceeded, "no answer within {} ms", read_timeout_.count());
      }
    } else if (errno != EINTR) {
      return system_error("reading failed");
    }
  }
}

Result<ClientConnection::Reply> ClientConnection::receive(
    bool head_only, const ClientOptions& options,
    const std::function<bool(const ClientResponse&, std::string_view)>& on_bytes) {
  std::optional<beast::http::response_parser<GrowingBody>> parser;
  const auto restart = [&] {
    parser.emplace();
    parser->header_limit(1 << 20);
    parser->body_limit(options.max_body_bytes);
    parser->skip(head_only);
  };
  restart();
  Reply reply;
  bool head_read = false;
  bool at_end = false;
  while (true) {
    beast::error_code ec;
    size_t used = 0;
    const size_t enough = head_read && parser->chunked() ? kMinChunkedBytes : 1;
    if (in_.size() >= enough && !parser->is_done()) {
      used = parser->put(boost::asio::const_buffer(in_.data(), in_.size()), ec);
      in_.erase(0, used);
    }
    if (ec && ec != beast::http::error::need_more) {
      return error(ErrorCode::kDataLoss, "the server's answer is not valid HTTP: {}", ec.message());
    }
    if (parser->is_header_done() && !head_read) {
      if (parser->get().result_int() / 100 == 1) {  // an interim answer
        restart();
        continue;
      }
      head_read = true;
      reply.response.status = static_cast<int>(parser->get().result_int());
      for (const auto& field : parser->get()) {
        reply.response.headers.emplace_back(
            std::string(field.name_string().data(), field.name_string().size()),
            std::string(field.value().data(), field.value().size()));
      }
    }
    if (head_read && !parser->get().body().empty()) {
      const std::string bytes = std::exchange(parser->get().body(), {});
      if (!on_bytes(reply.response, bytes)) return reply;
    }
    if (parser->is_done()) {
      reply.reusable = parser->keep_alive() && !at_end;
      return reply;
    }
    if (used > 0 && !in_.empty()) continue;
    FATHOM_ASSIGN(const bool more, read_more());
    if (more) continue;
    // The end of the connection may be the end of the body.
    at_end = true;
    if (head_read) parser->put_eof(ec);
    if (ec || !parser->is_done()) {
      return error(ErrorCode::kDataLoss, "the server closed the connection before its answer was complete");
    }
  }
}

}  // namespace fathom::http
