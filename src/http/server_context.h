// What all connections of one server share.
#pragma once

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
        pool(options.max_handlers, options.handler_idle_timeout) {}

  const ServerOptions options;
  const Handler handler;

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

  // Requests that are being read, handled or answered. A WorkToken counts one as long as someone holds it.
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
  ~WorkToken() { context_.work_ended(); }
  WorkToken(const WorkToken&) = delete;
  WorkToken& operator=(const WorkToken&) = delete;

 private:
  ServerContext& context_;
};

}  // namespace fathom::http
