#include "ops/mla_decode/cuda.h"

#include <algorithm>

#include "base/check.h"
#include "ops/mla_decode/combine.cuh"
#include "ops/mla_decode/kernels.cuh"

namespace fathom::ops::cuda {
namespace {

// The combine kernel is launched early behind the kernel for many heads where that is short; where it is
// long, the early CTAs cost it more than they save (README.md).
constexpr int64_t kFewTokens = 16;

void check_args(const MlaDecodeArgs& args) {
  const int64_t width = args.cache.width, latent = args.latent;
  FATHOM_CHECK(latent > 0 && latent % 8 == 0 && width > latent && width % 8 == 0, "latent {} of width {}",
               latent, width);
  FATHOM_CHECK(args.q.columns == args.heads * width && args.out.columns == args.heads * latent,
               "q has {} columns, out {}, for {} heads of {} and {}", args.q.columns, args.out.columns,
               args.heads, width, latent);
  FATHOM_CHECK(args.q.rows >= args.batch.tokens && args.out.rows >= args.batch.tokens,
               "q has {} rows, out {}, for {} tokens", args.q.rows, args.out.rows, args.batch.tokens);
  FATHOM_CHECK(args.max_context > 0 && args.max_context <= (int64_t{1} << 20), "max_context {}",
               args.max_context);
}

bool takes_narrow(const device::cuda::Gpu& gpu, const MlaDecodeArgs& args) {
  return !mla_decode_wide_takes(gpu, args) && mla_decode_narrow_takes(gpu, args);
}

}  // namespace

int64_t mla_decode_workspace(const device::cuda::Gpu& gpu, int64_t tokens, int64_t heads, int64_t latent,
                             int64_t max_context) {
  SplitShape shape{tokens, heads, latent, max_context};
  const auto bytes = [&](int64_t wanted) {
    shape.items_wanted = wanted;
    return split_workspace_bytes(shape);
  };
  int64_t most =
      std::max(bytes(mla_decode_portable_items(gpu, heads)), bytes(mla_decode_narrow_items(gpu, heads)));
  shape.units = kLargeUnits;
  shape.nodes = Nodes::kMeans;
  if (heads >= kLeastWideHeads)
    most = std::max(most, bytes(mla_decode_wide_items(gpu, heads)) + mla_decode_wide_scratch(gpu));
  return most;
}

SplitWorkspace mla_decode_items(device::cuda::Stream& stream, const MlaDecodeArgs& args) {
  check_args(args);
  FATHOM_CHECK(args.batch.tokens <= kSplitTokens, "{} queries at once", args.batch.tokens);
  const device::cuda::Gpu& gpu = stream.gpu();
  const bool wide = mla_decode_wide_takes(gpu, args), narrow = takes_narrow(gpu, args);
  const int64_t wanted = wide     ? mla_decode_wide_items(gpu, args.heads)
                         : narrow ? mla_decode_narrow_items(gpu, args.heads)
                                  : mla_decode_portable_items(gpu, args.heads);
  auto* split_part = static_cast<uint8_t*>(args.workspace) + (wide ? mla_decode_wide_scratch(gpu) : 0);
  SplitWorkspace workspace = split_workspace(
      split_part, {args.batch.tokens, args.heads, args.latent, args.max_context,
                   wide ? kLargeUnits : kSmallUnits, wide ? Nodes::kMeans : Nodes::kSums, wanted});
  const bool few = wide && mla_decode_few_takes(gpu, args);
  workspace.settled = args.settled && (few || narrow);
  if (args.batch.tokens >= wanted) workspace.items_wanted = 0;
  if (few)
    mla_decode_few(stream, args, workspace);
  else if (wide && args.cache.dtype == device::DType::kBF16)
    mla_decode_wide(stream, args, workspace, args.workspace);
  else if (wide)
    mla_decode_wide_f8(stream, args, workspace, args.workspace);
  else if (narrow)
    mla_decode_narrow(stream, args, workspace);
  else
    mla_decode_portable(stream, args, workspace);
  return workspace;
}

void mla_decode(device::cuda::Stream& stream, const MlaDecodeArgs& args) {
  for (int64_t begin = 0; begin < args.batch.tokens; begin += kSplitTokens) {
    const int64_t end = std::min<int64_t>(begin + kSplitTokens, args.batch.tokens);
    MlaDecodeArgs part = args;
    part.q = args.q.row_range(begin, end);
    part.out = args.out.row_range(begin, end);
    part.batch.tokens = end - begin;
    part.batch.positions += begin;
    part.batch.slots += begin;
    part.branches = args.branches.from(begin);
    part.settled = args.settled && args.batch.tokens <= kSplitTokens;  // others' of its sequences are not
    SplitCombineArgs combine;
    combine.workspace = mla_decode_items(stream, part);
    combine.most_units = combine.workspace.units.most_units(args.max_context);
    combine.tokens = static_cast<int>(part.batch.tokens);
    combine.heads = static_cast<int>(args.heads);
    combine.latent = static_cast<int>(args.latent);
    combine.out = {part.out.data, part.out.dtype == device::DType::kBF16};
    combine.out_stride = part.out.stride;
    const auto four = static_cast<uintptr_t>(4 * device::size_of(part.out.dtype));
    combine.whole_stores = part.out.stride % 4 == 0 && reinterpret_cast<uintptr_t>(part.out.data) % four == 0;
    if (combine.workspace.items_wanted == 0) continue;
    split_combine(stream, combine, takes_narrow(stream.gpu(), part) || part.batch.tokens <= kFewTokens);
  }
}

}  // namespace fathom::ops::cuda
