// Sums over ranks' buffers, element by element in the order given.
#pragma once

#include <cstdint>
#include <span>

#include "device/dtype.h"

namespace fathom::dist {

// out[d][i] = in[0][i] + in[1][i] + ... for begin <= i < end and every d. An `out` may be one of `in`.
void sum_into(std::span<const void* const> in, std::span<void* const> out, int64_t begin, int64_t end,
              device::DType dtype);

}  // namespace fathom::dist
