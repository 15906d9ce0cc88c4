// The oracle: the packed weight read value by value, products summed in double.
#include <vector>

#include "ops/linear/check.h"
#include "ops/linear/layout.h"
#include "ops/linear/linear.h"

namespace fathom::ops {

using device::DType;

float packed_value(const PackedLinear& weight, int64_t row, int64_t col) {
  const int64_t index = row / kPanelColumns * kPanelColumns * weight.k_padded +
                        row % kPanelColumns * column_step(weight.dtype) + panel_offset(weight.dtype, col);
  const float value = device::load_as_f32(weight.data, weight.dtype, index);
  if (weight.scales == nullptr) return value;
  return value * weight.scales[scale_index(weight.k, row, col)];
}

namespace {

// y[t, column] for every row t, the weight's column being read once.
void reference_column(const PackedLinear& weight, int64_t column, const float* x, int64_t x_stride, float* y,
                      int64_t y_stride, int64_t rows, bool accumulate) {
  std::vector<double> w(static_cast<size_t>(weight.k));
  for (int64_t k = 0; k < weight.k; ++k) w[static_cast<size_t>(k)] = packed_value(weight, column, k);
  for (int64_t t = 0; t < rows; ++t) {
    float& out = y[t * y_stride + column];
    double sum = accumulate ? out : 0.0;
    for (int64_t k = 0; k < weight.k; ++k) {
      sum += static_cast<double>(x[t * x_stride + k]) * w[static_cast<size_t>(k)];
    }
    out = static_cast<float>(sum);
  }
}

}  // namespace

void linear_reference(device::Launch& launch, const LinearArgs& args) {
  check_linear(args);
  const PackedLinear& w = *args.weight;
  launch.pool().parallel_for(w.n, 16, [&](int64_t begin, int64_t end, int) {
    for (int64_t column = begin; column < end; ++column) {
      reference_column(w, column, args.x.f32(), args.x.stride[0], args.y.f32(), args.y.stride[0],
                       args.x.dim(0), args.accumulate);
    }
  });
}

void batched_linear_reference(device::Launch& launch, const BatchedLinearArgs& args) {
  check_batched_linear(args);
  launch.pool().parallel_for(
      static_cast<int64_t>(args.weights.size()), 1, [&](int64_t begin, int64_t end, int) {
        for (int64_t h = begin; h < end; ++h) {
          const PackedLinear& w = args.weights[static_cast<size_t>(h)];
          for (int64_t column = 0; column < w.n; ++column) {
            reference_column(w, column, args.x.f32() + h * args.x.stride[1], args.x.stride[0],
                             args.y.f32() + h * args.y.stride[1], args.y.stride[0], args.x.dim(0), false);
          }
        }
      });
}

}  // namespace fathom::ops
