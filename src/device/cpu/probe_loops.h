// The probe's inner loops, each in a file built for its instructions. Plain data only: see panel kernels in
// ops.
#pragma once

#include <cstdint>

namespace fathom::device {

// Reads [data, data + bytes), both multiples of 1024; returns a sum so that it must.
uint64_t read_avx2(const uint8_t* data, int64_t bytes);

// Each runs `rounds` of its loop and adds to `sink` what keeps the loop alive; kFlops... is the work of one
// round.
constexpr int64_t kFlopsFmaAvx2 = 12 * 8 * 2;
constexpr int64_t kFlopsFmaAvx512 = 24 * 16 * 2;
constexpr int64_t kFlopsDotAvx512 = 24 * 32 * 2;
constexpr int64_t kFlopsTileAmx = 4 * 16 * 16 * 32 * 2;
float spin_fma_avx2(int64_t rounds);
float spin_fma_avx512(int64_t rounds);
float spin_dot_avx512(int64_t rounds);
float spin_tile_amx(int64_t rounds);

}  // namespace fathom::device
