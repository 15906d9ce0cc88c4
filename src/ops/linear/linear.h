// y = x W^T (+ y): every dense projection of the model, and the building block of the expert GEMM.
//
// Weights are packed once, at load, into panels of 16 output columns (layout.h). A panel is a sequence of
// 64-byte rows: 16 columns x 1 value of F32, x 2 of BF16 (k, k+1), x 4 of FP8 (stored k, k+2, k+1, k+3), so
// that a row is one AVX-512 vector, two AVX2 vectors, and for BF16 an operand of vdpbf16ps and a row of an
// AMX B tile. FP8 stays FP8 in memory, converted in the kernel, with one float32 scale for each (128 of k,
// column).
//
// Batch invariance: the value of y[t] is bit for bit the same for any number and order of rows, any number of
// threads and any tile, because every kernel of a target adds the products of one output in the same order of
// k.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

#include "base/result.h"
#include "device/arena.h"
#include "device/launch.h"
#include "device/tensor.h"

namespace fathom::ops {

// A [n, k] weight as the checkpoint holds it.
struct WeightSource {
  const void* data = nullptr;                 // element (row, col) at row * row_stride + col
  device::DType dtype = device::DType::kF32;  // F32, BF16, F16 or F8E4M3
  int64_t n = 0, k = 0;
  int64_t row_stride = 0;
  // FP8 only: W = w * scale[row / 128][col / 128]; both counted from the start of the stored tensor, of which
  // this source is the part from (first_row, first_col) on (data points at that element).
  const float* scale_inv = nullptr;
  int64_t scale_stride = 0;
  int64_t first_row = 0, first_col = 0;
  // The packed weight is this source's transpose: [k, n] in the terms above. (The absorbed w_kc.)
  bool transposed = false;
};

// How activations enter the products.
enum class Compute : uint8_t {
  kF32,   // float32 x float32 (the weight's values exactly)
  kBF16,  // bf16 x bf16 -> float32 where the processor has it (activations rounded to bf16), else as kF32
          // with weights rounded to bf16
  kBF16Weights,  // weights as under kBF16 and float32 activations, for the layers where rounding these costs
                 // most (README); on AMX as kBF16, because float32 would cost more than all the rest
};

// A weight in its packed layout. The memory belongs to the arena it was packed into.
struct PackedLinear {
  int64_t n = 0, k = 0;                       // logical
  int64_t n_padded = 0, k_padded = 0;         // padding holds zeros
  device::DType dtype = device::DType::kF32;  // of the packed values: F32, BF16 or F8E4M3
  Compute compute = Compute::kF32;
  const void* data = nullptr;
  const float* scales = nullptr;  // FP8: [n_padded / 16] records (layout.h)
  int64_t bytes() const { return n_padded * k_padded * device::size_of(dtype); }
  int64_t scale_bytes() const;
};

// Packs the sources, stacked along n (all with the same k): gate and up, q_a and kv_a. F16 and F32 sources
// become F32 under Compute::kF32 and BF16 under the others; BF16 stays BF16; FP8 stays FP8 where the block
// scales allow it (for stacked or transposed parts they do when the parts are cut at blocks), else it is
// dequantised to BF16 or F32. Mixed dtypes in a stack become the widest. NaN among FP8 weights is kDataLoss.
// `pool` may be null.
Result<PackedLinear> pack_linear(const device::Target& target, Compute compute,
                                 std::span<const WeightSource> sources, device::Arena& arena,
                                 ThreadPool* pool = nullptr);

// Packs [n, k] of deterministic random values, bell-shaped (the sum of four uniform ones) with mean 0 and
// standard deviation `stddev`, straight into the layout: element (row, col) is a pure function of (seed, row,
// col) rounded to `dtype` (F32, BF16 or F8E4M3 with one scale).
Result<PackedLinear> random_linear(const device::Target& target, Compute compute, device::DType dtype,
                                   int64_t n, int64_t k, float stddev, uint64_t seed, device::Arena& arena,
                                   ThreadPool* pool = nullptr);
// One row of such values as a checkpoint stores it: out[i], i < k, is a pure function of (seed, row, i),
// rounded to `dtype`. FP8 values are to be multiplied by random_scale.
void random_row(const device::Target& target, device::DType dtype, int64_t k, float stddev, uint64_t seed,
                int64_t row, std::byte* out);
float random_scale(float stddev);

// One linear layer's call. x [T, k] f32 and y [T, n] f32, rows strided; y is overwritten, or added to.
struct LinearArgs {
  device::Tensor x, y;
  const PackedLinear* weight = nullptr;
  bool accumulate = false;
};

using LinearFunction = void (*)(device::Launch&, const LinearArgs&);
// The implementation for a target and a packed dtype; `name` (optional) receives its name.
LinearFunction choose_linear(const device::Target& target, device::DType dtype, Compute compute,
                             const char** name = nullptr);

// Several independent small products in one region: y[h] = x[h] W[h]^T for each head h (absorb: q_nope to
// latent, latent to v). x [T, H, k], y [T, H, n] f32 with any strides over T and H.
struct BatchedLinearArgs {
  device::Tensor x, y;
  std::span<const PackedLinear> weights;  // [H]
};
using BatchedLinearFunction = void (*)(device::Launch&, const BatchedLinearArgs&);
BatchedLinearFunction choose_batched_linear(const device::Target& target, device::DType dtype,
                                            Compute compute);

// Plain C++ in double accumulation, from the packed weight.
void linear_reference(device::Launch&, const LinearArgs&);
void batched_linear_reference(device::Launch&, const BatchedLinearArgs&);
// Value (row, col) of a packed weight, dequantised; for references, tests and `fathom verify`.
float packed_value(const PackedLinear& weight, int64_t row, int64_t col);

}  // namespace fathom::ops
