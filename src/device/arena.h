// Host memory for weights, KV pages and workspaces: page-aligned, zeroed, on huge pages where the system
// gives them, and touched by the threads that will read it (first-touch places it on their NUMA node).
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include "base/result.h"

namespace fathom::device {

// One owned, zeroed allocation, 2 MiB aligned. Movable.
class Buffer {
 public:
  Buffer() = default;
  // kUnavailable when the system has not that much memory; the message says how much was asked for.
  static Result<Buffer> allocate(size_t bytes);
  ~Buffer();
  Buffer(Buffer&& other) noexcept;
  Buffer& operator=(Buffer&& other) noexcept;
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;

  std::byte* data() const { return data_; }
  size_t size() const { return size_; }

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
  size_t mapped_ = 0;
};

// Hands out pieces that live until the arena dies. Grows by blocks. Not thread safe.
class Arena {
 public:
  explicit Arena(size_t block_bytes = size_t{64} << 20) : block_bytes_(block_bytes) {}

  // `bytes` of zeroed memory, 64-byte aligned.
  Result<std::byte*> allocate(size_t bytes);
  template <class T>
  Result<T*> allocate_array(int64_t count) {
    auto bytes = allocate(static_cast<size_t>(count) * sizeof(T));
    if (!bytes.ok()) return bytes.error();
    return reinterpret_cast<T*>(*bytes);
  }
  size_t used() const { return used_; }

 private:
  size_t block_bytes_;
  size_t used_ = 0;
  size_t offset_ = 0;  // in the last block
  std::vector<Buffer> blocks_;
};

// Bytes of memory that this process may still take (container limits considered).
size_t available_memory();

}  // namespace fathom::device
