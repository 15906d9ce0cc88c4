// Hopper's asynchronous pieces by their PTX names: transaction barriers, the bulk tensor copy engine (TMA)
// and the warpgroup matrix instructions. For *_sm90.cu alone.
#pragma once

#include <cuda.h>

#include <cstdint>
#include <type_traits>

#include "ops/mma.cuh"

namespace fathom::ops::cuda {

__device__ inline void barrier_init(uint64_t* barrier, int arrivals) {
  asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(shared_address(barrier)), "r"(arrivals)
               : "memory");
}
// Makes initialised barriers visible to the copy engine.
__device__ inline void barrier_init_fence() {
  asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
}
__device__ inline void barrier_arrive(uint32_t barrier) {
  asm volatile("mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(barrier) : "memory");
}
__device__ inline void barrier_arrive(uint64_t* barrier) {
  barrier_arrive(shared_address(barrier));
}
// Arrives, and lets the phase wait for `bytes` more of copies.
__device__ inline void barrier_expect(uint32_t barrier, uint32_t bytes) {
  asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(barrier), "r"(bytes)
               : "memory");
}
__device__ inline void barrier_expect(uint64_t* barrier, uint32_t bytes) {
  barrier_expect(shared_address(barrier), bytes);
}
__device__ inline void barrier_wait(uint32_t barrier, uint32_t phase) {
  asm volatile(
      "{\n"
      ".reg .pred done;\n"
      "again:\n"
      "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
      "@done bra ready;\n"
      "bra again;\n"
      "ready:\n"
      "}\n" ::"r"(barrier),
      "r"(phase)
      : "memory");
}
__device__ inline void barrier_wait(uint64_t* barrier, uint32_t phase) {
  barrier_wait(shared_address(barrier), phase);
}

