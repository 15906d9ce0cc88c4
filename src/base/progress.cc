#include "base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

#include "base/clock.h"
#include "base/log.h"

namespace fathom {
namespace {

constexpr int64_t kTerminalInterval = 100'000'000;  // ns between two drawings
constexpr int64_t kPlainInterval = 5'000'000'000;

}  // namespace

Progress::Progress(std::string label, double total, std::string unit, double scale)
    : label_(std::move(label)),
      total_(total),
      unit_(std::move(unit)),
      scale_(scale),
      terminal_(isatty(STDERR_FILENO) == 1),
      start_ns_(steady_clock().now_ns()),
      drawn_ns_(start_ns_) {}

Progress::~Progress() {
  finish();
}

void Progress::set(double done) {
  std::lock_guard lock(mutex_);
  update(done);
}

void Progress::add(double amount) {
  std::lock_guard lock(mutex_);
  update(done_ + amount);
}

void Progress::update(double done) {
  done_ = done;
  const int64_t now = steady_clock().now_ns();
  if (now - drawn_ns_ < (terminal_ ? kTerminalInterval : kPlainInterval)) return;
  drawn_ns_ = now;
  draw(false);
}

void Progress::finish() {
  std::lock_guard lock(mutex_);
  if (finished_) return;
  finished_ = true;
  draw(true);
}

void Progress::draw(bool last) {
  if (!log_enabled(LogLevel::kInfo)) return;
  const double seconds = std::max(seconds_since(start_ns_), 1e-9);
  const double rate = done_ / seconds;
  const double share = total_ > 0 ? std::clamp(done_ / total_, 0.0, 1.0) : 0.0;
  const std::string count = fmt::format("{:.4g} of {:.4g} {}, {:.4g} {}/s", done_ / scale_, total_ / scale_,
                                        unit_, rate / scale_, unit_);
  if (last) {
    if (terminal_) std::fputs("\r\033[K", stderr);
    log_line(LogLevel::kInfo, fmt::format("{}: {}, {:.2f} s", label_, count, seconds));
    return;
  }
  const double left = rate > 0 ? (total_ - done_) / rate : 0.0;
  if (!terminal_) {
    log_line(LogLevel::kInfo,
             fmt::format("{}: {:.0f} %, {}, {:.0f} s left", label_, share * 100, count, left));
    return;
  }
  constexpr int kWidth = 24;
  const int full = static_cast<int>(share * kWidth);
  const std::string bar =
      std::string(static_cast<size_t>(full), '#') + std::string(static_cast<size_t>(kWidth - full), '.');
  std::fprintf(stderr, "\r\033[K%s [%s] %3.0f %%  %s, %.0f s left", label_.c_str(), bar.c_str(), share * 100,
               count.c_str(), left);
  std::fflush(stderr);
}

}  // namespace fathom
