// Splits a product into pieces of (rows, panels) that the threads take as they become free.
#include "ops/linear/linear.h"

#include <algorithm>
#include <array>
#include <functional>

#include "ops/linear/check.h"
#include "ops/linear/rows.h"

namespace fathom::ops {
namespace {

using device::DType;
using device::Isa;

// Best first.
std::span<const PanelKernel* const> kernels_for(DType dtype, Compute compute) {
#if defined(__x86_64__)
  static constexpr std::array kF32 = {&kAvx512F32, &kAvx2F32};
  static constexpr std::array kBf16 = {&kAmxBf16, &kAvx512DotBf16, &kAvx512Bf16, &kAvx2Bf16};
  static constexpr std::array kBf16Weights = {&kAmxBf16, &kAvx512Bf16, &kAvx2Bf16};
  static constexpr std::array kF8 = {&kAvx512DotF8, &kAvx512F8, &kAvx2F8};
  // Kernels that round activations to bf16 come first; float32 activations skip them.
  if (dtype == DType::kF32) return kF32;
  if (dtype == DType::kBF16 && compute == Compute::kBF16Weights) return kBf16Weights;
  if (dtype == DType::kBF16) return std::span(kBf16).subspan(compute == Compute::kF32 ? 2 : 0);
  if (dtype == DType::kF8E4M3) return std::span(kF8).subspan(compute == Compute::kBF16 ? 0 : 1);
#endif
  return {};
}

// More rows than this are cut, so that a slice of their k fits L2.
constexpr int64_t kRowsAtOnce = 192;

struct Call {
  const PanelKernel* kernel;
  PanelProduct product;
  int64_t row_parts;
  PanelPieces pieces;
};

void run_piece(const Call& call, device::Launch& launch, int64_t piece, int worker) {
  const int64_t i = piece % call.pieces.count();
  const int64_t first = call.pieces.first(i);
  PanelProduct p = narrow(call.product, first, call.pieces.first(i + 1) - first);
  p = cut_rows(p, piece / call.pieces.count(), call.row_parts);
  p.scratch = launch.scratch(worker, kPanelScratchBytes);
  call.kernel->multiply(p);
}

// x in the kernel's form: as it is, or converted into shared scratch.
PreparedRows prepare_rows(const PanelKernel& kernel, device::Launch& launch, const LinearArgs& args) {
  const int64_t rows = args.x.dim(0);
  const int64_t k = args.x.dim(1);
  const int64_t block_rows = kernel.block_rows(rows);
  if (takes_as_it_is(kernel, args.weight->dtype, rows, k)) return {args.x.f32(), block_rows};
  auto* out = reinterpret_cast<float*>(launch.shared_scratch(prepared_bytes(kernel, rows, k)));
  const auto prepare = [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t r = begin; r < end; ++r) {
      prepare_row(kernel, args.x.row<const float>(r), k, r, block_rows, out);
    }
  };
  // Waking the others pays from some tens of microseconds on.
  const int64_t grain = std::max(int64_t{32768} / k, int64_t{1});
  launch.pool().parallel_for(rows, grain, std::ref(prepare));
  return {out, block_rows};
}

void run_linear(const PanelKernel& kernel, device::Launch& launch, const LinearArgs& args) {
  check_linear(args);
  const int64_t rows = args.x.dim(0);
  if (rows == 0) return;
  const PreparedRows a = prepare_rows(kernel, launch, args);
  const Call call{
      &kernel, product_of(kernel, *args.weight, a, rows, args.y.f32(), args.y.stride[0], args.accumulate),
      ceil_div(rows, kRowsAtOnce), PanelPieces(args.weight->n_padded / kPanelColumns, launch.pool().size())};
  const auto body = [&](int64_t begin, int64_t end, int worker) {
    for (int64_t piece = begin; piece < end; ++piece) run_piece(call, launch, piece, worker);
  };
  launch.pool().parallel_for(call.row_parts * call.pieces.count(), 1, std::ref(body));
}

// One piece of a batch: some rows of one head times some of its panels. Rows are converted by whoever needs
// them, behind the kernel's own scratch: k is small.
struct BatchedCall {
  const PanelKernel& kernel;
  device::Launch& launch;
  const BatchedLinearArgs& args;
  int64_t row_parts, panel_chunk, panel_chunks;

