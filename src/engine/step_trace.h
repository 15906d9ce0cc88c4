// When each step was queued and ran, for chrome://tracing or Perfetto: one track of the host's work for a
// step, one of the device's. The gaps of the second are what the device waited. Of all steps (--trace-file),
// or of those between two calls (/start_profile, /stop_profile).
#pragma once

#include <atomic>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "base/result.h"

namespace fathom::engine {

enum class TraceTrack : uint8_t { kHost, kDevice };

// Beyond a million spans further ones are counted, not kept.
struct TraceSpans {
  struct Span {
    TraceTrack track;
    uint64_t step;
    int64_t rows, tokens;
    double start_us, us;
    std::optional<double> cpu_us;
  };
  std::vector<Span> spans;
  int64_t dropped = 0;

  void add(const Span& span);
  // Events of Chrome's format in process `pid`, comma-separated.
  std::string events(int pid) const;
};

// Thread safe.
class StepTrace {
 public:
  using Track = TraceTrack;

  // With a path: all steps, written when the engine ends.
  explicit StepTrace(std::string path) : path_(std::move(path)), wanted_(!path_.empty()) {}
  ~StepTrace();
  StepTrace(const StepTrace&) = delete;
  StepTrace& operator=(const StepTrace&) = delete;

  // Whether add() keeps anything now.
  bool wanted() const { return wanted_.load(std::memory_order_relaxed); }
  // `cpu_us`: processor time of the thread that ran the step, which tells what others on the machine took
  // from it; nothing where another device computes.
  void add(Track track, uint64_t step, int64_t rows, int64_t tokens, double start_us, double us,
           std::optional<double> cpu_us = {});

  // Steps from now on; a recording that runs begins anew.
  void start();
  // Those since, as events of Chrome's format in process `pid`, comma-separated; nothing was started: none.
  std::optional<std::string> stop(int pid);

 private:
  const std::string path_;
  std::atomic<bool> wanted_;
  std::mutex mutex_;
  TraceSpans all_;                      // with a path
  std::optional<TraceSpans> recorded_;  // while a recording runs
};

// A document of such events.
std::string trace_document(const std::vector<std::string>& events);

}  // namespace fathom::engine