// The box at (column, row) of the map's matrix to shared memory, counted by the barrier.
__device__ inline void copy_tile(uint32_t to, const CUtensorMap* map, uint32_t barrier, int32_t column,
                                 int32_t row) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4}], "
      "[%2];" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row)
      : "memory");
}
__device__ inline void copy_tile(void* to, const CUtensorMap* map, uint64_t* barrier, int32_t column,
                                 int32_t row) {
  copy_tile(shared_address(to), map, shared_address(barrier), column, row);
}
// The same by a whole warp, for which one lane does it: where all are together, what it takes is in the
// uniform registers that a copy wants. `expected` bytes are announced to the barrier first, where there are
// any.
template <bool kExpects>
__device__ inline void copy_tile_by_warp(uint32_t to, const CUtensorMap* map, uint32_t barrier,
                                         int32_t column, int32_t row, uint32_t expected = 0) {
  if constexpr (kExpects) {
    asm volatile(
        "{\n"
        ".reg .pred one;\n"
        "elect.sync _|one, 0xffffffff;\n"
        "@one mbarrier.arrive.expect_tx.shared::cta.b64 _, [%2], %5;\n"
        "@one cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
        "[%1, {%3, %4}], [%2];\n"
        "}" ::"r"(to),
        "l"(map), "r"(barrier), "r"(column), "r"(row), "r"(expected)
        : "memory");
  } else {
    asm volatile(
        "{\n"
        ".reg .pred one;\n"
        "elect.sync _|one, 0xffffffff;\n"
        "@one cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], "
        "[%1, {%3, %4}], [%2];\n"
        "}" ::"r"(to),
        "l"(map), "r"(barrier), "r"(column), "r"(row)
        : "memory");
  }
}
// The same of one of several matrices (device::cuda::tiles_map_16bit).
__device__ inline void copy_tile(void* to, const CUtensorMap* map, uint64_t* barrier, int32_t column,
                                 int32_t row, int32_t matrix) {
  asm volatile(
      "cp.async.bulk.tensor.3d.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1, {%3, %4, %5}], "
      "[%2];" ::"r"(shared_address(to)),
      "l"(map), "r"(shared_address(barrier)), "r"(column), "r"(row), "r"(matrix)
      : "memory");
}
// The same to this place of every CTA of the cluster whose bit is in `ctas`, counted by each one's barrier.
__device__ inline void copy_tile_to_cluster(uint32_t to, const CUtensorMap* map, uint32_t barrier,
                                            int32_t column, int32_t row, uint16_t ctas) {
  asm volatile(
      "cp.async.bulk.tensor.2d.shared::cluster.global.mbarrier::complete_tx::bytes.multicast::cluster [%0], "
      "[%1, {%3, %4}], [%2], %5;" ::"r"(to),
      "l"(map), "r"(barrier), "r"(column), "r"(row), "h"(ctas)
      : "memory");
}
__device__ inline void copy_tile_to_cluster(void* to, const CUtensorMap* map, uint64_t* barrier,
                                            int32_t column, int32_t row, uint16_t ctas) {
  copy_tile_to_cluster(shared_address(to), map, shared_address(barrier), column, row, ctas);
}
// So that the first copy does not wait for its map; one that is the kernel's parameter.
__device__ inline void prefetch_map(const CUtensorMap* map) {
  asm volatile("prefetch.tensormap [%0];" ::"l"(map) : "memory");
}
// The address of this place of another CTA of the cluster.
__device__ inline uint32_t cluster_address(const void* place, uint32_t cta) {
  uint32_t address;
  asm("mapa.shared::cluster.u32 %0, %1, %2;" : "=r"(address) : "r"(shared_address(place)), "r"(cta));
  return address;
}
// Arrives at the barrier in this place of another CTA of the cluster. Says that something was read; for what
// was written it would have to be a release at the cluster's scope, which waits for all of memory.
__device__ inline void barrier_arrive_at(uint32_t address) {
  asm volatile("mbarrier.arrive.shared::cluster.b64 _, [%0];" ::"r"(address) : "memory");
}
__device__ inline void barrier_arrive_at(uint64_t* barrier, uint32_t cta) {
  barrier_arrive_at(cluster_address(barrier, cta));
}
// 16 bytes to a 16-byte aligned place of another CTA of the cluster, counted by a barrier there; both are
// cluster_address()es.
__device__ inline void send(const float (&values)[4], uint32_t to, uint32_t barrier) {
  asm volatile(
      "st.async.shared::cluster.mbarrier::complete_tx::bytes.v4.f32 [%0], {%1, %2, %3, %4}, [%5];" ::"r"(to),
      "f"(values[0]), "f"(values[1]), "f"(values[2]), "f"(values[3]), "r"(barrier)
      : "memory");
}
__device__ inline uint32_t rank_in_cluster() {
  uint32_t rank;
  asm volatile("mov.u32 %0, %%cluster_ctarank;" : "=r"(rank));
  return rank;
}
// All threads of the cluster wait for each other; makes nothing visible but initialised barriers, and does
// not wait for arrivals on their way (wait_for_releases). Or one half of it, and later the other.
__device__ inline void cluster_arrive() {
  asm volatile("barrier.cluster.arrive.relaxed.aligned;" ::: "memory");
}
__device__ inline void cluster_wait() {
  asm volatile("barrier.cluster.wait.acquire.aligned;" ::: "memory");
}
__device__ inline void cluster_sync() {
  cluster_arrive();
  cluster_wait();
}
// The same, and what each wrote before it is visible to all after it: waits for all of memory.
__device__ inline void cluster_sync_memory() {
  asm volatile("barrier.cluster.arrive.release.aligned;\nbarrier.cluster.wait.acquire.aligned;" ::: "memory");
}
// A ring of stages as one that goes round it sees it: the next stage, and the phase that its barriers are in.
template <int kStages>
struct Ring {
  int stage = 0;
  uint32_t phase = 0;
  __device__ void next() {
    if (++stage == kStages) {
      stage = 0;
      phase ^= 1U;
    }
  }
};
// For the thread that fills a ring of stages: waits until every CTA of the cluster has released the last of
// them, of `uses` in all. Their arrivals travel on their own, past any barrier of the cluster that does not
// wait for memory: one that found this CTA gone would be a fault.
template <int kStages>
__device__ inline void wait_for_releases(uint64_t* empty, int uses) {
  for (int use = max(uses - kStages, 0); use < uses; ++use)
    barrier_wait(&empty[use % kStages], static_cast<uint32_t>(use / kStages) & 1U);
}
// A warp's value of its first lane. The compiler knows the result to be the same in all lanes: what is
// computed from it takes the uniform registers, which is where matrix instructions and bulk copies want it.
__device__ inline uint32_t uniform(uint32_t value) {
  return __shfl_sync(0xffffffffU, value, 0);
}
__device__ inline int uniform(int value) {
  return __shfl_sync(0xffffffffU, value, 0);
}
// A value that is computed here and kept in its register: the compiler would rather compute it again in a
// loop.
__device__ inline uint32_t kept(uint32_t value) {
  asm volatile("" : "+r"(value));
  return value;
}

// A tile of rows of 128 bytes in the 128-byte swizzle, k contiguous; 8 rows are 1024 bytes. Begins 1024-byte
// aligned; k advances by adding 2 (32 bytes) to the low bits. The address in units of 16 bytes, and the
// whole.
__device__ inline uint32_t wgmma_address(const void* tile) {
  return (shared_address(tile) & 0x3ffffU) >> 4;
}
__device__ inline uint64_t wgmma_tile_at(uint32_t address) {
  return uint64_t{address} | (uint64_t{1} << 16) | (uint64_t{64} << 32) | (uint64_t{1} << 62);
}
__device__ inline uint64_t wgmma_tile(const void* tile) {
  return wgmma_tile_at(wgmma_address(tile));
}

