// Time behind an interface, so that tests of timeouts and schedules run without waiting.
#pragma once

#include <chrono>
#include <cstdint>

namespace fathom {

class Clock {
 public:
  virtual ~Clock() = default;
  // Nanoseconds since an arbitrary start; never goes back.
  virtual int64_t now_ns() const = 0;
};

class SteadyClock final : public Clock {
 public:
  int64_t now_ns() const override {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(
               std::chrono::steady_clock::now().time_since_epoch())
        .count();
  }
};

// The process's steady clock.
inline const Clock& steady_clock() {
  static const SteadyClock clock;
  return clock;
}
inline double seconds_since(int64_t start_ns) {
  return static_cast<double>(steady_clock().now_ns() - start_ns) * 1e-9;
}

}  // namespace fathom
