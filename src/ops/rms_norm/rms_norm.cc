#include "ops/rms_norm/rms_norm.h"

#include <algorithm>
#include <functional>

#include "ops/implementation.h"
#include "ops/rms_norm/row.h"

namespace fathom::ops {
namespace {

// Values of a piece of work: about 5 us, so that a few tokens stay on the calling thread.
constexpr int64_t kGrain = 32768;

void rms_norm_avx2(device::Launch& launch, const RmsNormArgs& args) {
  const int64_t width = args.x.dim(1);
  const auto body = [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) {
      const float* delta = args.delta == nullptr ? nullptr : args.delta->row<float>(t);
      rms_norm_row_avx2(args.x.row<float>(t), delta, args.weight, args.eps, width, args.y.row<float>(t));
    }
  };
  launch.pool().parallel_for(args.x.dim(0), std::max<int64_t>(1, kGrain / width), std::ref(body));
}

constexpr Implementation<RmsNormFunction> kRmsNorm[] = {
    {"avx2", device::Isa::kAvx2, rms_norm_avx2},
    {"reference", device::Isa::kReference, rms_norm_reference},
};

}  // namespace

RmsNormFunction choose_rms_norm(const device::Target& target) {
  return choose<RmsNormFunction>(kRmsNorm, target).run;
}

}  // namespace fathom::ops
