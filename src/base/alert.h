// Waiting for what comes within microseconds: a thread that sleeps is told of it tens of microseconds late.
// It takes a processor while it lasts.
#pragma once

#include <chrono>
#include <future>
#include <thread>

namespace fathom {

// Returns when the future is ready, or after `longest`. The caller then waits as usual.
template <class T>
void wait_alert(const std::future<T>& future, std::chrono::milliseconds longest) {
  const auto end = std::chrono::steady_clock::now() + longest;
  while (future.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
    if (std::chrono::steady_clock::now() >= end) return;
    std::this_thread::yield();
  }
}

}  // namespace fathom
