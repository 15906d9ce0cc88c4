// What an exchange between the ranks of a group takes where they lie on several nodes, and what follows from
// it.
#pragma once

#include <cstdint>

namespace fathom::dist {

struct Network {
  double latency = 0.0;   // seconds of an exchange of next to nothing
  double per_byte = 0.0;  // further seconds for each byte that a rank sends
};

// Whether a sum of `rows` bytes on each of `size` ranks, which becomes `results` bytes, takes less time where
// every rank sends all its rows to all others, in one exchange, than in two: each rank gets the rows of its
// share, adds them, and sends what becomes of them.
inline bool sums_at_once(const Network& network, int64_t rows, int64_t results, int size) {
  const double others = size - 1;
  const double once = others * static_cast<double>(rows);
  const double twice = others / size * static_cast<double>(rows + results);
  return (once - twice) * network.per_byte <= network.latency;
}

}  // namespace fathom::dist
