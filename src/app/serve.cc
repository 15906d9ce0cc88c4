#include <pthread.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <thread>

#include "app/args.h"
#include "app/serving.h"
#include "base/clock.h"
#include "base/log.h"
#include "http/server.h"

namespace fathom::app {
namespace {

// The signals that end the server, taken by sigwait on the main thread; blocked in every other one.
sigset_t ending_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  return set;
}

int fail(const Error& failure) {
  std::fprintf(stderr, "fathom serve: %s\n", failure.message.c_str());
  return 1;
}

}  // namespace

int run_serve(const ServeArgs& args) {
  const int64_t start_ns = steady_clock().now_ns();
  LogLevel level;
  if (!parse_log_level(args.model.log_level, &level)) {
    return fail({ErrorCode::kInvalidArgument,
                 "--log-level " + args.model.log_level + ": expected debug, info, warning, error or off"});
  }
  set_log_level(level);
  const sigset_t signals = ending_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  // The port is taken first, so that a wrong one is known before a long load; until the model is ready every
  // request is told to come back.
  std::atomic<api::Service*> service{nullptr};
  http::ServerOptions options;
  options.host = args.host;
  options.port = static_cast<uint16_t>(args.port);
  options.max_connections = args.max_connections;
  auto server = http::Server::start(options, [&](const http::Request& request, http::ResponseWriter& writer) {
    if (auto* ready = service.load(std::memory_order_acquire)) return ready->handle(request, writer);
    auto answer = http::json_error(503, "starting", "The model is being loaded; try again soon.");
    answer.headers.emplace_back("Retry-After", "1");
    writer.send(std::move(answer));
  });
  if (!server.ok()) return fail(server.error());

  // A signal during the load ends the process at once: there is nothing to drain.
  std::atomic<bool> loaded{false};
  std::atomic<int> signal_taken{0};
  std::thread watcher([&] {
    int number = 0;
    sigwait(&signals, &number);
    signal_taken.store(number);
    if (!loaded.load()) _exit(number == SIGTERM ? 0 : 130);
    signal_taken.notify_all();
    sigwait(&signals, &number);  // a second one does not wait for requests
    _exit(130);
  });
  watcher.detach();

  auto serving = Serving::start(args.model, args.served_model_name, args.api_key, args.keep_alive_interval);
  if (!serving.ok()) return fail(serving.error());
  (*serving)->service().set_ready();
  service.store(&(*serving)->service(), std::memory_order_release);
  loaded.store(true);
  LOG_INFO("ready in {:.2f} s: http://{} (OpenAI base URL http://{}/v1)", seconds_since(start_ns),
           (*server)->address(), (*server)->address());

  Result<void> state;
  while (signal_taken.load() == 0 && (state = (*serving)->state()).ok()) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
  }
  if (!state.ok()) {
    LOG_ERROR("the engine has failed, and the server ends: {}", state.error().message);
  } else {
    LOG_INFO("draining: new requests are refused, running ones have {} s", args.drain_timeout);
    const bool drained = (*serving)->drain(std::chrono::seconds(args.drain_timeout));
    if (!drained) LOG_WARNING("the drain timeout came first; the remaining requests are aborted");
  }
  (*server)->stop_accepting();
  (*serving)->stop();  // streams that are left end with an error
  (*server)->drain(std::chrono::seconds(2));
  server->reset();  // before the service that its handlers use
  serving->reset();
  LOG_INFO("stopped");
  return state.ok() ? 0 : 1;
}

}  // namespace fathom::app
