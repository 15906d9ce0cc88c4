#include <algorithm>

#include "ops/swiglu/cuda.h"
#include "ops/vector/cuda.cuh"

namespace fathom::ops::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int64_t kBlocksPerMultiprocessor = 8;  // all threads that it can hold

// A thread eight outputs at a time, striding over those of the valid rows.
template <bool kVectors, class X, class Y>
__global__ void swiglu_kernel(const X* gate_up, int64_t stride, Y* y, int64_t y_stride, int64_t rows,
                              const int32_t* valid_rows, int64_t parts) {
  if (valid_rows != nullptr) rows = min(rows, static_cast<int64_t>(*valid_rows));
  const int64_t step = static_cast<int64_t>(gridDim.x) * blockDim.x;
  for (int64_t i = static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x; i < rows * parts; i += step) {
    const int64_t row = i / parts;
    const int64_t part = i % parts;
    const X* from = gate_up + row * stride;
    const Floats gate = load_part<kVectors>(from, part * 2 * kPart, parts * 2 * kPart);
    const Floats up = load_part<kVectors>(from, part * 2 * kPart + kPart, parts * 2 * kPart);
    Floats out;
#pragma unroll
    for (int j = 0; j < kPart; ++j) out.v[j] = gate.v[j] / (1.0F + expf(-gate.v[j])) * up.v[j];
    store_part<kVectors>(y + row * y_stride, part * kPart, parts * kPart, out);
  }
}

}  // namespace

void swiglu(device::cuda::Stream& stream, const SwigluArgs& args) {
  const Matrix& x = args.gate_up;
  const Matrix& y = args.y;
  FATHOM_CHECK(y.columns % kPart == 0 && x.columns == 2 * y.columns && x.rows == y.rows,
               "y [{}, {}] of gate_up [{}, {}]: turns of eight", y.rows, y.columns, x.rows, x.columns);
  if (x.rows == 0 || y.columns == 0) return;
  const int64_t parts = y.columns / kPart;
  const int64_t blocks = std::min((x.rows * parts + kThreads - 1) / kThreads,
                                  stream.gpu().multiprocessors * kBlocksPerMultiprocessor);
  with_flag(takes_parts(x) && takes_parts(y), [&](auto flag) {
    with_activation_type(x.dtype, "gate_up", [&](auto* x_null) {
      with_activation_type(y.dtype, "y", [&](auto* y_null) {
        using X = std::remove_pointer_t<decltype(x_null)>;
        using Y = std::remove_pointer_t<decltype(y_null)>;
        swiglu_kernel<decltype(flag)::value, X, Y>
            <<<static_cast<unsigned>(blocks), kThreads, 0, stream.handle()>>>(
                static_cast<const X*>(x.data), x.stride, static_cast<Y*>(y.data), y.stride, x.rows, args.rows,
                parts);
      });
    });
  });
  stream.launched("swiglu");
}

}  // namespace fathom::ops::cuda
