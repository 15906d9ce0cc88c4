// Finds the masks of constrained sequences on threads of its own. A mask depends on the tokens before it, not
// on logits: as soon as a sequence's token is known the next mask is looked for, while the engine answers the
// step, is given the next one and runs its forward pass.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "core/executor.h"
#include "core/token_mask.h"
#include "sample/guess_tree.h"

namespace fathom::sample {

// Thread safe. Its threads start with the first constrained sequence.
class MaskWorkers {
 public:
  // One sequence: what its engine keeps for it. Outlives the workers' interest in it.
  class Sequence;
  struct Found {
    bool constrains = false;        // false: every token may come
    std::vector<uint64_t> allowed;  // TokenMask::fill's bits, where it constrains
    std::optional<Error> error;     // the request cannot go on; every token may come
  };

  // `threads` 0: by the machine.
  explicit MaskWorkers(int64_t vocab, int threads = 0);
  ~MaskWorkers();

  // Null when nothing constrains the sequence. `init.output` restores a preempted one. Looks for the first
  // mask.
  std::shared_ptr<Sequence> open(const SlotInit& init);
  // The next chosen tokens of the sequence; looks for the mask after them.
  void accept(const std::shared_ptr<Sequence>& sequence, std::span<const int32_t> tokens);
  // Nobody will tell of further tokens: who waits for their masks gets an error.
  void abandon(const std::shared_ptr<Sequence>& sequence);
  // The mask of the token that follows the first `tokens` ones of the output (with those of init), once it is
  // found. Valid until the next accept(). Waits for tokens that are still to be accepted.
  const Found& wait(const std::shared_ptr<Sequence>& sequence, int64_t tokens);

  // Guesses after the accepted tokens, all of which are told: takes out those that the mask forbids and what
  // hangs on them, and looks for the masks after the others. Waits for the mask before them.
  void guess(const std::shared_ptr<Sequence>& sequence, GuessTree* guesses);
  // The masks after each of the guesses that were left, once they are found; beside its nodes. To be called
  // after each guess(), before the next accept(), until when they are valid. Fewer where the sequence was
  // abandoned.
  std::span<const Found> wait_guessed(const std::shared_ptr<Sequence>& sequence);

 private:
  void work();
  // By the thread that has the sequence, without the lock.
  void find_next(Sequence& sequence, std::span<const int32_t> tokens) const;
  void find_guessed(Sequence& sequence) const;
  void find(TokenMask& mask, Found* found) const;
  void enqueue(const std::shared_ptr<Sequence>& sequence);  // with mutex_ held

  const int64_t vocab_;
  const int num_threads_;
  std::mutex mutex_;
  std::condition_variable work_ready_, found_;
  std::deque<std::shared_ptr<Sequence>> queue_;
  bool closed_ = false;
  std::vector<std::thread> threads_;
};

}  // namespace fathom::sample
