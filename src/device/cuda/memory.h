// Memory of the GPU, pinned memory of the host, and an arena over the first. Everything is taken at start;
// a step allocates nothing.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "base/math.h"
#include "base/result.h"

namespace fathom::device::cuda {

// One owned allocation. Contents are undefined. Movable. kUnavailable when memory ran out, with the amount.
class DeviceBuffer {
 public:
  DeviceBuffer() = default;
  static Result<DeviceBuffer> allocate(size_t bytes);
  ~DeviceBuffer();
  DeviceBuffer(DeviceBuffer&& other) noexcept;
  DeviceBuffer& operator=(DeviceBuffer&& other) noexcept;

  void* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

class PinnedBuffer {
 public:
  PinnedBuffer() = default;
  static Result<PinnedBuffer> allocate(size_t bytes);
  ~PinnedBuffer();
  PinnedBuffer(PinnedBuffer&& other) noexcept;
  PinnedBuffer& operator=(PinnedBuffer&& other) noexcept;

  void* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  void* data_ = nullptr;
  size_t size_ = 0;
};

// Hands out pieces, 256-byte aligned, that live until the arena dies. Grows by blocks. Not thread safe.
class DeviceArena {
 public:
  explicit DeviceArena(size_t block_bytes = size_t{256} << 20) : block_bytes_(block_bytes) {}

  Result<void*> allocate(size_t bytes);
  template <class T>
  Result<T*> allocate_array(int64_t count) {
    auto data = allocate(static_cast<size_t>(count) * sizeof(T));
    if (!data.ok()) return data.error();
    return static_cast<T*>(*data);
  }
  size_t used() const { return used_; }

 private:
  size_t block_bytes_;
  size_t used_ = 0;
  size_t offset_ = 0;  // in the last block
  std::vector<DeviceBuffer> blocks_;
};

}  // namespace fathom::device::cuda
