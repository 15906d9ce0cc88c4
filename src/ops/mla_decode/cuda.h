// Absorbed MLA attention over the paged latent cache on the GPU (ops/mla_decode/mla_decode.h has the
// formula). Keys are taken in units whose places depend on the query's own length alone, folded in a tree of
// fixed shape (split.cuh): a token's result depends on its own sequence alone, not on the batch.
#pragma once

#include "device/cuda/stream.h"
#include "ops/attention/branches.h"
#include "ops/cuda_batch.h"

namespace fathom::ops::cuda {

struct MlaDecodeArgs {
  Matrix q;         // [T, Nh * (Dc + Dr)]
  CacheView cache;  // values up to 65504, f16's largest; with many heads beyond it an output may be infinite
  BatchView batch;  // every token is a query of its own: it sees places 0 .. positions[t] of its slot
  Branches branches{};  // of guesses
  int64_t heads = 0;
  int64_t latent = 0;  // Dc
  float scale = 1.0F;
  // Entries before the first of a sequence's places in the batch are as old as positions, slots and block
  // tables: a kernel that is launched early may read them before the one ahead of it has ended. All of a
  // sequence's tokens of a step are then in the batch.
  bool settled = false;
  int64_t max_context = 0;    // positions[t] < max_context: bounds the splits of a launch
  void* workspace = nullptr;  // mla_decode_workspace() bytes
  Matrix out;                 // [T, Nh * Dc]
};
void mla_decode(device::cuda::Stream& stream, const MlaDecodeArgs& args);

// So few queries have kernels of their own where none has more than this many places: whoever knows that they
// have not says so by max_context. The results are the same. 0: there are no such kernels.
int64_t mla_decode_brief_context(const device::cuda::Gpu& gpu, int64_t tokens, int64_t heads);

// Bytes of workspace for at most `tokens` queries; depends on nothing that changes from step to step.
int64_t mla_decode_workspace(const device::cuda::Gpu& gpu, int64_t tokens, int64_t heads, int64_t latent,
                             int64_t max_context);

}  // namespace fathom::ops::cuda
