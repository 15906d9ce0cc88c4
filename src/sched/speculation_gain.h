// Whether guessing tokens pays at the number of rows that decode now, from how long the last steps took.
//
// A step that verifies guesses costs more than one that does not, and gives more tokens; with many rows the
// cost grows past the gain. For each size of batch, in powers of two, averages of a step's time and tokens
// are kept, with guesses and without, and the kind of step that takes less time a token is planned; now and
// then, ever less often, a few steps of the other kind keep its averages fresh. Only steps of nothing but
// decode rows can be compared; a size that has had none of one kind does as the nearest size that knows. Not
// thread safe.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace fathom::sched {

class SpeculationGain {
 public:
  // Shall the next step, of `rows` decode rows, guess? may_probe: it will hardly have other rows.
  bool pays(int32_t rows, bool may_probe = true);
  // A step of decode rows only took `ns` and gave `tokens`.
  void note(int32_t rows, bool guessed, int64_t ns, int64_t tokens);

 private:
  struct Kind {
    double ns = 0.0, tokens = 0.0;  // of a step
    int32_t steps = 0;              // noted
    double ns_per_token() const { return ns / tokens; }
  };
  struct Size {
    Kind plain, guessing;
    bool guessed = true;      // the better kind, when it was last asked for
    int32_t since_probe = 0;  // steps planned of it
    int32_t probe_every = 0;
    int32_t probing = 0;  // steps of the other kind to come
    bool known() const { return plain.steps > 0 && guessing.steps > 0; }
    bool guessing_is_better() const;
  };
  static std::size_t index_of(int32_t rows);

  bool better(std::size_t index) const;

  std::array<Size, 16> sizes_;
};

}  // namespace fathom::sched
