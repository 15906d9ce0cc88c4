#include "engine/step_trace.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <fstream>
#include <utility>

#include "base/log.h"

namespace fathom::engine {
namespace {

constexpr size_t kMostSpans = 1'000'000;

}  // namespace

StepTrace::~StepTrace() {
  if (path_.empty()) return;
  std::ofstream file(path_, std::ios::binary);
  if (file && file << trace_document({all_.events(0)}) && file.flush()) {
    LOG_INFO("trace: {} spans in {} ({} beyond the limit dropped)", all_.spans.size(), path_, all_.dropped);
  } else {
    LOG_ERROR("trace: --trace-file {} cannot be written", path_);
  }
}

void TraceSpans::add(const Span& span) {
  if (spans.size() < kMostSpans) {
    spans.push_back(span);
  } else {
    ++dropped;
  }
}

void StepTrace::add(Track track, uint64_t step, int64_t rows, int64_t tokens, double start_us, double us,
                    std::optional<double> cpu_us) {
  const std::lock_guard lock(mutex_);
  const TraceSpans::Span span{track, step, rows, tokens, start_us, us, cpu_us};
  if (!path_.empty()) all_.add(span);
  if (recorded_) recorded_->add(span);
}

void StepTrace::start() {
  const std::lock_guard lock(mutex_);
  recorded_.emplace();
  wanted_.store(true, std::memory_order_relaxed);
}

std::optional<std::string> StepTrace::stop(int pid) {
  std::optional<TraceSpans> recorded;
  {
    const std::lock_guard lock(mutex_);
    recorded = std::exchange(recorded_, std::nullopt);
    wanted_.store(!path_.empty(), std::memory_order_relaxed);
  }
  if (!recorded) return std::nullopt;
  return recorded->events(pid);
}

std::string TraceSpans::events(int pid) const {
  std::string text;
  const auto to = std::back_inserter(text);
  fmt::format_to(
      to,
      "{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":{0},\"tid\":0,\"args\":{{\"name\":\"host\"}}}},\n"
      "{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":{0},\"tid\":1,\"args\":{{\"name\":\"device\"}}}}",
      pid);
  for (const Span& span : spans) {
    fmt::format_to(
        to,
        ",\n{{\"name\":\"step {}\",\"ph\":\"X\",\"pid\":{},\"tid\":{},\"ts\":{:.3f},\"dur\":{:.3f},"
        "\"args\":{{\"rows\":{},\"tokens\":{}",
        span.step, pid, span.track == TraceTrack::kHost ? 0 : 1, span.start_us, span.us, span.rows,
        span.tokens);
    if (span.cpu_us) fmt::format_to(to, ",\"cpu_us\":{:.3f}", *span.cpu_us);
    text += "}}";
  }
  return text;
}

std::string trace_document(const std::vector<std::string>& events) {
  return fmt::format("{{\"traceEvents\":[\n{}\n]}}\n", fmt::join(events, ",\n"));
}

}  // namespace fathom::engine
