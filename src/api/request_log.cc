#include "api/request_log.h"

#include <atomic>
#include <cerrno>
#include <chrono>
#include <cstring>
#include <ctime>

#include "api/errors.h"
#include "api/tenants.h"
#include "base/clock.h"
#include "base/log.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

constexpr size_t kPartial = 2048;

std::string utc_now() {
  const auto now = std::chrono::system_clock::now();
  const std::time_t seconds = std::chrono::system_clock::to_time_t(now);
  const auto milliseconds =
      std::chrono::duration_cast<std::chrono::milliseconds>(now.time_since_epoch()).count() % 1000;
  std::tm parts{};
  gmtime_r(&seconds, &parts);
  char text[32];
  const size_t length = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%S", &parts);
  return fmt::format("{}.{:03}Z", std::string_view(text, length), milliseconds);
}

double rounded(double seconds) {
  return static_cast<double>(static_cast<int64_t>(seconds * 1e6)) * 1e-6;
}

ordered_json head(const http::Request& request, const Caller& caller) {
  ordered_json line;
  line["request_id"] = caller.request_id;
  line["key"] = caller.tenant != nullptr ? ordered_json(caller.tenant->name()) : ordered_json();
  line["remote"] = request.remote;
  line["method"] = request.method;
  line["path"] = request.path;
  return line;
}

// As much of `text` as the level shows.
ordered_json shown(const std::string& text, int level) {
  if (level >= 3 || text.size() <= kPartial) return text;
  return text.substr(0, kPartial) + "...";
}

}  // namespace

Result<std::shared_ptr<RequestLog>> RequestLog::open(const RequestLogOptions& options) {
  std::FILE* file = nullptr;
  if (options.target == "stderr") {
    file = stderr;
  } else if (options.target == "stdout") {
    file = stdout;
  } else {
    file = std::fopen(options.target.c_str(), "ae");
    if (file == nullptr) {
      return error(ErrorCode::kInvalidArgument,
                   "--log-requests-target {}: {}; expected stderr, stdout or a file that can be appended to",
                   options.target, std::strerror(errno));
    }
  }
  return std::shared_ptr<RequestLog>(new RequestLog(options, file));
}

RequestLog::RequestLog(RequestLogOptions options, std::FILE* file)
    : options_(std::move(options)), file_(file) {}

RequestLog::~RequestLog() {
  if (file_ != stderr && file_ != stdout) std::fclose(file_);
}

void RequestLog::received(const http::Request& request, const Caller& caller) {
  ordered_json line = head(request, caller);
  const RequestRecord& record = caller.record;
  line["rid"] = record.rid;
  line["choices"] = record.choices;
  line["prompt_tokens"] = record.prompt_tokens;
  if (options_.level >= 1) line["sampling"] = record.sampling;
  if (options_.level >= 2) line["input"] = shown(request.body, options_.level);
  write("received", line);
}

void RequestLog::finished(const http::Request& request, const Caller& caller, int status) {
  ordered_json line = head(request, caller);
  line["status"] = status == 0 ? ordered_json() : ordered_json(status);
  line["seconds"] = rounded(seconds_since(caller.arrived_ns));
  const RequestRecord& record = caller.record;
  if (record.choices > 0) {
    line["rid"] = record.rid;
    line["choices"] = record.choices;
    line["prompt_tokens"] = record.prompt_tokens;
    line["cached_tokens"] = record.cached_tokens;
    line["output_tokens"] = record.output_tokens;
    line["finish"] = record.finish;
    if (!record.disconnected_in.empty()) line["disconnected_in"] = record.disconnected_in;
    if (record.queue_seconds >= 0) line["queue_seconds"] = rounded(record.queue_seconds);
    if (record.first_token_seconds >= 0) line["first_token_seconds"] = rounded(record.first_token_seconds);
  }
  if (options_.level >= 2) {
    // A refused request was not logged when it came.
    if (record.choices == 0) line["input"] = shown(request.body, options_.level);
    ordered_json& output = line["output"] = ordered_json::array();
    for (const std::string& text : record.outputs) output.push_back(shown(text, options_.level));
  }
  write("finished", line);
}

void RequestLog::write(const char* event, const ordered_json& line) {
  std::string text;
  if (options_.json) {
    ordered_json whole = {{"time", utc_now()}, {"event", event}};
    whole.update(line);
    text = dump(whole);
  } else {
    text = fmt::format("{} request {}", utc_now(), event);
    for (const auto& [name, value] : line.items()) text += fmt::format(" {}={}", name, dump(value));
  }
  text += '\n';
  std::lock_guard lock(mutex_);
  const bool written = std::fwrite(text.data(), 1, text.size(), file_) == text.size();
  if (std::fflush(file_) == 0 && written) return;
  static std::atomic_flag told;  // a full disk would fill the log too
  if (!told.test_and_set()) {
    LOG_WARNING("--log-requests-target {}: {}; lines are lost from here on, and no more is said of it",
                options_.target, std::strerror(errno));
  }
}

}  // namespace fathom::api
