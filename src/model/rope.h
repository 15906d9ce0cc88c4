// The numbers of rotary embedding and of YaRN's context extension (Peng et al., arXiv:2309.00071), from a
// model's config.
#pragma once

#include <cstdint>
#include <vector>

#include "base/thread_pool.h"
#include "model/config.h"
#include "ops/rope/rope.h"

namespace fathom::model {

// Angle per position of each pair of rope dimensions: [Dr / 2].
std::vector<float> rope_frequencies(const ModelConfig& config);
// What cos and sin are multiplied by.
double rope_attention_factor(const RopeConfig& rope);
// Scores are multiplied by this: (Dn + Dr)^-1/2, times mscale^2 where the config has mscale_all_dim.
double softmax_scale(const ModelConfig& config);

// cos and sin of positions 0 .. positions - 1.
ops::RopeTable make_rope_table(const ModelConfig& config, int64_t positions, ThreadPool& pool);

}  // namespace fathom::model
