#include "sched/speculation_gain.h"

#include <algorithm>
#include <bit>
#include <tuple>

namespace fathom::sched {
namespace {

// Steps of the better kind between two probes of the other; twice as many after each that changed nothing.
constexpr int32_t kProbeEvery = 256;
constexpr int32_t kProbeAtMost = 1024;
constexpr int32_t kManySteps = 8;  // what makes an average
constexpr double kWeight = 0.05;   // of the newest step in an average
constexpr int32_t kManyRows = 32;  // whose steps are averages by themselves
// Guessing gives up its place only to what is clearly faster: both averages are noisy.
constexpr double kMargin = 0.98;

// Steps of guessing before the first probe, and of a probe: how many guesses hold is an average over the
// rows too.
int32_t first_steps(int32_t rows) {
  return std::clamp(16 / std::max(rows, 1), 2, kManySteps);
}
int32_t probe_steps(int32_t rows) {
  return rows >= kManyRows ? 1 : std::clamp(16 / std::max(rows, 1), 2, 4);
}
// Of a step of a probe, whose average is old.
double probe_weight(int32_t rows) {
  return rows >= kManyRows ? 0.8 : 0.2;
}

}  // namespace

bool SpeculationGain::Size::guessing_is_better() const {
  return plain.ns_per_token() > kMargin * guessing.ns_per_token();
}

size_t SpeculationGain::index_of(int32_t rows) {
  constexpr size_t kLast = std::tuple_size_v<decltype(sizes_)> - 1;
  return std::min(static_cast<size_t>(std::bit_width(static_cast<uint32_t>(std::max(rows, 1))) - 1), kLast);
}

bool SpeculationGain::better(size_t index) const {
  for (size_t distance = 0; distance < sizes_.size(); ++distance) {
    for (const size_t at : {index - distance, index + distance}) {
      if (at < sizes_.size() && sizes_[at].known()) return sizes_[at].guessing_is_better();
    }
  }
  // Many rows are more likely to lose, and lose more.
  return index < index_of(kManyRows);
}

bool SpeculationGain::pays(int32_t rows, bool may_probe) {
  const size_t index = index_of(rows);
  Size& size = sizes_[index];
  const bool guess = better(index);
  if (!may_probe) return guess;
  if (guess != size.guessed || size.probe_every == 0) {
    size.guessed = guess;
    size.probe_every = kProbeEvery;
    size.probing = 0;
  }
  if (size.probing > 0) {
    --size.probing;
    return !guess;
  }
  if (++size.since_probe >= (size.known() ? size.probe_every : first_steps(rows))) {
    if (size.known()) size.probe_every = std::min(2 * size.probe_every, kProbeAtMost);
    size.since_probe = 0;
    size.probing = probe_steps(rows);
  }
  return guess;
}

void SpeculationGain::note(int32_t rows, bool guessed, int64_t ns, int64_t tokens) {
  if (tokens <= 0) return;
  Size& size = sizes_[index_of(rows)];
  Kind& kind = guessed ? size.guessing : size.plain;
  auto measured = static_cast<double>(ns);
  ++kind.steps;
  // The first steps count alike, later ones fade; one that took far longer than usual is somebody else's
  // work.
  const bool probe = size.known() && guessed != size.guessing_is_better();
  const double weight = std::max(probe ? probe_weight(rows) : kWeight, 1.0 / kind.steps);
  if (kind.steps > kManySteps) measured = std::min(measured, 4.0 * kind.ns);
  kind.ns += weight * (measured - kind.ns);
  kind.tokens += weight * (static_cast<double>(tokens) - kind.tokens);
}

}  // namespace fathom::sched
