// The oracle: token by token, expert by expert, every sum in double.
#include <cmath>
#include <vector>

#include "ops/moe/check.h"
#include "ops/moe/moe.h"

namespace fathom::ops {
namespace {

std::vector<double> multiply(const PackedLinear& w, const std::vector<double>& x) {
  std::vector<double> y(static_cast<size_t>(w.n));
  for (int64_t row = 0; row < w.n; ++row) {
    double sum = 0;
    for (int64_t k = 0; k < w.k; ++k) {
      sum += static_cast<double>(packed_value(w, row, k)) * x[static_cast<size_t>(k)];
    }
    y[static_cast<size_t>(row)] = sum;
  }
  return y;
}

std::vector<double> mlp(const PackedLinear& gate_up, const PackedLinear& down, const std::vector<double>& x) {
  const std::vector<double> both = multiply(gate_up, x);
  std::vector<double> hidden(both.size() / 2);
  for (size_t i = 0; i < hidden.size(); ++i) {
    hidden[i] = both[i] / (1.0 + std::exp(-both[i])) * both[hidden.size() + i];
  }
  return multiply(down, hidden);
}

void reference_token(const MoeArgs& args, int64_t t) {
  const float* row = args.x.row<const float>(t);
  const std::vector<double> x(row, row + args.x.dim(1));
  float* y = args.y.row<float>(t);
  std::vector<double> sum(x.size(), 0.0);
  if (args.accumulate) sum.assign(y, y + x.size());
  if (args.shared_down != nullptr) {
    const std::vector<double> out = mlp(*args.shared_gate_up, *args.shared_down, x);
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += out[i];
  }
  for (int64_t j = 0; j < args.ids.dim(1); ++j) {
    const int32_t id = args.ids.row<const int32_t>(t)[j];
    if (id < 0) continue;
    const auto e = static_cast<size_t>(id);
    const std::vector<double> out = mlp(args.gate_up[e], args.down[e], x);
    const double weight = args.weights.row<const float>(t)[j];
    for (size_t i = 0; i < sum.size(); ++i) sum[i] += weight * out[i];
  }
  for (size_t i = 0; i < sum.size(); ++i) y[i] = static_cast<float>(sum[i]);
}

}  // namespace

void moe_reference(device::Launch& launch, const MoeArgs& args) {
  check_moe(args);
  launch.pool().parallel_for(args.x.dim(0), 1, [&](int64_t begin, int64_t end, int) {
    for (int64_t t = begin; t < end; ++t) reference_token(args, t);
  });
}

}  // namespace fathom::ops
