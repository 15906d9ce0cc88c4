#include "ops/linear/cuda.h"

#include "base/check.h"
#include "ops/linear/cuda_kernels.h"

namespace fathom::ops::cuda {
namespace {

using device::DType;

TileCall make_call(const LinearArgs& args, int64_t max_rows) {
  const Weight& w = *args.weight;
  const int64_t x_columns = w.fp8_x ? args.x8.columns : args.x.columns;
  FATHOM_CHECK(x_columns == w.k && args.y.columns == (args.swiglu ? w.n / 2 : w.n),
               "x [{}], y [{}], weight [{}, {}]", x_columns, args.y.columns, w.n, w.k);
  FATHOM_CHECK(!args.swiglu || w.n % 16 == 0, "swiglu of {} columns", w.n);
  TileCall call;
  call.x_dtype = args.x.dtype;
  call.weight_dtype = w.dtype;
  call.max_rows = max_rows;
  call.x_rows = w.fp8_x ? args.x8.rows : args.x.rows;
  TileArgs& t = call.args;
  t.x = w.fp8_x ? args.x8.values : args.x.data;
  t.y = args.y.data;
  t.weight = w.data;
  t.scales = w.scales;
  t.offsets = nullptr;
  t.gather = nullptr;
  t.x_stride = w.fp8_x ? args.x8.stride : args.x.stride;
  t.x_scales = args.x8.scales;
  t.x_scale_stride = args.x8.scale_stride;
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
  t.paired_scales = w.paired_scales;
  t.offsets_early = false;
  t.part = w.parted ? kSumPart : t.k;
  return call;
}

// Matrix instructions read 16 bytes at a time.
bool aligned(const TileCall& call) {
  const TileArgs& t = call.args;
  return reinterpret_cast<uintptr_t>(t.x) % 16 == 0 && t.x_stride % 8 == 0 && t.x_step % 8 == 0 &&
         t.k % 8 == 0;
}

bool takes_beside(device::cuda::Stream& stream, const TileCall& call, const Weight& weight,
                  const Weight& beside) {
  if (!stream.gpu().hopper() || call.max_rows == 0 || call.beside->max_rows == 0) return false;
  if (weight.fp8_x || beside.fp8_x) return weight.fp8_x && beside.fp8_x && linear_wgmma_w8a8_beside(call);
  const auto bf16 = [](const TileCall& c) { return c.x_dtype == DType::kBF16 && aligned(c); };
  return bf16(call) && bf16(*call.beside) && linear_wgmma_experts_beside(call);
}

void run(device::cuda::Stream& stream, const TileCall& call, const Weight& weight) {
  const bool fp8_x = weight.fp8_x, parted = weight.parted;
  FATHOM_CHECK(!parted || (weight.dtype == DType::kBF16 && weight.groups == 1 && call.heads == 1),
               "parted: {} groups of {}", weight.groups, device::to_string(weight.dtype));
  if (call.max_rows == 0) return;
  if (fp8_x) return linear_wgmma_w8a8(stream, call);
  const bool bf16 = call.x_dtype == DType::kBF16 && call.weight_dtype != DType::kF32;
  if (!bf16 || !aligned(call)) return linear_simt(stream, call);
  const bool fp8 = call.weight_dtype == DType::kF8E4M3;
  if (parted && call.max_rows <= 16) return linear_mma_parts(stream, call);
  if (stream.gpu().hopper()) {
    if (fp8 ? linear_wgmma_fp8_heads(stream, call) || linear_wgmma_fp8(stream, call)
            : linear_wgmma_parts(stream, call) || linear_wgmma_experts(stream, call) ||
                  linear_wgmma_few(stream, call) || linear_wgmma(stream, call))
      return;
  }
  fp8 ? linear_mma_fp8(stream, call) : linear_mma(stream, call);
}

}  // namespace

void linear(device::cuda::Stream& stream, const LinearArgs& args) {
  const int64_t rows = args.weight->fp8_x ? args.x8.rows : args.x.rows;
  FATHOM_CHECK(args.weight->groups == 1 && args.y.rows == rows, "groups={} x rows={} y rows={}",
               args.weight->groups, rows, args.y.rows);
  run(stream, make_call(args, rows), *args.weight);
}

void linear_and_norm(device::cuda::Stream& stream, const LinearArgs& product, const RmsNormArgs& norm) {
  FATHOM_CHECK(norm.x.data == product.y.data && norm.x.stride == product.y.stride &&
                   norm.x.rows == product.y.rows && norm.x.columns <= product.y.columns,
               "a norm of [{}, {}] after [{}, {}]", norm.x.rows, norm.x.columns, product.y.rows,
               product.y.columns);
  if (product.weight->fp8_x && product.x8.rows > 0) {
    TileCall call = make_call(product, product.x8.rows);
    call.norm = &norm;
    if (linear_wgmma_w8a8_chain(stream, call)) return stream.launched("linear (wgmma, fp8 x fp8), norm");
  }
  linear(stream, product);
  rms_norm(stream, norm);
}

void grouped_linear(device::cuda::Stream& stream, const GroupedLinearArgs& args) {
  TileCall call = make_call(args.linear, args.max_rows);
  call.args.offsets = args.offsets;
  call.args.gather = args.gather;
  call.args.offsets_early = args.offsets_early;
  TileCall beside;
  if (args.beside != nullptr) {
    const Weight& weight = *args.beside->weight;
    const int64_t rows = weight.fp8_x ? args.beside->x8.rows : args.beside->x.rows;
    FATHOM_CHECK(rows <= kMostBesideRows && weight.groups == 1, "{} rows and {} groups beside", rows,
                 weight.groups);
    beside = make_call(*args.beside, rows);
    call.beside = &beside;
    call.beside_early = args.beside_early;
    if (!takes_beside(stream, call, *args.linear.weight, weight)) {
      call.beside = nullptr;
      run(stream, beside, weight);
    }
  }
  run(stream, call, *args.linear.weight);
}

void batched_linear(device::cuda::Stream& stream, const BatchedLinearArgs& args) {
  const LinearArgs& linear = args.linear;
  FATHOM_CHECK(!linear.weight->fp8_x, "heads take activations as they are");
  TileCall call = make_call(linear, linear.x.rows);
  call.heads = linear.weight->groups;
  call.args.groups = 1;
  call.args.x_step = args.x_step;
  call.args.y_step = args.y_step;
  run(stream, call, *linear.weight);
}

}  // namespace fathom::ops::cuda
