// Which of a rank's slots a token's experts have, where an expert may have several copies and experts may
// move (model/expert_placement.h).
#pragma once

#include <cstdint>

#include "device/cuda/stream.h"

namespace fathom::model::cuda {

// On the device; all but `load` as in ExpertSlots.
struct ExpertPlaces {
  int32_t* first = nullptr;  // [E + 1]
  int32_t* slots = nullptr;  // [copies of all experts]
  // [E] copies of tokens that each expert was given so far, counted on.
  unsigned long long* load = nullptr;
};

struct PlaceExpertsArgs {
  const float* logits = nullptr;       // [T, E] the gate's
  const int32_t* positions = nullptr;  // [T]; a padding token's (-1) experts are not counted
  ExpertPlaces places;
  int64_t tokens = 0;
  int32_t experts = 0, top_k = 0;
  int32_t* ids = nullptr;  // [T, K] experts become slots of this rank, or -1
};
// Of an expert's copies a token takes the one that its own logits say, by the rule of model/layer_mlp.cc: all
// ranks agree, and it is the same whatever else is in the batch.
void place_experts(device::cuda::Stream& stream, const PlaceExpertsArgs& args);

}  // namespace fathom::model::cuda
