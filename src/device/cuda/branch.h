// A second queue beside a stream, for launches that need not wait for each other: small kernels that leave
// most of the GPU idle run at the same time. Works while a graph is captured, too. Not thread safe.
#pragma once

#include <memory>

#include "device/cuda/stream.h"

namespace fathom::device::cuda {

class Branch {
 public:
  static Result<Branch> create(const Gpu& gpu);

  // What is queued on the answer from now on comes after what `main` holds already, and beside what it gets
  // until join(). A traced stream, whose launches are timed one by one, is answered itself; so is one of a
  // GPU that ranks share, whose kernels wait for each other: a queue that stands behind another's would be a
  // hang.
  Stream& fork(Stream& main);
  // What `main` gets from now on comes after both. A fault of the branch becomes main's.
  void join(Stream& main);

 private:
  static bool forks(const Stream& main) { return !main.traced() && !main.gpu().shared; }

  std::unique_ptr<Stream> side_;
  Event forked_, joined_;
};

}  // namespace fathom::device::cuda
