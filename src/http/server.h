// An HTTP/1.1 server: bytes <-> messages, limits, timeouts, back-pressure, vanished clients. It knows no LLM.
//
// Sockets are watched by a few I/O threads and never block them; each request runs its handler on a thread of
// an elastic pool. So a slow or vanished client costs a buffer, not a thread that others need.
//
// Vanished and half-closed clients. A client that closes its socket and one that only says "I have sent
// everything" (shutdown(SHUT_WR), `nc -N`) look the same: end of file. They differ when something is sent: a
// closed socket answers with a reset. So on end of file the server sends early what the response is certain
// to begin with: single bytes of "HTTP/1.1 " before the head, leading zeros of the next chunk's size within a
// stream. A reset within a round trip means gone; otherwise the request goes on and gets its whole answer.
// Probes repeat after 1, 2, 4, ... seconds. Machines that vanish without a word are found by TCP keep-alive
// and user timeout.
#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "http/message.h"

namespace fathom::http {

// {"error":{"message":...,"type":...,"code":...}}; `code` is a word such as "body_too_large".
Response json_error(int status, std::string_view code, std::string_view message);
using ErrorFormatter = std::function<Response(int status, std::string_view code, std::string_view message)>;

// What a request needs, told from its head.
struct RequestNeeds {
  // False: its answer is the same without the body. The handler is called at once, with an empty one, and the
  // connection closes after the answer.
  bool body = true;
  // It is answered soon, whatever others do: it may have a handler of the reserve.
  bool reserve = false;
};

struct ServerOptions {
  std::string host = "127.0.0.1";  // an address or a name; "::" listens on IPv6 and IPv4
  uint16_t port = 30000;           // 0: any free port
  int io_threads = 2;
  int max_connections = 4096;  // above it: 503 and close
  int max_handlers = 1024;     // requests in work; above it: 503 with Retry-After, at once
  int reserved_handlers = 16;  // beyond max_handlers, for requests that may have one
  size_t max_header_bytes = size_t{64} << 10;
  size_t max_body_bytes = size_t{64} << 20;
  // Of all requests that are being read or in work; at least twice max_body_bytes. No body may be larger than
  // what is left (503 with Retry-After, and close), so that some is always left for small ones.
  size_t max_bodies_bytes = size_t{1} << 30;
  std::chrono::milliseconds header_timeout{15'000};  // from a request's first byte to the end of its head
  // A client that sends a body may pause for body_timeout, one that reads an answer for write_timeout
  // (counted only while the kernel's buffers are full); and after that time it must keep min_bytes_per_second
  // on the average.
  std::chrono::milliseconds body_timeout{30'000};
  std::chrono::milliseconds write_timeout{30'000};
  size_t min_bytes_per_second = 1024;
  std::chrono::milliseconds idle_timeout{75'000};          // a kept-alive connection between requests
  std::chrono::milliseconds handler_idle_timeout{10'000};  // a pool thread without work leaves
  std::chrono::seconds retry_after{1};
  std::vector<std::string> cors_origins;  // "*" or exact origins; empty: no CORS headers
  ErrorFormatter format_error = json_error;
  // Called once a request, on an I/O thread: it must be quick. Empty: all are as RequestNeeds begins.
  std::function<RequestNeeds(const Request& head)> needs;
};

// Counters since the start, and two gauges.
struct Stats {
  int64_t connections_total = 0;
  int64_t requests_total = 0;  // handlers begun
  int64_t refused_busy = 0;    // 503 for too many connections, handlers or bytes of bodies
  int64_t bad_requests = 0;    // other errors the server answered itself (4xx, 5xx)
  int64_t timeouts = 0;        // header, body or write timeouts
  int64_t clients_gone = 0;    // vanished while a handler ran
  int connections_open = 0;
  int handlers_active = 0;
};

// Thread safe.
class Server {
 public:
  // Listens before it returns. An Error says which address failed, why, and what to do. `handler` is called
  // from many threads at once. Raises the process's soft limit of open files to what max_connections needs,
  // if it can.
  static Result<std::unique_ptr<Server>> start(ServerOptions options, Handler handler);

  // Closes all connections (handlers see client_gone) and waits for the handlers to return.
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const;
  std::string address() const;  // "127.0.0.1:30000", "[::1]:30000"

  // No new connections; idle ones are closed; requests in work go on and close theirs when done.
  void stop_accepting();
  // stop_accepting, then waits until no request is being read, handled or answered. True if all ended in
  // time.
  bool drain(std::chrono::milliseconds timeout);

  Stats stats() const;

 private:
  class State;
  explicit Server(std::unique_ptr<State> state);
  std::unique_ptr<State> state_;
};

}  // namespace fathom::http
