// The inner loops that the attention ops share: online softmax (Milakov and Gimelshein, arXiv:1805.02867; Dao
// et al., FlashAttention, arXiv:2205.14135) of a tile of queries over blocks of keys.
//
// Queries lie across the lanes. A "column" is one query: one head of one token in mla_decode, one token in
// the ops that attend head by head. Scores are then S^T[key][column] = sum_d K[key][d] Q^T[d][column] and the
// output O^T[v][column] = sum_key V[key][v] P[key][column]: both are the same register-blocked product, of
// rows that are broadcast (the keys as they lie in memory, no transpose) with rows of columns that are
// loaded. The softmax runs down the keys, lane by lane, without a horizontal step.
//
// A column's numbers depend on its own query and its keys only: not on its lane, the tile's width, or the
// columns beside it. That is what makes the ops batch invariant.
//
// Only plain data and function pointers here: the kernels' files are built for other instruction sets.
#pragma once

#include <cstdint>

namespace fathom::ops {

// Keys are processed in blocks at multiples of this place.
inline constexpr int64_t kKeyBlock = 64;
// A running maximum's start. Finite, so that exp2(score - maximum) is 0 and not NaN for a masked score, and
// below every score that finite activations give.
inline constexpr float kLowest = -1e30F;

// Running softmax of a tile of columns. Scores are in units of log2: queries are scaled by log2(e) * scale.
struct FlashState {
  float* top = nullptr;    // [columns] largest score so far
  float* total = nullptr;  // [columns] sum of exp2(score - top)
  float* sums = nullptr;   // [value_width][columns] sum of exp2(score - top) * value
};

// Operands are arrays of 32-bit words. For most kernels a word is a float. For kernels with `pairs` it is two
// bf16, and so a sum runs over half as many words: of queries and keys, values 2 j and 2 j + 1; of values and
// weights, those of keys 2 k and 2 k + 1 (zero for a key after the last).
struct FlashBlock {
  int64_t columns = 0;             // lanes or 2 * lanes of the kernels
  const float* queries = nullptr;  // [key_words][columns]
  const float* limits = nullptr;   // [columns] the last place that a column sees, as a float
  int64_t place = 0;               // of key 0
  int64_t count = 0;               // keys, 1 to kKeyBlock
  bool masked = false;             // some column does not see all of the block
  const float* keys = nullptr;     // [count][key_words]
  int64_t key_words = 0;
  const float* values = nullptr;  // [count, or half of it][value_stride >= value_width]
  int64_t value_stride = 0, value_width = 0;
  float* weights = nullptr;  // scratch, [kKeyBlock][columns]
  FlashState state;
  // Memory that will be read next, fetched into the cache in passing: `prefetches` pieces of prefetch_bytes.
  const void* const* prefetch = nullptr;
  int64_t prefetches = 0, prefetch_bytes = 0;
};

struct FlashKernels {
  int64_t lanes;
  bool pairs;  // key widths must then be even
  // queries[j][i] = word j of q[i * stride] * factor, for i < count; width values, `columns` apart.
  void (*pack)(const float* q, int64_t stride, int64_t count, int64_t width, float factor, float* queries,
               int64_t columns);
  // float32 keys [count][key_width] and values [count][value_width] to operands, in place.
  void (*prepare)(float* keys, int64_t key_width, float* values, int64_t value_width, int64_t count);
  // bf16 cache entries [count] of `width` values to keys, and their first `latent` values to values. Without
  // pairs the values are the keys' own, and `values` is left alone.
  void (*read_entries)(const void* const* entries, int64_t count, int64_t width, int64_t latent, float* keys,
                       float* values);
  // dst[j * dst_stride + i] = src[i * src_stride + j] * factor for i < rows, j < width.
  void (*transpose)(const float* src, int64_t src_stride, int64_t rows, int64_t width, float factor,
                    float* dst, int64_t dst_stride);
  // Adds a block to the state.
  void (*block)(const FlashBlock&);
  // Adds the state `part` to `state`; `value_width` rows of sums.
  void (*merge)(FlashState state, FlashState part, int64_t value_width, int64_t columns);
  // sums[d][c] /= total[c] for d < value_width.
  void (*normalise)(FlashState state, int64_t value_width, int64_t columns);
  // y[i] = x[i]
  void (*widen)(const uint16_t* bf16, float* y, int64_t count);
  // y[i] = 2^x[i], for the test of its error.
  void (*exp2)(const float* x, float* y, int64_t count);
};

extern const FlashKernels kFlashAvx2;
extern const FlashKernels kFlashAvx512;
extern const FlashKernels kFlashAvx512Bf16;

}  // namespace fathom::ops
