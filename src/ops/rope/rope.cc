#include "ops/rope/rope.h"

#include <algorithm>
#include <functional>

#include "ops/implementation.h"
#include "ops/rope/row.h"

namespace fathom::ops {
namespace {

constexpr int64_t kGrain = 32768;  // values of a piece of work: about 5 us

void rope_avx2(device::Launch& launch, const RopeArgs& args) {
  const RopeTable& table = *args.table;
  const int64_t heads = args.x.dim(1), half = table.half;
  const int64_t skip = args.x.dim(2) - 2 * half;
  const auto body = [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const int64_t row = args.positions[t] * half;
      for (int64_t h = 0; h < heads; ++h) {
        rope_row_avx2(args.x.row<float>(t) + h * args.x.stride[1] + skip, table.cos.data() + row,
                      table.sin.data() + row, half);
      }
    }
  };
  launch.pool().parallel_for(args.x.dim(0), std::max<int64_t>(1, kGrain / (heads * 2 * half)),
                             std::ref(body));
}

constexpr Implementation<RopeFunction> kRope[] = {
    {"avx2", device::Isa::kAvx2, rope_avx2},
    {"reference", device::Isa::kReference, rope_reference},
};

}  // namespace

RopeFunction choose_rope(const device::Target& target) {
  return choose<RopeFunction>(kRope, target).run;
}

}  // namespace fathom::ops
