#include "base/process.h"

#include <time.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <system_error>

namespace fathom {
namespace {

// Field `index` of /proc/self/stat counted from 0 after the command's name, which may hold anything.
std::string stat_field(const std::string& stat, int index) {
  const size_t name_end = stat.rfind(") ");
  if (name_end == std::string::npos) return "0";
  std::istringstream fields(stat.substr(name_end + 2));
  std::string field;
  for (int i = 0; i <= index; ++i) fields >> field;
  return field.empty() ? "0" : field;
}

}  // namespace

ProcessReading read_process() {
  ProcessReading reading;
  std::string stat;
  std::getline(std::ifstream("/proc/self/stat"), stat);
  const auto ticks_per_second = static_cast<double>(::sysconf(_SC_CLK_TCK));
  const auto field = [&](int index) { return std::strtod(stat_field(stat, index).c_str(), nullptr); };
  reading.cpu_seconds = (field(11) + field(12)) / ticks_per_second;
  reading.threads = static_cast<int64_t>(field(17));
  reading.resident_bytes = static_cast<int64_t>(field(21)) * ::sysconf(_SC_PAGESIZE);

  double uptime = 0.0;
  std::ifstream("/proc/uptime") >> uptime;
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  reading.start_seconds = now - uptime + field(19) / ticks_per_second;

  std::error_code ignored;
  const std::filesystem::directory_iterator files("/proc/self/fd", ignored);
  reading.open_files = std::distance(begin(files), end(files));
  return reading;
}

int64_t thread_cpu_ns() {
  timespec time{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return int64_t{time.tv_sec} * 1'000'000'000 + time.tv_nsec;
}

}  // namespace fathom
