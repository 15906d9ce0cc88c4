#include "model/rope.h"

#include <algorithm>
#include <cmath>
#include <numbers>

namespace fathom::model {

namespace {

// YaRN's growth of attention's temperature with the stretch of the context (section 3.4 of the paper).
double mscale_of(double factor, double weight) {
  return factor <= 1.0 ? 1.0 : 0.1 * weight * std::log(factor) + 1.0;
}

// The dimension, counted in pairs, that turns `rotations` times within the original context.
double dimension_of(double rotations, const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const double wavelength =
      static_cast<double>(rope.original_positions) / (rotations * 2.0 * std::numbers::pi);
  return static_cast<double>(config.rope_dim) * std::log(wavelength) / (2.0 * std::log(rope.theta));
}

}  // namespace

std::vector<float> rope_frequencies(const ModelConfig& config) {
  const RopeConfig& rope = config.rope;
  const int64_t half = config.rope_dim / 2;
  std::vector<float> frequencies(static_cast<size_t>(half));
  double low = 0.0;
  double high = 0.0;
  if (rope.yarn) {
    low = dimension_of(rope.beta_fast, config);
    high = dimension_of(rope.beta_slow, config);
    if (rope.truncate) {
      low = std::floor(low);
      high = std::ceil(high);
    }
    low = std::max(low, 0.0);
    high = std::min(high, static_cast<double>(config.rope_dim - 1));
    if (low == high) high += 0.001;
  }
  for (int64_t i = 0; i < half; ++i) {
    // In float32 throughout, as the models were trained: at a long context the last bit of a frequency is
    // worth milliradians.
    const float exponent = static_cast<float>(2 * i) / static_cast<float>(config.rope_dim);
    const float period = std::pow(static_cast<float>(rope.theta), exponent);
    float frequency = 1.0F / period;
    if (rope.yarn) {
      const float stretched = 1.0F / (static_cast<float>(rope.factor) * period);
      const float ramp = std::clamp(
          (static_cast<float>(i) - static_cast<float>(low)) / static_cast<float>(high - low), 0.0F, 1.0F);
      const float kept = 1.0F - ramp;
      frequency = stretched * (1.0F - kept) + frequency * kept;
    }
    frequencies[static_cast<size_t>(i)] = frequency;
  }
  return frequencies;
}

double rope_attention_factor(const RopeConfig& rope) {
  if (!rope.yarn) return 1.0;
  if (rope.attention_factor != 0.0) return rope.attention_factor;
  if (rope.mscale != 0.0 && rope.mscale_all_dim != 0.0) {
    return mscale_of(rope.factor, rope.mscale) / mscale_of(rope.factor, rope.mscale_all_dim);
  }
  return mscale_of(rope.factor, 1.0);
}

double softmax_scale(const ModelConfig& config) {
  const double scale = 1.0 / std::sqrt(static_cast<double>(config.query_dim()));
  if (!config.rope.yarn || config.rope.mscale_all_dim == 0.0) return scale;
  const double mscale = mscale_of(config.rope.factor, config.rope.mscale_all_dim);
  return scale * mscale * mscale;
}

ops::RopeTable make_rope_table(const ModelConfig& config, int64_t positions, ThreadPool& pool) {
  const auto frequencies = rope_frequencies(config);
  const auto factor = static_cast<float>(rope_attention_factor(config.rope));
  ops::RopeTable table;
  table.positions = positions;
  table.half = config.rope_dim / 2;
  table.cos.resize(static_cast<size_t>(positions * table.half));
  table.sin.resize(table.cos.size());
  pool.parallel_for(positions, 1024, [&](int64_t begin, int64_t end, int) {
    for (int64_t position = begin; position < end; ++position) {
      for (int64_t i = 0; i < table.half; ++i) {
        const float angle = static_cast<float>(position) * frequencies[static_cast<size_t>(i)];
        const auto at = static_cast<size_t>(position * table.half + i);
        table.cos[at] = static_cast<float>(std::cos(static_cast<double>(angle))) * factor;
        table.sin[at] = static_cast<float>(std::sin(static_cast<double>(angle))) * factor;
      }
    }
  });
  return table;
}

}  // namespace fathom::model
