#include "device/launch.h"

#include <cstdlib>

#include "base/check.h"
#include "base/math.h"

namespace fathom::device {

Launch::Launch(ThreadPool& pool) : pool_(pool), workers_(static_cast<size_t>(pool.size())) {}

Launch::~Launch() {
  for (auto& worker : workers_) std::free(worker.data);
  std::free(shared_.data);
  std::free(outer_.data);
}

std::byte* Launch::grow(Scratch& scratch, size_t bytes) {
  if (bytes <= scratch.size) return scratch.data;
  std::free(scratch.data);
  const size_t size = round_up(bytes + bytes / 4, size_t{4096});
  scratch.data = static_cast<std::byte*>(std::aligned_alloc(4096, size));
  FATHOM_CHECK(scratch.data != nullptr, "out of memory for {} bytes of scratch", size);
  scratch.size = size;
  return scratch.data;
}

std::byte* Launch::scratch(int worker, size_t bytes) {
  return grow(workers_[static_cast<size_t>(worker)], bytes);
}
std::byte* Launch::shared_scratch(size_t bytes) {
  return grow(shared_, bytes);
}
std::byte* Launch::outer_scratch(size_t bytes) {
  return grow(outer_, bytes);
}

}  // namespace fathom::device
