// With groups of requests: the group's positions among those of all groups.
#pragma once

#include <cstdint>

#include "device/cuda/stream.h"

namespace fathom::model::cuda {

// y[i] = positions[i] below `tokens`, then -1, padding, up to `places`.
void group_positions(device::cuda::Stream& stream, const int32_t* positions, int64_t tokens, int64_t places,
                     int32_t* y);

}  // namespace fathom::model::cuda