__device__ inline void wgmma_fence() {
  asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ inline void wgmma_commit() {
  asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
// Nothing reads or writes these before here, nor after.
template <int kCount>
__device__ inline void keep_in_place(float (&values)[kCount]) {
#pragma unroll
  for (int i = 0; i < kCount; ++i) asm volatile("" : "+f"(values[i])::"memory");
}
template <int kPending>
__device__ inline void wgmma_wait() {
  asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending) : "memory");
}

// d [64, N] = (add ? d : 0) + a [64, 16] b [N, 16]^T, N = 8, 16, 32, 64 or 128, both in shared memory. Thread
// t of the warpgroup holds, of rows 16 (t / 32) + t % 32 / 4 and eight below, columns 8 j + t % 4 * 2 and the
// next: d[4 j], d[4 j + 1] and d[4 j + 2], d[4 j + 3]. kColumns: + a b, b [16, N] with its columns contiguous
// (ops/attention/hopper.cuh, wgmma_columns_tile). T: bf16, or f16 (__half).
#define FATHOM_F8(i)                                                                          \
  "+f"(d[i]), "+f"(d[i + 1]), "+f"(d[i + 2]), "+f"(d[i + 3]), "+f"(d[i + 4]), "+f"(d[i + 5]), \
      "+f"(d[i + 6]), "+f"(d[i + 7])
__device__ inline void wgmma_shared(float (&d)[4], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %6, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3}, "
      "%4, %5, add, 1, 1, 0, 0;\n"
      "}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void wgmma_shared(float (&d)[8], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %10, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7}, "
      "%8, %9, add, 1, 1, 0, 0;\n"
      "}\n"
      : FATHOM_F8(0)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void wgmma_shared(float (&d)[16], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "%16, %17, add, 1, 1, 0, 0;\n"
      "}\n"
      : FATHOM_F8(0), FATHOM_F8(8)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
#define FATHOM_WGMMA(TYPES)                                                               \
  asm volatile(                                                                           \
      "{\n"                                                                               \
      ".reg .pred add;\n"                                                                 \
      "setp.ne.b32 add, %34, 0;\n"                                                        \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES                                 \
      " "                                                                                 \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
      "%32, %33, add, 1, 1, 0, %35;\n"                                                    \
      "}\n"                                                                               \
      : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), FATHOM_F8(24)                          \
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(kColumns ? 1 : 0))
template <bool kColumns = false, class T = __nv_bfloat16>
__device__ inline void wgmma_shared(float (&d)[32], uint64_t a, uint64_t b, bool add) {
  if constexpr (std::is_same_v<T, __half>)
    FATHOM_WGMMA("f16.f16");
  else
    FATHOM_WGMMA("bf16.bf16");
}
#undef FATHOM_WGMMA
#define FATHOM_WGMMA(TYPES)                                                                     \
  asm volatile(                                                                                 \
      "{\n"                                                                                     \
      ".reg .pred add;\n"                                                                       \
      "setp.ne.b32 add, %66, 0;\n"                                                              \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." TYPES                                      \
      " "                                                                                       \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "                 \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "        \
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "        \
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "       \
      "%64, %65, add, 1, 1, 0, %67;\n"                                                          \
      "}\n"                                                                                     \
      : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), FATHOM_F8(24), FATHOM_F8(32), FATHOM_F8(40), \
        FATHOM_F8(48), FATHOM_F8(56)                                                            \
      : "l"(a), "l"(b), "r"(static_cast<int>(add)), "n"(kColumns ? 1 : 0))
template <bool kColumns = false, class T = __nv_bfloat16>
__device__ inline void wgmma_shared(float (&d)[64], uint64_t a, uint64_t b, bool add) {
  if constexpr (std::is_same_v<T, __half>)
    FATHOM_WGMMA("f16.f16");
  else
    FATHOM_WGMMA("bf16.bf16");
}
#undef FATHOM_WGMMA

// N = 256.
__device__ inline void wgmma_shared(float (&d)[128], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %130, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n256k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63, "
      "%64, %65, %66, %67, %68, %69, %70, %71, %72, %73, %74, %75, %76, %77, %78, %79, "
      "%80, %81, %82, %83, %84, %85, %86, %87, %88, %89, %90, %91, %92, %93, %94, %95, "
      "%96, %97, %98, %99, %100, %101, %102, %103, %104, %105, %106, %107, %108, %109, %110, %111, "
      "%112, %113, %114, %115, %116, %117, %118, %119, %120, %121, %122, %123, %124, %125, %126, %127}, "
      "%128, %129, add, 1, 1, 0, 0;\n"
      "}\n"
      : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), FATHOM_F8(24), FATHOM_F8(32), FATHOM_F8(40), FATHOM_F8(48),
        FATHOM_F8(56), FATHOM_F8(64), FATHOM_F8(72), FATHOM_F8(80), FATHOM_F8(88), FATHOM_F8(96),
        FATHOM_F8(104), FATHOM_F8(112), FATHOM_F8(120)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}

