// What the server costs by itself, on loopback, client threads in the same process and on the same cores:
//   requests/s with kept-alive connections, one request at a time each;
//   chunks/s of event streams, many at once, with the bytes of a typical token event.
// serve_bench [seconds a row, default 1]
#include <fmt/format.h>
#include <sys/resource.h>

#include <atomic>
#include <chrono>
#include <cstdlib>
#include <string>
#include <thread>
#include <vector>

#include "http/client.h"
#include "http/server.h"
#include "http/sse.h"

namespace fathom::http {
namespace {

using Clock = std::chrono::steady_clock;

double seconds_of(const timeval& time) {
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
}
double cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  return seconds_of(usage.ru_utime) + seconds_of(usage.ru_stime);
}

struct Rate {
  double per_second;
  double cpu_us;  // of server and clients together, for one
};

// Runs `client(stop)` on `clients` threads; each returns how much it did.
template <class ClientLoop>
Rate measure(int clients, double seconds, const ClientLoop& client) {
  std::atomic<bool> stop{false};
  std::atomic<int64_t> total{0};
  const double cpu_begin = cpu_seconds();
  const auto begin = Clock::now();
  std::vector<std::thread> threads;
  for (int i = 0; i < clients; ++i) threads.emplace_back([&] { total += client(stop); });
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  stop = true;
  for (std::thread& thread : threads) thread.join();
  const double elapsed = std::chrono::duration<double>(Clock::now() - begin).count();
  const auto count = static_cast<double>(total.load());
  return {count / elapsed, (cpu_seconds() - cpu_begin) / count * 1e6};
}

void run(double seconds) {
  const std::string token_event = sse_event(
      R"({"id":"chatcmpl-0123456789abcdef","object":"chat.completion.chunk","created":1764158400,)"
      R"("model":"deepseek","choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]})");
  std::atomic<bool> stop_streams{false};
  ServerOptions options;
  options.port = 0;
  auto server = Server::start(options, [&](const Request& request, ResponseWriter& writer) {
    if (request.path == "/stream") {
      if (!writer.begin_stream(200, "text/event-stream")) return;
      while (!stop_streams && writer.write(token_event)) {
      }
      return;
    }
    writer.send(
        {.status = 200, .content_type = "application/json", .headers = {}, .body = R"({"status":"ok"})"});
  });
  server.value();
  const uint16_t port = (*server)->port();

  fmt::print("{:28} {:>12} {:>16}\n", "kept-alive requests", "requests/s", "CPU us/request");
  for (const int clients : {1, 8, 64}) {
    const Rate rate = measure(clients, seconds, [&](const std::atomic<bool>& stop) {
      Client client("127.0.0.1", port);
      int64_t done = 0;
      while (!stop && client.post("/", R"({"prompt":"Hello"})").ok()) ++done;
      return done;
    });
    fmt::print("{:28} {:12.0f} {:16.1f}\n", fmt::format("{} clients", clients), rate.per_second, rate.cpu_us);
  }
  fmt::print("{:28} {:>12} {:>16}\n", fmt::format("streams, chunks of {} B", token_event.size()), "chunks/s",
             "CPU us/chunk");
  for (const int clients : {1, 16, 200}) {
    stop_streams = false;
    const Rate rate = measure(clients, seconds, [&](const std::atomic<bool>& stop) {
      Client client("127.0.0.1", port);
      int64_t bytes = 0;
      (void)client.stream("GET", "/stream", {}, {}, [&](std::string_view piece) {
        bytes += static_cast<int64_t>(piece.size());
        return !stop;
      });
      return bytes / static_cast<int64_t>(token_event.size());
    });
    stop_streams = true;
    fmt::print("{:28} {:12.0f} {:16.1f}\n", fmt::format("{} streams", clients), rate.per_second, rate.cpu_us);
  }
}

}  // namespace
}  // namespace fathom::http

int main(int argc, char** argv) {
  fathom::http::run(argc > 1 ? std::atof(argv[1]) : 1.0);
  return 0;
}
