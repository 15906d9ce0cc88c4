#include "base/check.h"
#include "ops/extend_attention/kernels.cuh"

namespace fathom::ops::cuda {
namespace {

void check_args(const ExtendAttentionArgs& args) {
  const int64_t rope = args.k_rope.columns;
  FATHOM_CHECK(args.nope % 8 == 0 && rope % 8 == 0 && args.value % 8 == 0, "nope {} rope {} value {}",
               args.nope, rope, args.value);
  FATHOM_CHECK(args.q.columns == args.heads * (args.nope + rope) &&
                   args.kv.columns == args.heads * (args.nope + args.value) &&
                   args.out.columns == args.heads * args.value,
               "q has {} columns, kv {}, out {}, for {} heads of {} + {} and {}", args.q.columns,
               args.kv.columns, args.out.columns, args.heads, args.nope, rope, args.value);
  FATHOM_CHECK(
      args.q.dtype == args.kv.dtype && args.q.dtype == args.k_rope.dtype && args.q.dtype == args.out.dtype,
      "q {} kv {} k_rope {} out {}", to_string(args.q.dtype), to_string(args.kv.dtype),
      to_string(args.k_rope.dtype), to_string(args.out.dtype));
  FATHOM_CHECK(args.q.stride % 8 == 0 && args.kv.stride % 8 == 0 && args.k_rope.stride % 8 == 0,
               "strides {} {} {}", args.q.stride, args.kv.stride, args.k_rope.stride);
  for (int64_t i = 0; i < args.num_rows; ++i) {
    const ExtendRow& row = args.host_rows[i];
    const bool partial = row.merge != 0 || row.key_end < row.start + row.count;
    FATHOM_CHECK(row.first >= 0 && row.first + row.count <= args.q.rows && row.key_begin < row.key_end &&
                     row.key_row >= 0 && row.key_row + (row.key_end - row.key_begin) <= args.kv.rows,
                 "row {}: queries {} + {} of {}, places {} to {} in rows {} .. of {}", i, row.first,
                 row.count, args.q.rows, row.key_begin, row.key_end, row.key_row, args.kv.rows);
    FATHOM_CHECK(!partial || (args.partial != nullptr && args.lse != nullptr), "row {} needs partial results",
                 i);
  }
}

}  // namespace

void extend_attention(device::cuda::Stream& stream, const ExtendAttentionArgs& args) {
  if (args.num_rows == 0) return;
  check_args(args);
  if (extend_attention_warpgroups_takes(stream.gpu(), args))
    extend_attention_warpgroups(stream, args);
  else
    extend_attention_portable(stream, args);
}

}  // namespace fathom::ops::cuda
