// Log lines for operators: "2026-11-26 12:00:00.123 INFO  message". Thread safe. To stderr, so that stdout
// carries only what a command was asked for.
#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace fathom {

enum class LogLevel { kDebug, kInfo, kWarning, kError, kOff };

// Lines below `level` are dropped. The default is kInfo.
void set_log_level(LogLevel level);
// "debug", "info", "warning", "error" or "off", in any case; false for anything else.
bool parse_log_level(std::string_view text, LogLevel* level);
bool log_enabled(LogLevel level);
void log_line(LogLevel level, const std::string& message);

}  // namespace fathom

#define FATHOM_LOG(level, ...)                                                               \
  do {                                                                                       \
    if (::fathom::log_enabled(level)) ::fathom::log_line(level, ::fmt::format(__VA_ARGS__)); \
  } while (false)
#define LOG_DEBUG(...) FATHOM_LOG(::fathom::LogLevel::kDebug, __VA_ARGS__)
#define LOG_INFO(...) FATHOM_LOG(::fathom::LogLevel::kInfo, __VA_ARGS__)
#define LOG_WARNING(...) FATHOM_LOG(::fathom::LogLevel::kWarning, __VA_ARGS__)
#define LOG_ERROR(...) FATHOM_LOG(::fathom::LogLevel::kError, __VA_ARGS__)
