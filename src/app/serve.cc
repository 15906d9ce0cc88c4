#include <malloc.h>
#include <pthread.h>

#include <atomic>
#include <csignal>
#include <cstdio>
#include <thread>

#include "app/args.h"
#include "app/end_guard.h"
#include "app/key_file.h"
#include "app/node.h"
#include "app/serve_flags.h"
#include "app/serving.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread_start.h"
#include "http/server.h"

namespace fathom::app {
namespace {

// The signals that end the server, and SIGHUP, which has it read its keys again: taken by sigwait on a thread
// of their own, blocked in every other one.
sigset_t taken_signals() {
  sigset_t set;
  sigemptyset(&set);
  sigaddset(&set, SIGTERM);
  sigaddset(&set, SIGINT);
  sigaddset(&set, SIGHUP);
  return set;
}

// A file that is wrong changes nothing, so that an editor's half a file locks nobody out.
void reload_keys(KeyFile& file, api::Service& service) {
  const auto keys = file.read();
  if (!keys.ok()) {
    LOG_ERROR("{}; the keys read before stay in force", keys.error().message);
    return;
  }
  service.set_keys(*keys);
  LOG_INFO("{}: {} keys are in force", file.path(), keys->size());
}

int fail(const Error& failure) {
  std::fprintf(stderr, "fathom serve: %s\n", failure.message.c_str());
  return 1;
}

}  // namespace

int run_serve(const ServeArgs& args) {
  const int64_t start_ns = steady_clock().now_ns();
  // Each of the hundreds of threads that answer requests would otherwise end up with a heap of its own, whose
  // holes the others cannot use: memory would grow for hours.
  mallopt(M_ARENA_MAX, 8);
  // Whoever reads the log may go, and come back: lines are lost then, not requests.
  std::signal(SIGPIPE, SIG_IGN);
  ModelArgs model = args.model;
  if (model.nnodes > 1) {
    auto secret = read_dist_secret(model);
    if (!secret.ok()) return fail(secret.error());
    model.dist_secret = std::move(*secret);
  }
  if (model.node_rank > 0) return run_node(model);
  const sigset_t signals = taken_signals();
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);

  // The port is taken first, so that a wrong one is known before a long load; until the model is ready every
  // request is told to come back.
  std::atomic<api::Service*> service{nullptr};
  auto service_choice = service_options(args);
  if (!service_choice.ok()) return fail(service_choice.error());
  KeyFile key_file(args.api_key_file);
  if (!args.api_key_file.empty()) {
    auto keys = key_file.read();
    if (!keys.ok()) return fail(keys.error());
    service_choice->keys = std::move(*keys);
  }
  http::ServerOptions http_options = server_options(args);
  http_options.needs = [&service](const http::Request& head) {
    const auto* ready = service.load(std::memory_order_acquire);
    return ready != nullptr ? ready->needs(head) : http::RequestNeeds{.body = false};
  };
  auto server =
      http::Server::start(std::move(http_options), [&](http::Request& request, http::ResponseWriter& writer) {
        if (auto* ready = service.load(std::memory_order_acquire)) return ready->handle(request, writer);
        auto answer = http::json_error(503, "starting", "The model is being loaded; try again soon.");
        answer.headers.emplace_back("Retry-After", "1");
        writer.send(std::move(answer));
      });
  if (!server.ok()) return fail(server.error());

  // A signal during the load ends the process at once: there is nothing to drain.
  std::atomic<bool> loaded{false};
  std::atomic<int> signal_taken{0};
  std::atomic<bool> hung_up{false};
  std::thread watcher([&] {
    begin_thread("signals");
    int number = 0;
    while (sigwait(&signals, &number) == 0 && number == SIGHUP) hung_up.store(true);
    signal_taken.store(number);
    if (!loaded.load()) _exit(number == SIGTERM ? 0 : 130);
    signal_taken.notify_all();
    do sigwait(&signals, &number);  // a second one does not wait for requests
    while (number == SIGHUP);
    _exit(130);
  });
  watcher.detach();

  service_choice->http_stats = [&server] { return (*server)->stats(); };
  auto serving = Serving::start(model, args.served_model_name, *service_choice);
  if (!serving.ok()) return fail(serving.error());
  (*serving)->service().set_ready();
  service.store(&(*serving)->service(), std::memory_order_release);
  loaded.store(true);
  LOG_INFO("ready in {:.2f} s: http://{} (OpenAI base URL http://{}/v1)", seconds_since(start_ns),
           (*server)->address(), (*server)->address());

  Result<void> state;
  while (signal_taken.load() == 0 && (state = (*serving)->state()).ok()) {
    if (const auto node = (*serving)->asked_to_end()) {
      LOG_INFO("node {} was told to end", *node);
      break;
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(100));
    const bool asked = hung_up.exchange(false);
    if (!args.api_key_file.empty() && (asked || key_file.changed())) {
      reload_keys(key_file, (*serving)->service());
    }
  }
  if (!state.ok()) {
    LOG_ERROR("the engine has failed, and the server ends: {}", state.error().message);
  } else {
    LOG_INFO("draining: new requests are refused, running ones have {} s", args.drain_timeout);
    const bool drained = (*serving)->drain(std::chrono::seconds(args.drain_timeout));
    if (!drained) LOG_WARNING("the drain timeout came first; the remaining requests are aborted");
  }
  (*server)->stop_accepting();
  const EndGuard guard(end_patience(model));
  (*serving)->stop();  // streams that are left end with an error
  (*server)->drain(std::chrono::seconds(2));
  if ((*serving)->hangs()) {
    LOG_ERROR("stopped, with what hangs");
    std::fflush(nullptr);
    _exit(1);  // the engine's threads wait for the device
  }
  server->reset();  // before the service that its handlers use
  serving->reset();
  LOG_INFO("stopped");
  return state.ok() ? 0 : 1;
}

}  // namespace fathom::app
