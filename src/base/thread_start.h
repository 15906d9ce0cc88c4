// How a thread of Fathom begins.
#pragma once

namespace fathom {

// Called first by every thread that Fathom starts for longer than a moment. The name (its first 15
// characters) is what `top -H`, a debugger and a crash report show; a crash of the thread is told though its
// stack has overflowed.
void begin_thread(const char* name);

}  // namespace fathom