  void run(int64_t piece, int worker) const {
    const int64_t h = piece / (row_parts * panel_chunks);
    const int64_t part = piece / panel_chunks % row_parts;
    const int64_t first_panel = piece % panel_chunks * panel_chunk;
    const PackedLinear& weight = args.weights[static_cast<size_t>(h)];
    const int64_t row = args.x.dim(0) * part / row_parts;
    const int64_t rows = args.x.dim(0) * (part + 1) / row_parts - row;
    const float* x = args.x.f32() + row * args.x.stride[0] + h * args.x.stride[1];
    float* y = args.y.f32() + row * args.y.stride[0] + h * args.y.stride[1];
    std::byte* scratch = launch.scratch(worker, kPanelScratchBytes + prepared_bytes(kernel, rows, weight.k));
    PreparedRows a{x, kernel.block_rows(rows)};
    if (!takes_as_it_is(kernel, weight.dtype, rows, weight.k)) {
      auto* out = reinterpret_cast<float*>(scratch + kPanelScratchBytes);
      for (int64_t r = 0; r < rows; ++r) {
        prepare_row(kernel, x + r * args.x.stride[0], weight.k, r, a.block_rows, out);
      }
      a.data = out;
    }
    PanelProduct p = product_of(kernel, weight, a, rows, y, args.y.stride[0], false);
    p = narrow(p, first_panel, std::min(panel_chunk, p.panels - first_panel));
    p.scratch = scratch;
    kernel.multiply(p);
  }
};

void run_batched_linear(const PanelKernel& kernel, device::Launch& launch, const BatchedLinearArgs& args) {
  check_batched_linear(args);
  const int64_t rows = args.x.dim(0);
  if (rows == 0) return;
  const auto heads = static_cast<int64_t>(args.weights.size());
  const int64_t panels = args.weights[0].n_padded / kPanelColumns;
  BatchedCall call{kernel, launch, args, ceil_div(rows, kRowsAtOnce), panels, 1};
  // Heads are split further only when there are not enough of them to go round.
  const int64_t splits =
      std::clamp(int64_t{4} * launch.pool().size() / (heads * call.row_parts), int64_t{1}, panels);
  call.panel_chunk = ceil_div(panels, splits);
  call.panel_chunks = ceil_div(panels, call.panel_chunk);
  const auto body = [&](int64_t begin, int64_t end, int worker) {
    for (int64_t piece = begin; piece < end; ++piece) call.run(piece, worker);
  };
  launch.pool().parallel_for(heads * call.row_parts * call.panel_chunks, 1, std::ref(body));
}

template <const PanelKernel& kKernel>
void linear_with(device::Launch& launch, const LinearArgs& args) {
  run_linear(kKernel, launch, args);
}
template <const PanelKernel& kKernel>
void batched_linear_with(device::Launch& launch, const BatchedLinearArgs& args) {
  run_batched_linear(kKernel, launch, args);
}

struct Functions {
  const PanelKernel* kernel;
  LinearFunction linear;
  BatchedLinearFunction batched;
};
template <const PanelKernel& kKernel>
constexpr Functions functions_of() {
  return {&kKernel, linear_with<kKernel>, batched_linear_with<kKernel>};
}

Functions choose_functions(const device::Target& target, DType dtype, Compute compute) {
#if defined(__x86_64__)
  static constexpr std::array kAll = {
      functions_of<kAvx2F32>(),       functions_of<kAvx2Bf16>(),    functions_of<kAvx2F8>(),
      functions_of<kAvx512F32>(),     functions_of<kAvx512Bf16>(),  functions_of<kAvx512F8>(),
      functions_of<kAvx512DotBf16>(), functions_of<kAvx512DotF8>(), functions_of<kAmxBf16>()};
  const PanelKernel* kernel = choose_panel_kernel(target, dtype, compute);
  for (const Functions& f : kAll) {
    if (f.kernel == kernel) return f;
  }
#endif
  return {nullptr, linear_reference, batched_linear_reference};
}

}  // namespace

const PanelKernel* choose_panel_kernel(const device::Target& target, DType dtype, Compute compute) {
  for (const PanelKernel* kernel : kernels_for(dtype, compute)) {
    if (kernel->needs <= target.isa) return kernel;
  }
  return nullptr;
}

LinearFunction choose_linear(const device::Target& target, DType dtype, Compute compute, const char** name) {
  const Functions f = choose_functions(target, dtype, compute);
  if (name != nullptr) *name = f.kernel != nullptr ? f.kernel->name : "reference";
  return f.linear;
}
BatchedLinearFunction choose_batched_linear(const device::Target& target, DType dtype, Compute compute) {
  return choose_functions(target, dtype, compute).batched;
}

}  // namespace fathom::ops
