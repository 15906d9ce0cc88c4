// Cuts one piece of scratch memory into arrays, each at a multiple of 64 bytes: first with no memory, to
// learn the size, then with it.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fathom::ops {

class ScratchCutter {
 public:
  explicit ScratchCutter(std::byte* memory = nullptr) : memory_(memory) {}

  template <class T>
  T* take(int64_t count) {
    T* array = memory_ == nullptr ? nullptr : reinterpret_cast<T*>(memory_ + used_);
    used_ += (static_cast<size_t>(count) * sizeof(T) + 63) / 64 * 64;
    return array;
  }
  size_t used() const { return used_; }

 private:
  std::byte* memory_;
  size_t used_ = 0;
};

}  // namespace fathom::ops
