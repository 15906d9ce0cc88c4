// A clock for tests and benches: it stands until it is set.
#pragma once

#include "base/clock.h"

namespace fathom::sched {

class ManualClock final : public Clock {
 public:
  int64_t now_ns() const override { return ns; }
  int64_t ns = 0;
};

}  // namespace fathom::sched
