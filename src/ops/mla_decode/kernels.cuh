// The kernels behind mla_decode's front door, and what chooses among them. All take at most kSplitTokens
// queries at a time.
#pragma once

#include "ops/mla_decode/cuda.h"
#include "ops/mla_decode/split.cuh"

namespace fathom::ops::cuda {

// All of mla_decode() but folding items: what is returned says where a query's items lie. One of a single
// item has its output already.
SplitWorkspace mla_decode_items(device::cuda::Stream& stream, const MlaDecodeArgs& args);

// Any heads; Dc and Dr multiples of 8; every dtype of cache; float32 arithmetic.
void mla_decode_portable(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                         const SplitWorkspace& workspace);
int64_t mla_decode_portable_items(const device::cuda::Gpu& gpu, int64_t heads);  // wanted of a launch

// Hopper, 512 + 64 values, bf16 activations, bf16 or FP8 cache, groups of sixteen heads: for few heads, which
// are bound by memory.
void mla_decode_narrow(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                       const SplitWorkspace& workspace);
bool mla_decode_narrow_takes(const device::cuda::Gpu& gpu, const MlaDecodeArgs& args);
int64_t mla_decode_narrow_items(const device::cuda::Gpu& gpu, int64_t heads);

// Hopper, 512 + 64 values, bf16 activations, bf16 or FP8 cache, groups of 64 heads: for many heads, which are
// bound by the tensor cores. Pages of 8, 16, 32 or a multiple of 64 places; outputs aligned to 16 bytes.
void mla_decode_wide(device::cuda::Stream& stream, const MlaDecodeArgs& args, const SplitWorkspace& workspace,
                     void* scratch);
void mla_decode_wide_f8(device::cuda::Stream& stream, const MlaDecodeArgs& args,
                        const SplitWorkspace& workspace, void* scratch);
inline constexpr int64_t kLeastWideHeads = 25;  // of an FP8 cache
inline constexpr int kMostValuesTokens = 16;    // that mla_values takes
bool mla_decode_wide_takes(const device::cuda::Gpu& gpu, const MlaDecodeArgs& args);
int64_t mla_decode_wide_items(const device::cuda::Gpu& gpu, int64_t heads);
int64_t mla_decode_wide_scratch(const device::cuda::Gpu& gpu);  // bytes
// The same, bit for bit, for so few queries that there are four or eight CTAs for each CTA's work.
void mla_decode_few(device::cuda::Stream& stream, const MlaDecodeArgs& args, const SplitWorkspace& workspace);
bool mla_decode_few_takes(const device::cuda::Gpu& gpu, const MlaDecodeArgs& args);

}  // namespace fathom::ops::cuda
