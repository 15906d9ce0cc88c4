// The official names of DeepSeek's tensors, with the shapes that a config gives them.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "device/dtype.h"
#include "model/config.h"
#include "weights/weight_reader.h"

namespace fathom::model {

// "model.layers.3."
std::string layer_prefix(int64_t layer);

// Every tensor that the model needs, without the FP8 scales (the reader asks for those by itself).
std::vector<weights::WeightSpec> weight_table(const ModelConfig& config);

// Tensors that a checkpoint may hold and the model does not read: MTP layers that do not draft, the copies of
// embedding and head in one that does, stored rotary frequencies, the head of a tied embedding.
bool is_known_extra(const ModelConfig& config, std::string_view name);

// What a tensor of that name is stored as in a checkpoint of this config.
device::DType stored_dtype(const ModelConfig& config, std::string_view name);

}  // namespace fathom::model
