#include "dist/reduce.h"

#include <algorithm>
#include <array>
#include <cstring>

#include "base/check.h"

namespace fathom::dist {
namespace {

constexpr int64_t kPiece = 512;  // values that stay in the nearest cache between the sum and its copies

void add_f32(const float* in, int64_t count, float* sum) {
  for (int64_t i = 0; i < count; ++i) sum[i] += in[i];
}

void sum_f32(std::span<const void* const> in, std::span<void* const> out, int64_t begin, int64_t end) {
  std::array<float, kPiece> sum;
  const auto count = static_cast<size_t>(end - begin) * sizeof(float);
  std::memcpy(sum.data(), static_cast<const float*>(in[0]) + begin, count);
  for (size_t r = 1; r < in.size(); ++r)
    add_f32(static_cast<const float*>(in[r]) + begin, end - begin, sum.data());
  for (void* to : out) std::memcpy(static_cast<float*>(to) + begin, sum.data(), count);
}

void sum_bf16(std::span<const void* const> in, std::span<void* const> out, int64_t begin, int64_t end) {
  std::array<device::bf16, kPiece> rounded;
  for (int64_t i = begin; i < end; ++i) {
    float sum = device::bf16_to_f32(static_cast<const device::bf16*>(in[0])[i]);
    for (size_t r = 1; r < in.size(); ++r)
      sum += device::bf16_to_f32(static_cast<const device::bf16*>(in[r])[i]);
    rounded[static_cast<size_t>(i - begin)] = device::f32_to_bf16(sum);
  }
  const auto bytes = static_cast<size_t>(end - begin) * sizeof(device::bf16);
  for (void* to : out) std::memcpy(static_cast<device::bf16*>(to) + begin, rounded.data(), bytes);
}

}  // namespace

void sum_into(std::span<const void* const> in, std::span<void* const> out, int64_t begin, int64_t end,
              device::DType dtype) {
  FATHOM_CHECK(dtype == device::DType::kF32 || dtype == device::DType::kBF16, "a sum of {}",
               device::to_string(dtype));
  const auto sum = dtype == device::DType::kF32 ? sum_f32 : sum_bf16;
  for (; begin < end; begin += kPiece) sum(in, out, begin, std::min(begin + kPiece, end));
}

}  // namespace fathom::dist
