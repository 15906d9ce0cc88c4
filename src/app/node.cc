#include "app/node.h"

#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <mutex>
#include <sstream>
#include <thread>

#include "app/end_guard.h"
#include "app/serving.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/thread_start.h"
#include "engine/settings.h"

namespace fathom::app {

Result<std::string> read_dist_secret(const ModelArgs& args) {
  std::string secret;
  if (args.dist_secret_file.empty()) {
    if (const char* given = std::getenv("FATHOM_DIST_SECRET")) secret = given;
    return secret;
  }
  std::ifstream file(args.dist_secret_file, std::ios::binary);
  std::ostringstream text;
  if (!file || !(text << file.rdbuf()))
    return error(ErrorCode::kNotFound, "--dist-secret-file {}: cannot be read, or is empty",
                 args.dist_secret_file);
  struct stat status {};
  if (::stat(args.dist_secret_file.c_str(), &status) == 0 && (status.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    LOG_WARNING("--dist-secret-file {}: other users of this machine may open it; chmod 600 keeps it secret",
                args.dist_secret_file);
  }
  secret = text.str();
  while (!secret.empty() && (secret.back() == '\n' || secret.back() == '\r')) secret.pop_back();
  return secret;
}

int run_node(const ModelArgs& args) {
  const int64_t start_ns = steady_clock().now_ns();
  sigset_t signals;
  sigemptyset(&signals);
  for (const int number : {SIGTERM, SIGINT, SIGHUP}) sigaddset(&signals, number);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  std::mutex mutex;
  engine::Node* running = nullptr;  // under the mutex
  std::thread watcher([&] {
    begin_thread("signals");
    const auto next = [&] {
      int number = 0;
      do sigwait(&signals, &number);
      while (number == SIGHUP);  // there are no keys to read again
      return number;
    };
    const int number = next();
    {
      std::lock_guard lock(mutex);
      if (running == nullptr) _exit(number == SIGTERM ? 0 : 130);
      LOG_INFO("told to end: node 0 is asked to drain and end the model");
      running->ask_to_end();
    }
    next();
    _exit(130);
  });
  watcher.detach();

  auto node = engine::start_node(engine_settings(args));
  if (!node.ok()) {
    std::fprintf(stderr, "fathom serve: %s\n", node.error().message.c_str());
    return 1;
  }
  {
    std::lock_guard lock(mutex);
    running = node->get();
  }
  LOG_INFO("node {} of {} is ready in {:.2f} s: node 0 serves clients", args.node_rank, args.nnodes,
           seconds_since(start_ns));
  const Result<void> end = (*node)->run();
  if (end.ok()) {
    LOG_INFO("node 0 has ended the model: stopped");
  } else {
    LOG_ERROR("the model has failed, and node {} ends: {}", args.node_rank, end.error().message);
  }
  const EndGuard guard(end_patience(args));
  std::lock_guard lock(mutex);  // held for good: a signal from now on waits for the end
  node->reset();                // says good-bye to the others
  return end.ok() ? 0 : 1;
}

}  // namespace fathom::app
