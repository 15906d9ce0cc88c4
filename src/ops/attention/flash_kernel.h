// The kernels of flash.h over a vector type V (ops/vector/). Instantiated in flash_avx2.cc, flash_avx512.cc
// and, with emulated vectors, in the test.
#pragma once

#include <cstdint>

#include "ops/attention/flash.h"
#include "ops/vector/math.h"

namespace fathom::ops {

template <class V>
struct Flash {
  using F = typename V::F;
  static constexpr int64_t kLanes = V::kLanes;

  // c[r][.] (*= scale) += sum_k a[r * row_step + k * depth_step] * b[k][.] for R rows of N vectors; the
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
        for (int n = 0; n < N; ++n) sum[r][n] = V::fma(value, row[n], sum[r][n]);
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

  template <int N>
  static void block_of(const FlashBlock& block) {
    alignas(64) float factor[N * V::kLanes];
    product<N, false>(block.count, block.key_width, block.keys, block.key_stride, 1, block.queries,
                      block.weights, nullptr, nullptr);
    softmax<N>(block, factor);
    product<N, true>(block.value_width, block.count, block.values, 1, block.value_stride, block.weights,
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

  static constexpr FlashKernels kernels() {
    return {kLanes, transpose, block, merge, normalise, widen, exp2_of};
  }
};

}  // namespace fathom::ops
