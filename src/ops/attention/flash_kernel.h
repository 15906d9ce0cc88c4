// The kernels of flash.h over a vector type V (ops/vector/). Instantiated in flash_avx2.cc, flash_avx512.cc
// and, with emulated vectors, in the test.
#pragma once

#include <cstddef>
#include <cstdint>

#include "ops/attention/flash.h"
#include "ops/vector/math.h"

namespace fathom::ops {

template <class V>
struct Flash {
  using F = typename V::F;
  static constexpr int64_t kLanes = V::kLanes;

  // c[r][.] (*= scale) += sum_k a[r * row_step + k * depth_step] . b[k][.] for R rows of N vectors; the
  // products of one element are added in the order of k.
  template <int R, int N, bool kAccumulate>
  static void tile(int64_t depth, const float* a, int64_t row_step, int64_t depth_step, const float* b,
                   float* c, const float* scale) {
    F sum[R][N];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) {
        sum[r][n] =
            kAccumulate ? V::mul(V::load(c + (r * N + n) * kLanes), V::load(scale + n * kLanes)) : V::zero();
      }
    }
    for (int64_t k = 0; k < depth; ++k) {
      F row[N];
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) row[n] = V::load(b + (k * N + n) * kLanes);
#pragma GCC unroll 16
      for (int r = 0; r < R; ++r) {
        const F value = V::set(a[r * row_step + k * depth_step]);
#pragma GCC unroll 2
        for (int n = 0; n < N; ++n) sum[r][n] = V::dot(value, row[n], sum[r][n]);
      }
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 2
      for (int n = 0; n < N; ++n) V::store(c + (r * N + n) * kLanes, sum[r][n]);
    }
  }

  template <int R, int N, bool kAccumulate>
  static void tile_of(int64_t rows, int64_t depth, const float* a, int64_t row_step, int64_t depth_step,
                      const float* b, float* c, const float* scale) {
    if (rows == R) {
      tile<R, N, kAccumulate>(depth, a, row_step, depth_step, b, c, scale);
    } else if constexpr (R > 1) {
      tile_of<R - 1, N, kAccumulate>(rows, depth, a, row_step, depth_step, b, c, scale);
    }
  }

  // `rows` rows in tiles of nearly equal height: a short last tile would wait on the latency of its few sums.
  template <int N, bool kAccumulate>
  static void product(int64_t rows, int64_t depth, const float* a, int64_t row_step, int64_t depth_step,
                      const float* b, float* c, const float* scale, const FlashBlock* prefetch) {
    constexpr int kRows = N == 1 ? V::kRows1 : V::kRows2;
    const int64_t tiles = (rows + kRows - 1) / kRows;
    int64_t fetched = 0;
    for (int64_t i = 0, row = 0; i < tiles; ++i) {
      const int64_t next = (i + 1) * rows / tiles;
      if (prefetch != nullptr) {
        for (const int64_t end = (i + 1) * prefetch->prefetches / tiles; fetched < end; ++fetched) {
          const char* bytes = static_cast<const char*>(prefetch->prefetch[fetched]);
          for (int64_t line = 0; line < prefetch->prefetch_bytes; line += 64) {
            __builtin_prefetch(bytes + line, 0, 2);
          }
        }
      }
      tile_of<kRows, N, kAccumulate>(next - row, depth, a + row * row_step, row_step, depth_step, b,
                                     c + row * N * kLanes, scale);
      row = next;
    }
  }

  // Scores to weights, in place; the state's top and total; `factor` receives what to scale the sums by.
  template <int N>
  static void softmax(const FlashBlock& block, float* factor) {
    for (int n = 0; n < N; ++n) {
      float* weights = block.weights + n * kLanes;
      const F before = V::load(block.state.top + n * kLanes);
      F top = before;
      if (block.masked) {
        const F limit = V::load(block.limits + n * kLanes);
        const F out = V::set(-__builtin_inff());
        for (int64_t key = 0; key < block.count; ++key) {
          const F place = V::set(static_cast<float>(block.place + key));
          const F score = V::select_le(place, limit, V::load(weights + key * N * kLanes), out);
          V::store(weights + key * N * kLanes, score);
          top = V::max(score, top);
        }
      } else {
        for (int64_t key = 0; key < block.count; ++key)
          top = V::max(V::load(weights + key * N * kLanes), top);
      }
      F sum = V::zero();
      for (int64_t key = 0; key < block.count; ++key) {
        const F weight = exp2<V>(V::sub(V::load(weights + key * N * kLanes), top));
        V::store(weights + key * N * kLanes, weight);
        sum = V::add(sum, weight);
      }
      const F scale = exp2<V>(V::sub(before, top));
      V::store(factor + n * kLanes, scale);
      V::store(block.state.top + n * kLanes, top);
      float* total = block.state.total + n * kLanes;
      V::store(total, V::fma(V::load(total), scale, sum));
    }
  }

  // The weights of keys 2 k and 2 k + 1 to words [k][columns], in place. Returns how many.
  template <int N>
  static int64_t pair_weights(const FlashBlock& block) {
    const int64_t words = (block.count + 1) / 2;
    for (int64_t k = 0; k < words; ++k) {
      for (int n = 0; n < N; ++n) {
        float* low = block.weights + (2 * k * N + n) * kLanes;
        const F high = 2 * k + 1 < block.count ? V::load(low + N * kLanes) : V::zero();
        V::store(block.weights + (k * N + n) * kLanes, V::pair(V::load(low), high));
      }
    }
    return words;
  }

  template <int N>
  static void block_of(const FlashBlock& block) {
    alignas(64) float factor[N * V::kLanes];
    product<N, false>(block.count, block.key_words, block.keys, block.key_words, 1, block.queries,
                      block.weights, nullptr, nullptr);
    softmax<N>(block, factor);
    int64_t depth = block.count;
    if constexpr (V::kPairs) depth = pair_weights<N>(block);
    product<N, true>(block.value_width, depth, block.values, 1, block.value_stride, block.weights,
                     block.state.sums, factor, block.prefetches > 0 ? &block : nullptr);
  }
  static void block(const FlashBlock& block) {
    if (block.columns == kLanes)
      block_of<1>(block);
    else
      block_of<2>(block);
  }

  static void merge(FlashState state, FlashState part, int64_t value_width, int64_t columns) {
    for (int64_t c = 0; c < columns; c += kLanes) {
      const F old_top = V::load(state.top + c), part_top = V::load(part.top + c);
      const F top = V::max(old_top, part_top);
      const F keep = exp2<V>(V::sub(old_top, top)), add = exp2<V>(V::sub(part_top, top));
      V::store(state.top + c, top);
      V::store(state.total + c, V::fma(V::load(state.total + c), keep, V::mul(V::load(part.total + c), add)));
      for (int64_t d = 0; d < value_width; ++d) {
        float* sum = state.sums + d * columns + c;
        V::store(sum, V::fma(V::load(sum), keep, V::mul(V::load(part.sums + d * columns + c), add)));
      }
    }
  }

  // dst[j][i] = src[i][j] * factor for i < rows, j < width.
  static void transpose(const float* src, int64_t src_stride, int64_t rows, int64_t width, float factor,
                        float* dst, int64_t dst_stride) {
    const int64_t whole_rows = rows / 8 * 8, whole_width = width / 8 * 8;
    for (int64_t i = 0; i < whole_rows; i += 8) {
      for (int64_t j = 0; j < whole_width; j += 8) {
        V::transpose8(src + i * src_stride + j, src_stride, dst + j * dst_stride + i, dst_stride, factor);
      }
    }
    for (int64_t i = 0; i < rows; ++i) {
      for (int64_t j = i < whole_rows ? whole_width : 0; j < width; ++j) {
        dst[j * dst_stride + i] = src[i * src_stride + j] * factor;
      }
    }
  }

  static void normalise(FlashState state, int64_t value_width, int64_t columns) {
    for (int64_t c = 0; c < columns; c += kLanes) {
      const F inverse = V::div(V::set(1.0F), V::load(state.total + c));
      for (int64_t d = 0; d < value_width; ++d) {
        float* sum = state.sums + d * columns + c;
        V::store(sum, V::mul(V::load(sum), inverse));
      }
    }
  }

  static void widen(const uint16_t* bf16, float* y, int64_t count) {
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) V::store(y + i, V::load_bf16(bf16 + i));
    for (; i < count; ++i) y[i] = __builtin_bit_cast(float, static_cast<uint32_t>(bf16[i]) << 16);
  }

  static void exp2_of(const float* x, float* y, int64_t count) {
    for (int64_t i = 0; i + kLanes <= count; i += kLanes) V::store(y + i, exp2<V>(V::load(x + i)));
  }

  // The rest prepares operands: as they are, or in pairs.
  static void pack(const float* q, int64_t stride, int64_t count, int64_t width, float factor, float* queries,
                   int64_t columns) {
    if constexpr (!V::kPairs) {
      transpose(q, stride, count, width, factor, queries, columns);
    } else {
      // A strip of 8 queries at a time: rounded to words, then transposed. Times 1 leaves the bits of words
      // whose high half is finite, and leaves NaN a NaN.
      constexpr int64_t kStrip = 4 * kLanes;
      float words[8 * kStrip / 2];
      for (int64_t i = 0; i < count; i += 8) {
        const int64_t rows = count - i < 8 ? count - i : 8;
        for (int64_t j = 0; j < width; j += kStrip) {
          const int64_t values = width - j < kStrip ? width - j : kStrip;
          for (int64_t r = 0; r < rows; ++r) {
            narrow(q + (i + r) * stride + j, factor, values,
                   reinterpret_cast<uint16_t*>(words + r * kStrip / 2));
          }
          transpose(words, kStrip / 2, rows, values / 2, 1.0F, queries + j / 2 * columns + i, columns);
        }
      }
    }
  }

  static void prepare(float* keys, int64_t key_width, float* values, int64_t value_width, int64_t count) {
    if constexpr (V::kPairs) {
      // Both end at or before where they begin, so that writing never overtakes reading.
      narrow(keys, 1.0F, count * key_width, reinterpret_cast<uint16_t*>(keys));
      for (int64_t k = 0; 2 * k < count; ++k) {
        pair_rows(values + 2 * k * value_width, 2 * k + 1 < count, value_width, values + k * value_width);
      }
    }
  }

  // words[d] = (row[d], row[width + d], or 0 when there is no second row).
  static void pair_rows(const float* row, bool second, int64_t width, float* words) {
    int64_t d = 0;
    for (; d + kLanes <= width; d += kLanes) {
      V::store(words + d, V::pair(V::load(row + d), second ? V::load(row + width + d) : V::zero()));
    }
    if (d == width) return;
    alignas(64) float low[kLanes] = {}, high[kLanes] = {};
    for (int64_t i = d; i < width; ++i) {
      low[i - d] = row[i];
      if (second) high[i - d] = row[width + i];
    }
    V::store(low, V::pair(V::load(low), V::load(high)));
    __builtin_memcpy(words + d, low, static_cast<size_t>(width - d) * sizeof(float));
  }

  // To bf16, times factor; may be in place.
  static void narrow(const float* x, float factor, int64_t count, uint16_t* bf16) {
    const F scale = V::set(factor);
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes) V::store_bf16(bf16 + i, V::mul(V::load(x + i), scale));
    if (i == count) return;
    alignas(64) float rest[kLanes] = {};
    for (int64_t j = i; j < count; ++j) rest[j - i] = x[j];
    uint16_t rounded[kLanes];
    V::store_bf16(rounded, V::mul(V::load(rest), scale));
    __builtin_memcpy(bf16 + i, rounded, static_cast<size_t>(count - i) * sizeof(uint16_t));
  }

  static void read_entries(const void* const* entries, int64_t count, int64_t width, int64_t latent,
                           float* keys, float* values) {
    if constexpr (!V::kPairs) {
      for (int64_t i = 0; i < count; ++i)
        widen(static_cast<const uint16_t*>(entries[i]), keys + i * width, width);
    } else {
      auto* rows = reinterpret_cast<uint16_t*>(keys);
      for (int64_t i = 0; i < count; ++i) {
        __builtin_memcpy(rows + i * width, entries[i], static_cast<size_t>(width) * sizeof(uint16_t));
      }
      if (count % 2 == 1)
        __builtin_memset(rows + count * width, 0, static_cast<size_t>(width) * sizeof(uint16_t));
      for (int64_t k = 0; 2 * k < count; ++k) {
        const uint16_t* low = rows + 2 * k * width;
        const uint16_t* high = low + width;
        auto* pairs = reinterpret_cast<uint16_t*>(values + k * latent);
        int64_t d = 0;
        for (; d + 32 <= latent; d += 32) V::interleave(low + d, high + d, pairs + 2 * d);
        for (; d < latent; ++d) {
          pairs[2 * d] = low[d];
          pairs[2 * d + 1] = high[d];
        }
      }
    }
  }

  static constexpr FlashKernels kernels() {
    return {kLanes, V::kPairs, pack,      prepare, read_entries, transpose,
            block,  merge,     normalise, widen,   exp2_of};
  }
};

}  // namespace fathom::ops
