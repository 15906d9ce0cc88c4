// How long the GPU kernels of a step take, from what they were measured to take: docs/benchmarks.md and the
// READMEs of ops/linear, ops/moe and ops/mla_decode. Between the measured sizes, logarithms of the number of
// rows are interpolated; where a kernel is bound by its own instructions and not by memory, an H200 is no
// faster than an H100, as measured. docs/simulation.md says how well this predicts whole steps.
//
// Microseconds; pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "engine/layout/hardware.h"

namespace fathom::engine {

class KernelTimes {
 public:
  // `gpu.read_gbs` is known.
  explicit KernelTimes(const GpuKind& gpu);

  // [rows, k] x [n, k]^T with FP8 blocks, activations in FP8 too; and with many of them as they are.
  double linear_fp8(int64_t n, int64_t k, double rows) const;
  double linear_fp8_widened(int64_t n, int64_t k, double rows) const;
  // The same in bf16: the head.
  double linear_bf16(int64_t n, int64_t k, double rows) const;
  // The absorbed matrices of `heads`, [n, k] each, in FP8.
  double heads_fp8(int64_t heads, int64_t n, int64_t k, double rows) const;
  // Grouped FP8 products of one [n, k] matrix an expert; `rows` of each expert, those with none not read.
  double experts_fp8(std::span<const int32_t> rows, int64_t n, int64_t k) const;
  // Absorbed attention of `batch` rows with `context` places each.
  double mla_decode(double batch, double context, int64_t heads) const;
  // Un-absorbed causal attention of prompts of `length` tokens, `tokens` in all.
  double extend_attention(double tokens, double length, int64_t heads, int64_t query_dim,
                          int64_t value_dim) const;

  // Launches without weights beside them, of each layer: norm and rounding; norm, gate and its product, sort,
  // combine; norm of a dense layer.
  double norm(double rows) const;  // one of these alone
  double attention_small(double rows) const;
  double moe_small(double rows) const;
  double dense_small(double rows) const;
  double sample(double rows) const;
  double ends() const;  // what else a step has once, before its layers and after them

 private:
  double read_gbs_;  // 1e9 bytes a second = 1e3 bytes a microsecond
};

}  // namespace fathom::engine
