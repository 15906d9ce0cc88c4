#include "ops/linear/cuda.h"

#include "base/check.h"
#include "ops/linear/cuda_kernels.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;

TileCall make_call(const LinearArgs& args, int64_t max_rows) {
  const Weight& w = *args.weight;
  FATHOM_CHECK(args.x.columns == w.k && args.y.columns == (args.swiglu ? w.n / 2 : w.n),
               "x [{}], y [{}], weight [{}, {}]", args.x.columns, args.y.columns, w.n, w.k);
  FATHOM_CHECK(!args.swiglu || w.n % 16 == 0, "swiglu of {} columns", w.n);
  TileCall call;
  call.x_dtype = args.x.dtype;
  call.weight_dtype = w.dtype;
  call.max_rows = max_rows;
  TileArgs& t = call.args;
  t.x = args.x.data;
  t.y = args.y.data;
  t.weight = w.data;
  t.scales = w.scales;
  t.offsets = nullptr;
  t.gather = nullptr;
  t.x_stride = args.x.stride;
  t.y_stride = args.y.stride;
  t.x_step = t.y_step = 0;
  t.weight_step = w.n * w.k_stride;
  t.scales_step = w.scales_per_group();
  t.k_stride = w.k_stride;
  t.rows = static_cast<int32_t>(max_rows);
  t.n = static_cast<int32_t>(w.n);
  t.k = static_cast<int32_t>(w.k);
  t.groups = static_cast<int32_t>(w.groups);
  t.y_is_f32 = args.y.dtype == DType::kF32;
  t.accumulate = args.accumulate;
  t.swiglu = args.swiglu;
  return call;
}

// Matrix instructions read 16 bytes at a time.
bool aligned(const TileCall& call) {
  const TileArgs& t = call.args;
  return reinterpret_cast<uintptr_t>(t.x) % 16 == 0 && t.x_stride % 8 == 0 && t.x_step % 8 == 0 &&
         t.k % 8 == 0;
}

void run(device::cuda::Stream& stream, const TileCall& call) {
  if (call.max_rows == 0) return;
  const bool bf16 = call.x_dtype == DType::kBF16 && call.weight_dtype != DType::kF32;
  if (!bf16 || !aligned(call)) return linear_simt(stream, call);
  const bool fp8 = call.weight_dtype == DType::kF8E4M3;
  if (stream.gpu().hopper()) {
    if (fp8 ? linear_wgmma_fp8(stream, call) : linear_wgmma_few(stream, call) || linear_wgmma(stream, call))
      return;
  }
  fp8 ? linear_mma_fp8(stream, call) : linear_mma(stream, call);
}

}  // namespace

void linear(device::cuda::Stream& stream, const LinearArgs& args) {
  FATHOM_CHECK(args.weight->groups == 1 && args.y.rows == args.x.rows, "groups={} x rows={} y rows={}",
               args.weight->groups, args.x.rows, args.y.rows);
  run(stream, make_call(args, args.x.rows));
}

void grouped_linear(device::cuda::Stream& stream, const GroupedLinearArgs& args) {
  TileCall call = make_call(args.linear, args.max_rows);
  call.args.offsets = args.offsets;
  call.args.gather = args.gather;
  run(stream, call);
}

void batched_linear(device::cuda::Stream& stream, const BatchedLinearArgs& args) {
  const LinearArgs& linear = args.linear;
  TileCall call = make_call(linear, linear.x.rows);
  call.heads = linear.weight->groups;
  call.args.groups = 1;
  call.args.x_step = args.x_step;
  call.args.y_step = args.y_step;
  run(stream, call);
}

}  // namespace fathom::ops::cuda
