#include "engine/step_trace.h"

#include <fmt/os.h>

#include "base/log.h"

namespace fathom::engine {

StepTrace::~StepTrace() {
  const auto written = write();
  if (written.ok()) {
    LOG_INFO("trace: {} spans in {} ({} beyond the limit dropped)", spans_.size(), path_, dropped_);
  } else {
    LOG_ERROR("trace: {}", written.error().message);
  }
}

void StepTrace::add(Track track, uint64_t step, int64_t rows, int64_t tokens, double start_us, double us,
                    std::optional<double> cpu_us) {
  const std::lock_guard lock(mutex_);
  if (spans_.size() < kMaxSpans) {
    spans_.push_back({track, step, rows, tokens, start_us, us, cpu_us});
  } else {
    ++dropped_;
  }
}

Result<void> StepTrace::write() const {
  try {
    auto file = fmt::output_file(path_);
    file.print(
        "{{\"traceEvents\":[\n"
        "{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":0,\"tid\":0,\"args\":{{\"name\":\"host\"}}}},\n"
        "{{\"name\":\"thread_name\",\"ph\":\"M\",\"pid\":0,\"tid\":1,\"args\":{{\"name\":\"device\"}}}}");
    for (const Span& span : spans_) {
      file.print(
          ",\n{{\"name\":\"step {}\",\"ph\":\"X\",\"pid\":0,\"tid\":{},\"ts\":{:.3f},\"dur\":{:.3f},"
          "\"args\":{{\"rows\":{},\"tokens\":{}",
          span.step, span.track == Track::kHost ? 0 : 1, span.start_us, span.us, span.rows, span.tokens);
      if (span.cpu_us) file.print(",\"cpu_us\":{:.3f}", *span.cpu_us);
      file.print("}}}}");
    }
    file.print("\n]}}\n");
    return {};
  } catch (const std::system_error& failure) {
    return error(ErrorCode::kInvalidArgument, "--trace-file {}: {}", path_, failure.what());
  }
}

}  // namespace fathom::engine