// The same with a in registers: d = a b^T + (add ? d : 0). A warp gives its 16
// rows as the a of mma_bf16.
__device__ inline void wgmma_registers(float (&d)[64], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %69, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "{%64, %65, %66, %67}, %68, add, 1, 1, 0;\n"
      "}\n"
      : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), FATHOM_F8(24), FATHOM_F8(32), FATHOM_F8(40), FATHOM_F8(48),
        FATHOM_F8(56)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}
#define FATHOM_WGMMA(TYPES)                                                               \
  asm volatile(                                                                           \
      "{\n"                                                                               \
      ".reg .pred add;\n"                                                                 \
      "setp.ne.b32 add, %37, 0;\n"                                                        \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." TYPES                                 \
      " "                                                                                 \
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "           \
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, " \
      "{%32, %33, %34, %35}, %36, add, 1, 1, 0;\n"                                        \
      "}\n"                                                                               \
      : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), FATHOM_F8(24)                          \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)))
template <class T = __nv_bfloat16>
__device__ inline void wgmma_registers(float (&d)[32], const uint32_t (&a)[4], uint64_t b, bool add) {
  if constexpr (std::is_same_v<T, __half>)
    FATHOM_WGMMA("f16.f16");
  else
    FATHOM_WGMMA("bf16.bf16");
}
#undef FATHOM_WGMMA
__device__ inline void wgmma_registers(float (&d)[16], const uint32_t (&a)[4], uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %21, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k16.f32.bf16.bf16 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "{%16, %17, %18, %19}, %20, add, 1, 1, 0;\n"
      "}\n"
      : FATHOM_F8(0), FATHOM_F8(8)
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b), "r"(static_cast<int>(add)));
}
// d [64, N] = (add ? d : 0) + a [64, 32] b [N, 32]^T of E4M3 values, N = 8 to 128, both in shared memory; d
// as above. Sums keep some 14 bits below the largest of the addends (README.md of linear).
__device__ inline void wgmma_e4m3(float (&d)[4], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %6, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n8k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3}, "
      "%4, %5, add, 1, 1;\n"
      "}\n"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void wgmma_e4m3(float (&d)[8], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %10, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n16k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7}, "
      "%8, %9, add, 1, 1;\n"
      "}\n"
      : FATHOM_F8(0)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void wgmma_e4m3(float (&d)[16], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %18, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n32k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15}, "
      "%16, %17, add, 1, 1;\n"
      "}\n"
      : FATHOM_F8(0), FATHOM_F8(8)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void wgmma_e4m3(float (&d)[32], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %34, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n64k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31}, "
      "%32, %33, add, 1, 1;\n"
      "}\n"
      : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), FATHOM_F8(24)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void wgmma_e4m3(float (&d)[64], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %66, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n128k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47, "
      "%48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, %59, %60, %61, %62, %63}, "
      "%64, %65, add, 1, 1;\n"
      "}\n"
      : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), FATHOM_F8(24), FATHOM_F8(32), FATHOM_F8(40), FATHOM_F8(48),
        FATHOM_F8(56)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void wgmma_e4m3(float (&d)[24], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %26, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n48k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23}, "
      "%24, %25, add, 1, 1;\n"
      "}\n"
      : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void wgmma_e4m3(float (&d)[28], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %30, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n56k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27}, "
      "%28, %29, add, 1, 1;\n"
      "}\n"
      : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), "+f"(d[24]), "+f"(d[25]), "+f"(d[26]), "+f"(d[27])
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
__device__ inline void wgmma_e4m3(float (&d)[48], uint64_t a, uint64_t b, bool add) {
  asm volatile(
      "{\n"
      ".reg .pred add;\n"
      "setp.ne.b32 add, %50, 0;\n"
      "wgmma.mma_async.sync.aligned.m64n96k32.f32.e4m3.e4m3 "
      "{%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, "
      "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, %30, %31, "
      "%32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, %45, %46, %47}, "
      "%48, %49, add, 1, 1;\n"
      "}\n"
      : FATHOM_F8(0), FATHOM_F8(8), FATHOM_F8(16), FATHOM_F8(24), FATHOM_F8(32), FATHOM_F8(40)
      : "l"(a), "l"(b), "r"(static_cast<int>(add)));
}
#undef FATHOM_F8

template <int kRegisters>
__device__ inline void fewer_registers() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ inline void more_registers() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

}  // namespace fathom::ops::cuda
