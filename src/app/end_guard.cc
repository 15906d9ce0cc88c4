#include "app/end_guard.h"

#include <unistd.h>

#include <cstdio>

#include "base/log.h"
#include "base/thread_start.h"
#include "engine/gpu.h"

namespace fathom::app {

std::chrono::milliseconds end_patience(const ModelArgs& args) {
  return std::chrono::seconds(args.device != "cpu" && engine::gpu_count() > 0 ? 9 : 120);
}

EndGuard::EndGuard(std::chrono::milliseconds patience)
    : thread_([this, patience] {
        begin_thread("end guard");
        std::unique_lock lock(mutex_);
        if (changed_.wait_for(lock, patience, [this] { return over_; })) return;
        LOG_ERROR("stopped, with what has not ended within {:.1f} s",
                  std::chrono::duration<double>(patience).count());
        std::fflush(nullptr);
        _exit(1);
      }) {}

EndGuard::~EndGuard() {
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

}  // namespace fathom::app
