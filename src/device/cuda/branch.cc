#include "device/cuda/branch.h"

namespace fathom::device::cuda {

Result<Branch> Branch::create(const Gpu& gpu) {
  Branch branch;
  FATHOM_ASSIGN(branch.side_, Stream::create(gpu));
  FATHOM_ASSIGN(branch.forked_, Event::create());
  FATHOM_ASSIGN(branch.joined_, Event::create());
  return branch;
}

Stream& Branch::fork(Stream& main) {
  if (!forks(main)) return main;
  main.record(forked_);
  side_->wait(forked_);
  return *side_;
}

void Branch::join(Stream& main) {
  if (!forks(main)) return;
  side_->record(joined_);
  main.wait(joined_);
  main.adopt_fault(*side_);
}

}  // namespace fathom::device::cuda
