// Asks the disk for what will be read soon. Tensors are read through the page cache one after another, each
// by a few threads that wait for their pages: alone they leave a fast disk waiting most of the time. A thread
// of its own tells the kernel what comes next, so that there is always much on its way.
#pragma once

#include <cstddef>
#include <span>
#include <thread>
#include <vector>

#include "base/queue.h"
#include "weights/checkpoint.h"

namespace fathom::weights {

// Used by one thread; the checkpoint must live as long.
class ReadAhead {
 public:
  static constexpr size_t kAhead = size_t{1} << 30;  // bytes of a file beyond the tensor that is read

  explicit ReadAhead(const Checkpoint& checkpoint);
  ~ReadAhead();
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // The tensor, one of the checkpoint's, is about to be read.
  void reading(const TensorView& tensor);

 private:
  struct File {
    const std::byte* begin;
    const std::byte* end;
    const std::byte* asked;  // up to here
  };
  std::vector<File> files_;  // by address
  Queue<std::span<const std::byte>> wanted_;
  std::thread thread_;
};

}  // namespace fathom::weights
