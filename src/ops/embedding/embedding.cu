#include <cuda_bf16.h>
#include <cuda_fp16.h>

#include "base/check.h"
#include "device/cuda/launch_kernel.h"
#include "ops/embedding/cuda.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;

constexpr int kThreads = 256, kEach = 4;  // columns of a thread: all on their way at once

// CTAs (t, b) of token t.
template <class T>
__global__ void __launch_bounds__(kThreads) embedding_kernel(const T* table, int64_t first, int64_t rows,
                                                             const int32_t* ids, int64_t width, float* y) {
  device::cuda::let_next_start();
  device::cuda::wait_for_previous();

  const int64_t at = ids[blockIdx.x] - first;
  const bool known = at >= 0 && at < rows;
  const T* row = table + at * width;
  float* out = y + static_cast<int64_t>(blockIdx.x) * width;
  const int64_t begin = static_cast<int64_t>(blockIdx.y) * kThreads * kEach + threadIdx.x;
#pragma unroll
  for (int e = 0; e < kEach; ++e) {
    const int64_t i = begin + e * kThreads;
    if (i < width) out[i] = known ? static_cast<float>(row[i]) : 0.0F;
  }
}

}  // namespace

void embedding(device::cuda::Stream& stream, const EmbeddingArgs& args) {
  if (args.tokens == 0) return;
  const auto launch = [&]<class T>(const T* table) {
    const dim3 grid(static_cast<unsigned>(args.tokens),
                    static_cast<unsigned>((args.width + kThreads * kEach - 1) / (kThreads * kEach)));
    device::cuda::launch_early(stream, embedding_kernel<T>, grid, kThreads, 0, table, args.first, args.rows,
                               args.ids, args.width, args.y);
  };
  switch (args.table_dtype) {
    case DType::kF32:
      launch(static_cast<const float*>(args.table));
      break;
    case DType::kBF16:
      launch(static_cast<const __nv_bfloat16*>(args.table));
      break;
    case DType::kF16:
      launch(static_cast<const __half*>(args.table));
      break;
    default:
      FATHOM_CHECK(false, "an embedding of {}", device::to_string(args.table_dtype));
  }
  stream.launched("embedding");
}

}  // namespace fathom::ops::cuda
