// What the attention kernels for Hopper use besides ops/mma.cuh and ops/wgmma.cuh. Device code.
#pragma once

#include "ops/wgmma.cuh"

namespace fathom::ops::cuda {

// Makes the thread's own writes to shared memory visible to the tensor cores and the copy engine; a barrier
// between the threads follows.
__device__ inline void fence_async() {
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}

// For what is read once: the L2 cache gives it up first.
__device__ inline uint64_t once_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_first.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}

// Bytes that lie together into the L2 cache, where whoever copies them then has no longer to wait for memory.
__device__ inline void prefetch_lines(const void* from, int bytes) {
  const auto* line = static_cast<const unsigned char*>(from);
  for (int i = 0; i < bytes; i += 128)
    asm volatile("prefetch.global.L2 [%0];" ::"l"(__cvta_generic_to_global(line + i)) : "memory");
}

// Copies bytes (a multiple of 16, both sides aligned to 16) that are read once and reports them to the
// barrier.
__device__ inline void bulk_copy_once(void* to, const void* from, uint32_t bytes, uint64_t* barrier) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1], %2, "
      "[%3], "
      "%4;" ::"r"(shared_address(to)),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(barrier)), "l"(once_policy())
      : "memory");
}

// The same to this place of every CTA of the cluster whose bit is in `ctas`.
__device__ inline void bulk_copy_to_cluster_once(void* to, const void* from, uint32_t bytes,
                                                 uint64_t* barrier, uint16_t ctas) {
  asm volatile(
      "cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster.L2::cache_hint "
      "[%0], [%1], %2, [%3], %4, %5;" ::"r"(shared_address(to)),
      "l"(__cvta_generic_to_global(from)), "r"(bytes), "r"(shared_address(barrier)), "h"(ctas),
      "l"(once_policy())
      : "memory");
}

// As copy_tile (ops/wgmma.cuh), for what is read once.
__device__ inline void copy_tile_once(void* to, const CUtensorMap* map, uint64_t* barrier, int32_t column,
                                      int32_t row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, "
      "{%3, "
      "%4}], [%2], %5;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row), "l"(once_policy())
      : "memory");
}
// As copy_tile_to_cluster.
__device__ inline void copy_tile_to_cluster_once(void* to, const CUtensorMap* map, uint64_t* barrier,
                                                 int32_t column, int32_t row, uint16_t ctas) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster"
      ".L2::cache_hint [%0], [%1, {%3, %4}], [%2], %5, %6;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row), "h"(ctas), "l"(once_policy())
      : "memory");
}
// A box of whole rows (device::cuda::row_map_16bit) that are read once.
__device__ inline void copy_rows_once(void* to, const CUtensorMap* map, uint64_t* barrier, int32_t row) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes.L2::cache_hint [%0], [%1, "
      "{%3, %3, %4}], [%2], %5;" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(0), "r"(row), "l"(once_policy())
      : "memory");
}

// Global memory that the L2 cache is to keep while much else streams through it.
__device__ inline uint64_t keep_policy() {
  uint64_t policy;
  asm volatile("createpolicy.fractional.L2::evict_last.b64 %0, 1.0;" : "=l"(policy));
  return policy;
}
// Four values, kBytes after an address: a constant, so that many places take one address.
template <int kBytes>
__device__ inline void store_kept(void* to, const float* values, uint64_t policy) {
  asm volatile(
      "st.global.L2::cache_hint.v4.f32 [%0 + %6], {%1, %2, %3, %4}, %5;" ::"l"(__cvta_generic_to_global(to)),
      "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3]), "l"(policy), "n"(kBytes)
      : "memory");
}
template <int kBytes>
__device__ inline float4 load_kept(const void* from, uint64_t policy) {
  float4 value;
  asm volatile("ld.global.L2::cache_hint.v4.f32 {%0, %1, %2, %3}, [%4 + %6], %5;"
               : "=f"(value.x), "=f"(value.y), "=f"(value.z), "=f"(value.w)
               : "l"(__cvta_generic_to_global(from)), "l"(policy), "n"(kBytes)
               : "memory");
  return value;
}

// As load_matrix_x4 (ops/mma.cuh), by the address in shared memory.
__device__ inline void load_matrix4(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
__device__ inline void load_matrix4_transposed(uint32_t (&to)[4], uint32_t address) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
               : "r"(address)
               : "memory");
}
// Keeps what the compiler does with the values on its side of this point: products in flight write them.
template <int kCount>
__device__ inline void settle(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}

#define FATHOM_F8(i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
#define FATHOM_F64                                                                                       \
  FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), FATHOM_F8(24), FATHOM_F8(32), FATHOM_F8(40), FATHOM_F8(48), \
      FATHOM_F8(56)
#define FATHOM_D64                                                                   \
  "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "          \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, " \
  "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, " \
  "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "

// d [64, 128] (+)= a [64, 16] b [16, 128]: a in registers as an mma_bf16's, b in shared memory with its
// columns contiguous (wgmma_columns_tile).
__device__ inline void wgmma_values_n128(float (&d)[64], const uint32_t* a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 " FATHOM_D64
      "{%64, %65, %66, %67}, %68, add, 1, 1, 1;\n"
      "}\n"
      : FATHOM_F64
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int32_t>(add)));
}
#undef FATHOM_F8
#undef FATHOM_F64
#undef FATHOM_D64

// Blocks of 64 columns, each a tile of rows of 128 bytes in the 128-byte swizzle, block_bytes apart; the rows
// are k, and 16 of them are 2048 bytes on.
__device__ inline uint64_t wgmma_columns_tile(const void* tile, uint32_t block_bytes) {
  return (static_cast<uint64_t>(shared_address(tile) & 0x3ffffU) >> 4) |
         (static_cast<uint64_t>(block_bytes >> 4) << 16) | (uint64_t{64} << 32) | (uint64_t{1} << 62);
}

__device__ inline float exp2_fast(float x) {
  float y;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
  return y;
}
__device__ inline uint32_t pack_bf16(float low, float high) {
  const __nv_bfloat162 pair = __floats2bfloat162_rn(low, high);
  return *reinterpret_cast<const uint32_t*>(&pair);
}

}  // namespace fathom::ops::cuda
