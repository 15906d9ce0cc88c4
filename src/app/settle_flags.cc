#include "app/settle_flags.h"

#include <fcntl.h>
#include <fmt/ranges.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <string_view>

#include "base/log.h"

namespace fathom::app {
namespace {

Result<void> set_level(const std::string& name) {
  LogLevel level;
  if (!parse_log_level(name, &level)) {
    return error(ErrorCode::kInvalidArgument, "--log-level {}: expected debug, info, warning, error or off",
                 name);
  }
  set_log_level(level);
  return {};
}

Result<void> check_model_path(const std::string& path) {
  struct stat status {};
  if (::stat(path.c_str(), &status) != 0) {
    return error(ErrorCode::kNotFound,
                 "--model-path {}: no such folder; nothing is downloaded, give the folder of a downloaded "
                 "checkpoint",
                 path);
  }
  if (!S_ISDIR(status.st_mode)) {
    return error(ErrorCode::kInvalidArgument,
                 "--model-path {}: is a file; give the folder that it lies in, with config.json and "
                 "*.safetensors",
                 path);
  }
  return {};
}

// As in the reference system, the ranks say how many groups and sets there are where nobody else does.
void settle_ranks(const CLI::App& command, ModelArgs& args) {
  if (args.enable_dp_attention && command.count("--dp-size") == 0) {
    args.dp_size = args.tp_size;
    LOG_INFO("--enable-dp-attention without --dp-size: {} groups of requests, as many as --tp-size says",
             args.dp_size);
  }
  if (args.enable_ep_moe && command.count("--ep-size") == 0) args.ep_size = args.tp_size;
}

// It is written when the engine ends: too late to learn that it cannot be.
Result<void> check_trace_file(const std::string& path) {
  if (path.empty()) return {};
  const bool existed = ::access(path.c_str(), F_OK) == 0;
  const int file = ::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  if (file < 0) {
    return error(ErrorCode::kInvalidArgument, "--trace-file {}: {}; expected a file that can be written",
                 path, std::strerror(errno));
  }
  ::close(file);
  if (!existed) ::unlink(path.c_str());
  return {};
}

// 0 and less mean the same in the reference system; in ModelArgs 0 is a flag that is not given.
void settle_chunks(const CLI::App& command, ModelArgs& args) {
  if (args.chunked_prefill_size > 0 || command.get_option_no_throw("--chunked-prefill-size") == nullptr)
    return;
  if (command.count("--chunked-prefill-size") > 0) args.chunked_prefill_size = -1;
}

// Of the reference system, whose settings these are: they have no counterpart here.
void warn_of_environment() {
  std::vector<std::string> names;
  for (char** entry = environ; *entry != nullptr; ++entry) {
    const std::string_view text = *entry;
    if (text.starts_with("SGLANG_")) names.emplace_back(text.substr(0, text.find('=')));
  }
  if (names.empty()) return;
  std::sort(names.begin(), names.end());
  LOG_WARNING("environment: {}: set, but not read; what can be set has a flag (--help)",
              fmt::join(names, ", "));
}

// Commands without a template answer no requests, so that nothing is drawn.
Result<void> check_seed(const CLI::App& command, const ModelArgs& args) {
  if (!args.random_seed || args.load_format == "dummy") return {};
  if (command.get_option_no_throw("--chat-template") != nullptr) return {};
  return error(ErrorCode::kInvalidArgument,
               "--random-seed {}: here it is of dummy weights alone, and nothing is drawn; add --load-format "
               "dummy, or leave it out",
               *args.random_seed);
}

}  // namespace

void log_notes(const std::vector<std::string>& notes) {
  for (const auto& note : notes) LOG_WARNING("{}", note);
}

Result<void> settle_flags(const CLI::App& command, const std::vector<std::string>& notes, ModelArgs& args) {
  FATHOM_TRY(set_level(args.log_level));
  if (command.count("--model-path") > 0) FATHOM_TRY(check_model_path(args.model_path));
  FATHOM_TRY(check_seed(command, args));
  FATHOM_TRY(check_trace_file(args.trace_file));
  warn_of_environment();
  log_notes(notes);
  settle_ranks(command, args);
  settle_chunks(command, args);
  return {};
}

}  // namespace fathom::app
