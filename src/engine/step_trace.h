// When each step was queued and ran, for chrome://tracing or Perfetto (--trace-file): one track of the host's
// work for a step, one of the device's. The gaps of the second are what the device waited.
#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace fathom::engine {

// Thread safe.
class StepTrace {
 public:
  enum class Track : uint8_t { kHost, kDevice };

  // Written when the engine ends. kInvalidArgument when it cannot be.
  explicit StepTrace(std::string path) : path_(std::move(path)) {}
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  // Beyond kMaxSpans further ones are counted, not kept. `cpu_us`: processor time of the thread that ran the
  // step, which tells what others on the machine took from it; nothing where another device computes.
  void add(Track track, uint64_t step, int64_t rows, int64_t tokens, double start_us, double us,
           std::optional<double> cpu_us = {});

 private:
  static constexpr size_t kMaxSpans = 1'000'000;
  struct Span {
    Track track;
    uint64_t step;
    int64_t rows, tokens;
    double start_us, us;
    std::optional<double> cpu_us;
  };

  Result<void> write() const;

  std::string path_;
  std::mutex mutex_;
  std::vector<Span> spans_;
  int64_t dropped_ = 0;
};

}  // namespace fathom::engine
