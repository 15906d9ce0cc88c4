#include "sched/speculation_gain.h"

#include <algorithm>
#include <bit>

namespace fathom::sched {
namespace {

constexpr int32_t kProbeEvery = 256;  // steps
constexpr int32_t kProbeSteps = 4;    // about 1.5 % of all steps
constexpr int32_t kFirstSteps = 8;    // of guessing, before the first probe
constexpr double kWeight = 0.05;      // of the newest step in an average
// Guessing gives up its place only to what is clearly faster: both averages are noisy.
constexpr double kMargin = 0.98;

}  // namespace

SpeculationGain::Size& SpeculationGain::size_of(int32_t rows) {
  const auto index = static_cast<size_t>(std::bit_width(static_cast<uint32_t>(std::max(rows, 1))) - 1);
  return sizes_[std::min(index, sizes_.size() - 1)];
}

bool SpeculationGain::pays(int32_t rows) {
  Size& size = size_of(rows);
  const bool unknown = size.plain.steps == 0;
  const bool better = unknown || size.guessing.steps == 0 ||
                      size.plain.ns_per_token() > kMargin * size.guessing.ns_per_token();
  if (size.probing > 0) {
    --size.probing;
    return !better;
  }
  if (++size.since_probe >= (unknown ? kFirstSteps : kProbeEvery)) {
    size.since_probe = 0;
    size.probing = kProbeSteps;
  }
  return better;
}

void SpeculationGain::note(int32_t rows, bool guessed, int64_t ns, int64_t tokens) {
  if (tokens <= 0) return;
  Size& size = size_of(rows);
  Kind& kind = guessed ? size.guessing : size.plain;
  auto measured = static_cast<double>(ns);
  ++kind.steps;
  // The first steps count alike, later ones fade; one that took far longer than usual is somebody else's
  // work.
  const double weight = std::max(kWeight, 1.0 / kind.steps);
  if (kind.steps > kFirstSteps) measured = std::min(measured, 4.0 * kind.ns);
  kind.ns += weight * (measured - kind.ns);
  kind.tokens += weight * (static_cast<double>(tokens) - kind.tokens);
}

}  // namespace fathom::sched
