// What a crash leaves in the log. On SIGSEGV, SIGBUS, SIGILL, SIGFPE and SIGABRT the process writes to stderr
//
//   fathom 0.1.0 crashed: SIGSEGV at address 0x10, in thread 4711 (scheduler) of process 4700
//   the stack: addr2line -Cfipe /usr/bin/fathom 0x3f2a0f 0x3f2b43 0x41d05a
//   /usr/bin/fathom(+0x3f2a0f)[0x55d0c4a2ea0f]
//   /lib/x86_64-linux-gnu/libc.so.6(abort+0xd3)[0x7f8606e46472]
//
// and then ends as it would have without this: by the same signal, with the same core dump.
#pragma once

#include <chrono>

namespace fathom {

// From here on. Other signals keep what they have. A report that cannot be written, because nobody reads
// stderr, is left behind after `patience`. `version` must live as long as the process. False under ASan and
// TSan, which tell of crashes themselves: nothing is changed there.
bool report_crashes(const char* version, std::chrono::milliseconds patience = std::chrono::seconds(10));

// Gives the calling thread a stack for the report, until the thread ends: where its own has overflowed the
// process could say nothing else. It costs addresses, memory only when used. begin_thread() does this for
// Fathom's threads; those of libraries (the CUDA driver's, NCCL's) go without: all that crashes there is told
// but an overflow of the stack.
void give_crash_stack();

}  // namespace fathom
