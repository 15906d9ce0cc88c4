#include "base/thread_start.h"

#include <sys/prctl.h>

#include "base/crash_report.h"

namespace fathom {

void begin_thread(const char* name) {
  prctl(PR_SET_NAME, name);
  give_crash_stack();
}

}  // namespace fathom
