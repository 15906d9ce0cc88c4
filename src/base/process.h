// What the kernel says of this process.
#pragma once

#include <cstdint>

namespace fathom {

struct ProcessReading {
  int64_t resident_bytes = 0;
  double cpu_seconds = 0.0;    // user and system
  double start_seconds = 0.0;  // Unix time
  int64_t open_files = 0;
  int64_t threads = 0;
};

// Reads /proc; what cannot be read is 0. Thread safe.
ProcessReading read_process();

// Processor time that this thread has had, user and system, in ns.
int64_t thread_cpu_ns();

}  // namespace fathom
