// Progress of long work (load, generate, bench): a bar with rate and time left on a terminal, a plain line
// every few seconds elsewhere. To stderr. Thread safe.
#pragma once

#include <cstdint>
#include <mutex>
#include <string>

namespace fathom {

class Progress {
 public:
  // Amounts are shown divided by `scale`, as `unit`: Progress("load", bytes, "GB", 1e9).
  Progress(std::string label, double total, std::string unit, double scale = 1.0);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void set(double done);
  void add(double amount);
  // The last line: what was done, how long it took, the rate. Called by the destructor if not before.
  void finish();

 private:
  // Both with the mutex held.
  void update(double done);
  void draw(bool last);

  const std::string label_;
  const double total_;
  const std::string unit_;
  const double scale_;
  const bool terminal_;
  const int64_t start_ns_;
  std::mutex mutex_;
  double done_ = 0.0;
  int64_t drawn_ns_ = 0;
  bool finished_ = false;
};

}  // namespace fathom
