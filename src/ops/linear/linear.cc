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
  static constexpr std::array kF8 = {&kAmxF8, &kAvx512DotF8, &kAvx512F8, &kAvx2F8};
  // The first two of a list round activations to bf16.
  const size_t skip = compute == Compute::kBF16 ? 0 : 2;
  if (dtype == DType::kF32) return kF32;
  if (dtype == DType::kBF16) return std::span(kBf16).subspan(skip);
  if (dtype == DType::kF8E4M3) return std::span(kF8).subspan(skip);
#endif
  return {};
}

constexpr int64_t kRowBlock = 192;

struct Call {
  const PanelKernel* kernel;
  PanelProduct product;
  int64_t row_blocks, panel_chunk, panel_chunks;
};

void run_piece(const Call& call, device::Launch& launch, int64_t piece, int worker) {
  const int64_t block = piece / call.panel_chunks;
  const int64_t first = piece % call.panel_chunks * call.panel_chunk;
  PanelProduct p = narrow(call.product, first, std::min(call.panel_chunk, call.product.panels - first));
  const int64_t begin = call.product.rows * block / call.row_blocks;
  const int64_t end = call.product.rows * (block + 1) / call.row_blocks;
  p.a += begin * p.a_stride;
  p.y += begin * p.y_stride;
  p.rows = end - begin;
  p.scratch = launch.scratch(worker, kPanelScratchBytes);
  call.kernel->multiply(p);
}

// x in the kernel's form: as it is, or converted into `out`.
PreparedRows prepare_rows(const PanelKernel& kernel, device::Launch& launch, const device::Tensor& x) {
  const int64_t rows = x.dim(0);
  const int64_t k = x.dim(1);
  // Rows a multiple of a page apart collide in L1 when many of them are taken together.
  const bool collide = rows > 4 && x.stride[0] % 256 == 0;
  if (takes_as_they_are(kernel, k) && !collide) return {x.f32(), x.stride[0]};
  const int64_t stride = prepared_stride(kernel, k);
  auto* out = reinterpret_cast<float*>(launch.shared_scratch(prepared_bytes(kernel, rows, k)));
  const auto prepare = [&](int64_t begin, int64_t end, int /*worker*/) {
    for (int64_t r = begin; r < end; ++r) {
      kernel.prepare(x.row<const float>(r), k, prepared_k(kernel, k), out + r * stride);
    }
  };
  // Waking the others pays from some tens of microseconds on.
  const int64_t grain = std::max(int64_t{32768} / k, int64_t{1});
  launch.pool().parallel_for(rows, grain, std::ref(prepare));
  return {out, stride};
}

void run_linear(const PanelKernel& kernel, device::Launch& launch, const LinearArgs& args) {
  check_linear(args);
  const int64_t rows = args.x.dim(0);
  if (rows == 0) return;
  const PreparedRows a = prepare_rows(kernel, launch, args.x);
  Call call{};
  call.kernel = &kernel;
  call.product = product_of(kernel, *args.weight, a, rows, args.y.f32(), args.y.stride[0], args.accumulate);
  const int64_t panels = call.product.panels;
  call.row_blocks = ceil_div(rows, kRowBlock);
  // Some eight pieces a thread even out what disturbs them; whole groups of four panels stream best.
  const int64_t wanted = ceil_div(panels * call.row_blocks, int64_t{8} * launch.pool().size());
  call.panel_chunk = std::min(wanted < 4 ? wanted : round_up(wanted, int64_t{4}), panels);
  call.panel_chunks = ceil_div(panels, call.panel_chunk);
  const auto body = [&](int64_t begin, int64_t end, int worker) {
    for (int64_t piece = begin; piece < end; ++piece) run_piece(call, launch, piece, worker);
  };
  launch.pool().parallel_for(call.row_blocks * call.panel_chunks, 1, std::ref(body));
}

// The rows of one head, in the kernel's form; converted ones lie behind the kernel's own scratch.
PreparedRows prepare_head(const PanelKernel& kernel, std::byte* scratch, const float* x, int64_t stride,
                          int64_t rows, int64_t k) {
  if (takes_as_they_are(kernel, k)) return {x, stride};
  auto* out = reinterpret_cast<float*>(scratch + kPanelScratchBytes);
  const int64_t out_stride = prepared_stride(kernel, k);
  for (int64_t r = 0; r < rows; ++r) {
    kernel.prepare(x + r * stride, k, prepared_k(kernel, k), out + r * out_stride);
  }
  return {out, out_stride};
}

void run_batched_linear(const PanelKernel& kernel, device::Launch& launch, const BatchedLinearArgs& args) {
  check_batched_linear(args);
  const int64_t rows = args.x.dim(0);
  if (rows == 0) return;
  const auto heads = static_cast<int64_t>(args.weights.size());
  const PackedLinear& first = args.weights[0];
  const int64_t panels = first.n_padded / kPanelColumns;
  const int64_t row_blocks = ceil_div(rows, kRowBlock);
  // Heads are split further only when there are not enough of them to go round.
  const int64_t splits =
      std::clamp(int64_t{4} * launch.pool().size() / (heads * row_blocks), int64_t{1}, panels);
  const int64_t chunk = ceil_div(panels, splits);
  const int64_t chunks = ceil_div(panels, chunk);
  const auto body = [&](int64_t begin, int64_t end, int worker) {
    for (int64_t piece = begin; piece < end; ++piece) {
      const int64_t h = piece / (row_blocks * chunks);
      const int64_t block = piece / chunks % row_blocks;
      const int64_t row = rows * block / row_blocks;
      const int64_t count = rows * (block + 1) / row_blocks - row;
      std::byte* scratch =
          launch.scratch(worker, kPanelScratchBytes + prepared_bytes(kernel, count, first.k));
      const float* x = args.x.f32() + row * args.x.stride[0] + h * args.x.stride[1];
      const PreparedRows a = prepare_head(kernel, scratch, x, args.x.stride[0], count, first.k);
      const int64_t panel = piece % chunks * chunk;
      PanelProduct p =
          product_of(kernel, args.weights[static_cast<size_t>(h)], a, count,
                     args.y.f32() + row * args.y.stride[0] + h * args.y.stride[1], args.y.stride[0], false);
      p = narrow(p, panel, std::min(chunk, panels - panel));
      p.scratch = scratch;
      kernel.multiply(p);
    }
  };
  launch.pool().parallel_for(heads * row_blocks * chunks, 1, std::ref(body));
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
  static constexpr std::array kAll = {functions_of<kAvx2F32>(),       functions_of<kAvx2Bf16>(),
                                      functions_of<kAvx2F8>(),        functions_of<kAvx512F32>(),
                                      functions_of<kAvx512Bf16>(),    functions_of<kAvx512F8>(),
                                      functions_of<kAvx512DotBf16>(), functions_of<kAvx512DotF8>(),
                                      functions_of<kAmxBf16>(),       functions_of<kAmxF8>()};
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
