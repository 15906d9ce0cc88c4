// A group of threads of one process. Ranks read each other's buffers in place; nothing is copied twice.
#pragma once

#include <chrono>
#include <memory>
#include <vector>

#include "dist/group.h"

namespace fathom::dist {

// The world's handles, one a rank. `timeout`: how long a rank waits for another in one collective.
std::vector<std::unique_ptr<Group>> make_thread_groups(int size,
                                                       std::chrono::milliseconds timeout = kDefaultTimeout);

}  // namespace fathom::dist
