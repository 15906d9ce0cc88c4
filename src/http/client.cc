#include "http/client.h"

#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <boost/beast/http/parser.hpp>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <optional>
#include <utility>

#include "http/growing_body.h"

namespace fathom::http {

namespace beast = boost::beast;

// A connected socket and what was read from it beyond the last response.
class Client::Connection {
 public:
  explicit Connection(int fd, std::chrono::milliseconds read_timeout)
      : fd_(fd), read_timeout_(read_timeout) {}
  ~Connection() { ::close(fd_); }

  static Result<std::unique_ptr<Connection>> open(const std::string& host, uint16_t port,
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

void append_header(std::string_view name, std::string_view value, std::string* out) {
  *out += name;
  *out += ": ";
  *out += value;
  *out += "\r\n";
}

}  // namespace

Result<std::unique_ptr<Client::Connection>> Client::Connection::open(const std::string& host, uint16_t port,
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
  return std::make_unique<Connection>(fd, options.read_timeout);
}

Result<void> Client::Connection::send(std::string_view bytes) {
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

Result<bool> Client::Connection::read_more() {
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

Result<Client::Connection::Reply> Client::Connection::receive(
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
    if (!in_.empty() && !parser->is_done()) {
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

Client::Client(std::string host, uint16_t port, ClientOptions options)
    : host_(std::move(host)), port_(port), options_(std::move(options)) {}
Client::~Client() = default;
Client::Client(Client&&) noexcept = default;
Client& Client::operator=(Client&&) noexcept = default;

Result<Client> Client::from_url(std::string_view url, ClientOptions options) {
  const auto wrong = [&] {
    return error(ErrorCode::kInvalidArgument, "\"{}\" is not an address of the form http://host:port", url);
  };
  std::string_view rest = url;
  if (!rest.starts_with("http://")) return wrong();
  rest.remove_prefix(7);
  rest = rest.substr(0, rest.find('/'));
  std::string_view host = rest;
  std::string_view port = "80";
  const size_t colon = rest.rfind(':');
  if (rest.starts_with('[')) {
    const size_t close = rest.find(']');
    if (close == std::string_view::npos) return wrong();
    host = rest.substr(1, close - 1);
    if (close + 1 < rest.size()) {
      if (rest[close + 1] != ':') return wrong();
      port = rest.substr(close + 2);
    }
  } else if (colon != std::string_view::npos) {
    host = rest.substr(0, colon);
    port = rest.substr(colon + 1);
  }
  uint16_t number = 0;
  const auto [end, failure] = std::from_chars(port.data(), port.data() + port.size(), number);
  if (host.empty() || failure != std::errc() || end != port.data() + port.size() || number == 0)
    return wrong();
  return Client(std::string(host), number, std::move(options));
}

void Client::close() {
  connection_.reset();
}

Result<ClientResponse> Client::get(std::string_view target, Headers headers) {
  return request("GET", target, {}, std::move(headers));
}

Result<ClientResponse> Client::post(std::string_view target, std::string_view body, Headers headers) {
  return request("POST", target, body, std::move(headers));
}

Result<ClientResponse> Client::request(std::string_view method, std::string_view target,
                                       std::string_view body, Headers headers) {
  std::string received;
  FATHOM_ASSIGN(ClientResponse response,
                stream(method, target, body, std::move(headers), [&](std::string_view bytes) {
                  received += bytes;
                  return true;
                }));
  response.body = std::move(received);
  return response;
}

Result<ClientResponse> Client::stream(std::string_view method, std::string_view target, std::string_view body,
                                      Headers headers,
                                      const std::function<bool(std::string_view)>& on_bytes) {
  return exchange(method, target, body, headers,
                  [&](const ClientResponse&, std::string_view bytes) { return on_bytes(bytes); });
}

Result<ClientResponse> Client::stream_events(std::string_view method, std::string_view target,
                                             std::string_view body, Headers headers,
                                             const std::function<bool(const SseEvent&)>& on_event) {
  SseParser parser;
  std::string other;
  bool go_on = true;
  bool valid = true;
  FATHOM_ASSIGN(
      ClientResponse response,
      exchange(method, target, body, headers, [&](const ClientResponse& head, std::string_view bytes) {
        const std::string* type = head.header("Content-Type");
        if (type == nullptr || !type->starts_with("text/event-stream")) {
          other += bytes;
          return true;
        }
        valid = parser.feed(bytes, [&](const SseEvent& event) { go_on = go_on && on_event(event); });
        return valid && go_on;
      }));
  if (!valid) return error(ErrorCode::kTooLarge, "the server sent an event that is too large");
  response.body = std::move(other);
  return response;
}

Result<ClientResponse> Client::exchange(std::string_view method, std::string_view target,
                                        std::string_view body, const Headers& headers,
                                        const ByteSink& on_bytes) {
  std::string head = fmt::format("{} {} HTTP/1.1\r\n", method, target);
  const bool bare_ipv6 = host_.find(':') != std::string::npos;
  append_header("Host", fmt::format(fmt::runtime(bare_ipv6 ? "[{}]:{}" : "{}:{}"), host_, port_), &head);
  for (const auto& [name, value] : options_.headers) append_header(name, value, &head);
  for (const auto& [name, value] : headers) append_header(name, value, &head);
  if (!body.empty() || method == "POST" || method == "PUT") {
    append_header("Content-Length", std::to_string(body.size()), &head);
    if (find_header(headers, "Content-Type") == nullptr)
      append_header("Content-Type", "application/json", &head);
  }
  head += "\r\n";
  head += body;
  while (true) {
    const bool reused = connection_ != nullptr;
    if (!reused) {
      FATHOM_ASSIGN(connection_, Connection::open(host_, port_, options_));
    }
    Result<void> sent = connection_->send(head);
    if (options_.half_close) connection_->shutdown_sending();
    Result<Connection::Reply> reply = sent.ok() ? connection_->receive(method == "HEAD", options_, on_bytes)
                                                : Result<Connection::Reply>(sent.error());
    if (reply.ok()) {
      if (!reply->reusable || options_.half_close) close();
      return std::move(reply->response);
    }
    // A kept-alive connection may have been closed by the server before it saw this request: try a new one.
    const bool again =
        reused && !connection_->got_bytes() && reply.error().code != ErrorCode::kDeadlineExceeded;
    close();
    if (!again)
      return reply.error().with_context(fmt::format("{} http://{}:{}{}", method, host_, port_, target));
  }
}

}  // namespace fathom::http
