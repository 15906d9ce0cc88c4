#include "dist/cuda/nccl_comms.h"

#include <algorithm>
#include <thread>

#include "base/thread_start.h"

namespace fathom::dist::cuda {

void NcclComms::add(Nccl::Comm comm) {
  const std::lock_guard lock(mutex_);
  comms_.push_back(comm);
}

bool NcclComms::remove(Nccl::Comm comm) {
  const std::lock_guard lock(mutex_);
  return std::erase(comms_, comm) > 0;
}

void NcclComms::end(const std::shared_ptr<NcclComms>& comms, std::chrono::milliseconds patience) {
  comms->ended_.store(true, std::memory_order_release);
  // Who calls from now on finds that they have ended.
  { const std::unique_lock lock(comms->calls_, patience); }
  const std::lock_guard lock(comms->mutex_);
  for (const Nccl::Comm comm : comms->comms_) {
    ++comms->aborting_;
    std::thread([comms, comm] {
      begin_thread("nccl abort");
      (void)comms->nccl_.comm_abort(comm);
      const std::lock_guard done(comms->mutex_);
      --comms->aborting_;
      comms->changed_.notify_all();
    }).detach();
  }
  comms->comms_.clear();
}

bool NcclComms::wait(std::chrono::milliseconds patience) {
  std::unique_lock lock(mutex_);
  return changed_.wait_for(lock, patience, [&] { return aborting_ == 0; });
}

}  // namespace fathom::dist::cuda
