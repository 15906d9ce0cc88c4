// Events per second over the last seconds, in constant memory.
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>

namespace fathom::sched {

class RateMeter {
 public:
  void add(int64_t now_ns, int64_t events) {
    advance(now_ns);
    counts_[static_cast<size_t>(bucket_ % kBuckets)] += events;
  }

  // The bucket in progress counts with the time it has lasted.
  double per_second(int64_t now_ns) const {
    if (bucket_ < 0) return 0.0;
    int64_t now_bucket = now_ns / kBucketNs;
    int64_t first = std::max(now_bucket - kBuckets + 1, first_bucket_);
    int64_t events = 0;
    for (int64_t b = first; b <= bucket_; ++b) events += counts_[static_cast<size_t>(b % kBuckets)];
    double seconds = static_cast<double>(now_ns - first * kBucketNs) * 1e-9;
    return seconds < 0.05 ? 0.0 : static_cast<double>(events) / seconds;
  }

 private:
  static constexpr int64_t kBuckets = 10;
  static constexpr int64_t kBucketNs = 500'000'000;

  void advance(int64_t now_ns) {
    int64_t now_bucket = now_ns / kBucketNs;
    if (bucket_ < 0) {
      bucket_ = now_bucket;
      first_bucket_ = now_bucket;
      return;
    }
    if (now_bucket - bucket_ >= kBuckets) {
      counts_.fill(0);
      first_bucket_ = now_bucket;  // silence: start again
      bucket_ = now_bucket;
      return;
    }
    while (bucket_ < now_bucket) counts_[static_cast<size_t>(++bucket_ % kBuckets)] = 0;
  }

  std::array<int64_t, kBuckets> counts_{};
  int64_t bucket_ = -1;       // the one in progress
  int64_t first_bucket_ = 0;  // since when it is counted
};

}  // namespace fathom::sched
