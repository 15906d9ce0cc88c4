// Is a peer fast enough? It may pause for `grace` at most, and after its first `grace` it must keep up a
// lowest rate on the average. Catches those who stop and those who send or read a byte now and then.
#pragma once

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>

namespace fathom::http {

class Pace {
 public:
  using Clock = std::chrono::steady_clock;

  Pace() = default;
  Pace(std::chrono::milliseconds grace, size_t bytes_per_second, Clock::time_point now)
      : grace_(grace),
        bytes_per_second_(std::max<size_t>(bytes_per_second, 1)),
        began_(now),
        last_progress_(now) {}

  // `bytes`: all that was transferred since the beginning.
  void progress(uint64_t bytes, Clock::time_point now) {
    if (bytes <= bytes_) return;
    bytes_ = bytes;
    last_progress_ = now;
  }

  Clock::time_point deadline() const {
    const auto earned = std::chrono::milliseconds(bytes_ * 1000 / bytes_per_second_);
    return std::min(began_ + earned, last_progress_) + grace_;
  }

 private:
  std::chrono::milliseconds grace_{0};
  size_t bytes_per_second_ = 1;
  Clock::time_point began_;
  Clock::time_point last_progress_;
  uint64_t bytes_ = 0;
};

}  // namespace fathom::http
