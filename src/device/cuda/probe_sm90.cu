#include <cstdint>

#include "device/cuda/probe_kernels.h"

namespace fathom::device::cuda {
namespace {

constexpr int kThreads = 256;  // two warpgroups
constexpr int kRounds = 4096;

// Rows of 128 bytes in the 128-byte swizzle; what the values are does not matter.
__device__ uint64_t tile(const void* data) {
  const auto address = static_cast<uint32_t>(__cvta_generic_to_shared(data));
  return (static_cast<uint64_t>(address & 0x3ffffU) >> 4) | (uint64_t{1} << 16) | (uint64_t{64} << 32) |
         (uint64_t{1} << 62);
}

__global__ void __launch_bounds__(kThreads, 1) wgmma_kernel(const uint4* data, float* sink) {
  __shared__ __align__(1024) uint4 tiles[2048];  // 32 KB: two a tiles and one b tile
  for (int i = static_cast<int>(threadIdx.x); i < 2048; i += kThreads) tiles[i] = data[i];
  __syncthreads();
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  const uint64_t a = tile(tiles + threadIdx.x / 128 * 512);
  const uint64_t b = tile(tiles + 1024);
  float d[64];
#pragma unroll
  for (float& value : d) value = 0.0F;
#define FATHOM_F8(i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
  for (int round = 0; round < kRounds; ++round) {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      asm volatile(
          "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
          "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
          "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
          "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
          "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
          "%64, %65, 1, 1, 1, 0, 0;"
          : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), FATHOM_F8(24), FATHOM_F8(32), FATHOM_F8(40),
            FATHOM_F8(48), FATHOM_F8(56)
          : "l"(a + 2 * k), "l"(b + 2 * k));
    }
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
    asm volatile("wgmma.wait_group.sync.aligned 0;" ::: "memory");
  }
#undef FATHOM_F8
  float sum = 0.0F;
#pragma unroll
  for (const float value : d) sum += value;
  if (sum == 1.2345F) *sink = sum;
}

}  // namespace

double queue_bf16_wgmma(Stream& stream, const void* data, float* sink) {
  const int blocks = stream.gpu().multiprocessors;
  wgmma_kernel<<<static_cast<unsigned>(blocks), kThreads, 0, stream.handle()>>>(
      static_cast<const uint4*>(data), sink);
  stream.launched("probe wgmma");
  return 2.0 * 64 * 128 * 64 * kRounds * 2 * blocks;
}

}  // namespace fathom::device::cuda
