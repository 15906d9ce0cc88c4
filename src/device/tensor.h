// A view of memory with a type and a shape. Owns nothing; the last dimension is contiguous.
#pragma once

#include <array>
#include <cstdint>
#include <initializer_list>
#include <string>

#include "base/check.h"
#include "device/dtype.h"

namespace fathom::device {

struct Tensor {
  static constexpr int kMaxRank = 4;

  void* data = nullptr;
  DType dtype = DType::kF32;
  int rank = 0;
  std::array<int64_t, kMaxRank> shape{};
  std::array<int64_t, kMaxRank> stride{};  // in elements; stride[rank - 1] == 1

  Tensor() = default;
  // Densely packed.
  Tensor(void* data_in, DType type, std::initializer_list<int64_t> dims) : data(data_in), dtype(type) {
    FATHOM_CHECK_LE(dims.size(), static_cast<size_t>(kMaxRank));
    for (const int64_t dim : dims) shape[static_cast<size_t>(rank++)] = dim;
    int64_t step = 1;
    for (int i = rank - 1; i >= 0; --i) {
      stride[static_cast<size_t>(i)] = step;
      step *= shape[static_cast<size_t>(i)];
    }
  }

  int64_t dim(int i) const { return shape[static_cast<size_t>(i)]; }
  int64_t numel() const {
    int64_t count = 1;
    for (int i = 0; i < rank; ++i) count *= shape[static_cast<size_t>(i)];
    return count;
  }

  // Row i of the first dimension as T; the dtype must be T's.
  template <class T>
  T* row(int64_t i) const {
    return static_cast<T*>(data) + i * stride[0];
  }
  float* f32() const {
    FATHOM_CHECK(dtype == DType::kF32, "expected float32, got {}", to_string(dtype));
    return static_cast<float*>(data);
  }
  int32_t* i32() const {
    FATHOM_CHECK(dtype == DType::kI32, "expected int32, got {}", to_string(dtype));
    return static_cast<int32_t*>(data);
  }

  // Rows [begin, end) of the first dimension.
  Tensor rows(int64_t begin, int64_t end) const {
    FATHOM_CHECK(0 <= begin && begin <= end && end <= shape[0], "rows [{}, {}) of {}", begin, end, shape[0]);
    Tensor part = *this;
    part.data = static_cast<uint8_t*>(data) + begin * stride[0] * size_of(dtype);
    part.shape[0] = end - begin;
    return part;
  }
  // Columns [begin, end) of the last dimension of a matrix.
  Tensor columns(int64_t begin, int64_t end) const {
    FATHOM_CHECK(rank == 2 && 0 <= begin && begin <= end && end <= shape[1], "columns [{}, {}) of {}", begin,
                 end, shape[1]);
    Tensor part = *this;
    part.data = static_cast<uint8_t*>(data) + begin * size_of(dtype);
    part.shape[1] = end - begin;
    return part;
  }
};

// "float32 [3, 576]"
std::string describe(const Tensor& tensor);

// CHECKs dtype and shape (-1 matches anything); `name` goes into the message.
void check_tensor(const char* name, const Tensor& tensor, DType dtype, std::initializer_list<int64_t> dims);

}  // namespace fathom::device
