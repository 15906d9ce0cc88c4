// Random matrices of heads, bf16 or FP8, as batched_linear() takes them. Included by tests only.
#pragma once

#include <optional>

#include "ops/cuda_testing.h"
#include "ops/linear/cuda.h"
#include "ops/linear/fp8_words.h"

namespace fathom::ops::cuda {

class RandomHeads {
 public:
  RandomHeads(device::DType dtype, int64_t heads, int64_t n, int64_t k, std::mt19937& random) {
    std::vector<uint8_t> bytes(static_cast<size_t>(heads * n * k * device::size_of(dtype)));
    if (dtype == device::DType::kBF16) {
      std::normal_distribution<float> normal(0.0F, 0.1F);
      for (size_t i = 0; i < bytes.size(); i += 2) {
        const device::bf16 bits = device::f32_to_bf16(normal(random));
        std::memcpy(&bytes[i], &bits, 2);
      }
    } else {
      for (size_t i = 0; i < bytes.size(); i += 4) {
        uint32_t word = 0;
        for (int value = 0; value < 4; ++value) {
          const uint32_t any = random();
          word |= fp8_bits(static_cast<uint8_t>((any & 0x80U) | (any >> 8) % 0x7fU), value);  // no NaN
        }
        std::memcpy(&bytes[i], &word, 4);
      }
      std::vector<float> scales = random_floats(heads * ((k + 127) / 128) * ((n + 7) / 8), random, 0.01F);
      scales_.emplace(scales);
      weight_.scales = scales_->data();
    }
    data_.emplace(bytes);
    weight_.data = data_->data();
    weight_.dtype = dtype;
    weight_.n = n;
    weight_.k = weight_.k_stride = k;
    weight_.groups = heads;
  }

  const Weight& weight() const { return weight_; }

 private:
  std::optional<device::cuda::testing::DeviceArray<uint8_t>> data_;
  std::optional<device::cuda::testing::DeviceArray<float>> scales_;
  Weight weight_;
};

}  // namespace fathom::ops::cuda
