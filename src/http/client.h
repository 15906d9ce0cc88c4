// A small blocking HTTP/1.1 client, for tests and for Fathom's own tools. One connection, kept alive and made
// again when the server closed it. Not thread safe.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/result.h"
#include "http/message.h"
#include "http/sse.h"

namespace fathom::http {

class ClientConnection;

struct ClientOptions {
  std::chrono::milliseconds connect_timeout{5'000};
  std::chrono::milliseconds read_timeout{120'000};  // without any byte from the server
  size_t max_body_bytes = size_t{1} << 30;
  bool half_close =
      false;        // shut the sending side down after each request, as `nc -N` does; no keep-alive then
  Headers headers;  // sent with every request, e.g. Authorization
};

struct ClientResponse {
  int status = 0;
  Headers headers;
  std::string body;

  const std::string* header(std::string_view name) const { return find_header(headers, name); }
};

class Client {
 public:
  // Connects with the first request. `host`: a name or an address, "::1" without brackets.
  Client(std::string host, uint16_t port, ClientOptions options = {});
  // "http://host:port", with or without a path (which is ignored).
  static Result<Client> from_url(std::string_view url, ClientOptions options = {});
  ~Client();
  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;

  Result<ClientResponse> get(std::string_view target, const Headers& headers = {});
  Result<ClientResponse> post(std::string_view target, std::string_view body, const Headers& headers = {});
  // A body is sent with Content-Type application/json unless `headers` name another. 4xx and 5xx are answers,
  // not Errors.
  Result<ClientResponse> request(std::string_view method, std::string_view target, std::string_view body = {},
                                 const Headers& headers = {});

  // As request, but hands on the body as it arrives; returns the response without it. When `on_bytes` returns
  // false the connection is closed and the response so far returned.
  Result<ClientResponse> stream(std::string_view method, std::string_view target, std::string_view body,
                                const Headers& headers,
                                const std::function<bool(std::string_view)>& on_bytes);
  // As stream, for text/event-stream. A response of another content type is returned with its body, and no
  // event.
  Result<ClientResponse> stream_events(std::string_view method, std::string_view target,
                                       std::string_view body, const Headers& headers,
                                       const std::function<bool(const SseEvent&)>& on_event);

  // Closes the connection.
  void close();

 private:
  using ByteSink = std::function<bool(const ClientResponse& head, std::string_view bytes)>;
  Result<ClientResponse> exchange(std::string_view method, std::string_view target, std::string_view body,
                                  const Headers& headers, const ByteSink& on_bytes);

  std::string host_;
  uint16_t port_;
  ClientOptions options_;
  std::unique_ptr<ClientConnection> connection_;
};

}  // namespace fathom::http
