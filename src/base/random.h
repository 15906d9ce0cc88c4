// Counter-based random numbers: the value is a pure function of (seed, stream, counter), so any element can
// be made alone, in any order, on any device.
#pragma once

#include <cstdint>

namespace fathom {

// SplitMix64's finaliser (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).
constexpr uint64_t mix64(uint64_t x) {
  x ^= x >> 30;
  x *= 0xbf58476d1ce4e5b9ULL;
  x ^= x >> 27;
  x *= 0x94d049bb133111ebULL;
  return x ^ (x >> 31);
}
constexpr uint64_t random_bits(uint64_t seed, uint64_t stream, uint64_t counter) {
  return mix64(mix64(mix64(seed + 0x9e3779b97f4a7c15ULL) ^ (stream + 0xd1b54a32d192ed03ULL)) +
               counter * 0x9e3779b97f4a7c15ULL);
}
// Uniform in [0, 1), 24 bits.
constexpr float random_uniform(uint64_t seed, uint64_t stream, uint64_t counter) {
  return static_cast<float>(random_bits(seed, stream, counter) >> 40) * 0x1p-24f;
}

}  // namespace fathom
