// What all connections of one server share.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>

#include "http/handler_pool.h"
#include "http/server.h"

namespace fathom::http {

struct ServerContext {
  ServerContext(ServerOptions server_options, Handler request_handler)
      : options(std::move(server_options)),
        handler(std::move(request_handler)),
        bodies_limit(std::max(options.max_bodies_bytes, 2 * options.max_body_bytes)),
        pool(options.max_handlers, options.reserved_handlers, options.handler_idle_timeout) {}

  const ServerOptions options;
  const Handler handler;
  const size_t bodies_limit;

  std::atomic<bool> draining{false};  // no new requests on open connections
  std::atomic<bool> stopping{false};  // no connections at all
  std::atomic<int64_t> connections_total{0};
  std::atomic<int64_t> requests_total{0};
  std::atomic<int64_t> refused_busy{0};
  std::atomic<int64_t> bad_requests{0};
  std::atomic<int64_t> timeouts{0};
  std::atomic<int64_t> clients_gone{0};
  std::atomic<int> connections_open{0};
  std::atomic<int> handlers_active{0};
  std::atomic<size_t> bodies_bytes{0};  // what WorkTokens count

  // Requests that are being read, handled or answered. A WorkToken counts one, and its body, as long as
  // someone holds it.
  void work_began() {
    std::lock_guard lock(work_mutex);
    ++work;
  }
  void work_ended() {
    std::lock_guard lock(work_mutex);
    if (--work == 0) work_done.notify_all();
  }
  bool wait_for_no_work(std::chrono::milliseconds timeout) {
    std::unique_lock lock(work_mutex);
    return work_done.wait_for(lock, timeout, [&] { return work == 0; });
  }

  std::mutex work_mutex;
  std::condition_variable work_done;
  int work = 0;

  HandlerPool pool;  // last: its threads use the members above
};

class WorkToken {
 public:
  explicit WorkToken(ServerContext& context) : context_(context) { context_.work_began(); }
  ~WorkToken() {
    context_.bodies_bytes -= body_bytes_;
    context_.work_ended();
  }
  WorkToken(const WorkToken&) = delete;
  WorkToken& operator=(const WorkToken&) = delete;

  // The request's body has so many bytes now. False: more than all others leave.
  bool count_body(size_t bytes) {
    const size_t all = context_.bodies_bytes += bytes - body_bytes_;
    body_bytes_ = bytes;
    return bytes == 0 || (all <= context_.bodies_limit && bytes <= context_.bodies_limit - all);
  }

 private:
  ServerContext& context_;
  size_t body_bytes_ = 0;
};

}  // namespace fathom::http
