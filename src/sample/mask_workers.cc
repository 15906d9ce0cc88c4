#include "sample/mask_workers.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "base/thread_start.h"

namespace fathom::sample {

namespace {

// Moves the mask along the tree, node by node in its order, and back.
class Walk {
 public:
  Walk(TokenMask& mask, const GuessTree& tree) : mask_(mask), tree_(tree) {}
  ~Walk() { back_to(0); }
  Walk(const Walk&) = delete;
  Walk& operator=(const Walk&) = delete;

  // False where the mask forbids the node.
  bool step(int32_t node) {
    back_to(tree_.depth(tree_.parents[static_cast<size_t>(node)]));
    if (!mask_.accept(tree_.tokens[static_cast<size_t>(node)])) return false;
    ++depth_;
    return true;
  }

 private:
  void back_to(int32_t depth) {
    if (depth < depth_) mask_.rollback(depth_ - depth);
    depth_ = depth;
  }

  TokenMask& mask_;
  const GuessTree& tree_;
  int32_t depth_ = 0;
};

// What the mask allows of the tree.
GuessTree allowed_part(TokenMask& mask, const GuessTree& tree) {
  GuessTree part;
  std::vector<int32_t> places(tree.tokens.size(), GuessTree::kNone);  // in `part`
  Walk walk(mask, tree);
  for (int32_t node = 0; node < tree.size(); ++node) {
    const int32_t parent = tree.parents[static_cast<size_t>(node)];
    const int32_t place = parent == GuessTree::kRoot ? parent : places[static_cast<size_t>(parent)];
    if (place == GuessTree::kNone || !walk.step(node)) continue;
    places[static_cast<size_t>(node)] = part.size();
    part.add(tree.tokens[static_cast<size_t>(node)], place);
  }
  return part;
}

}  // namespace

// All but the masks and what is found under the workers' mutex; those belong to the thread that has taken the
// sequence, and `result` and `guessed` to readers once `found_for` and `guesses_found` say so.
class MaskWorkers::Sequence {
 public:
  std::shared_ptr<const TokenMaskSource> source;  // to which the mask may refer
  std::unique_ptr<TokenMask> mask;
  std::vector<int32_t> pending;  // accepted, not yet shown to the mask
  int64_t accepted = 0;
  int64_t found_for = -1;  // `result` is the mask after so many tokens
  bool taken = false;      // in the queue, or with a thread
  bool abandoned = false;
  Found result;
  GuessTree guesses;
  std::vector<Found> guessed;  // kept between steps, so that their bits are not allocated again
  bool guesses_found = true;
};

MaskWorkers::MaskWorkers(int64_t vocab, int threads)
    : vocab_(vocab),
      num_threads_(threads > 0
                       ? threads
                       : std::clamp(static_cast<int>(std::thread::hardware_concurrency()) / 8, 1, 4)) {}

MaskWorkers::~MaskWorkers() {
  {
    std::lock_guard lock(mutex_);
    closed_ = true;
  }
  work_ready_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

std::shared_ptr<MaskWorkers::Sequence> MaskWorkers::open(const SlotInit& init) {
  if (init.mask == nullptr) return nullptr;
  auto sequence = std::make_shared<Sequence>();
  sequence->source = init.mask;
  sequence->mask = init.mask->begin();
  sequence->pending = init.output;
  sequence->accepted = static_cast<int64_t>(init.output.size());
  std::lock_guard lock(mutex_);
  while (threads_.size() < static_cast<size_t>(num_threads_)) {
    threads_.emplace_back([this] {
      begin_thread("masks");
      work();
    });
  }
  enqueue(sequence);
  return sequence;
}

void MaskWorkers::enqueue(const std::shared_ptr<Sequence>& sequence) {
  if (sequence->taken) return;  // the thread that has it looks again
  sequence->taken = true;
  queue_.push_back(sequence);
  work_ready_.notify_one();
}

void MaskWorkers::accept(const std::shared_ptr<Sequence>& sequence, std::span<const int32_t> tokens) {
  std::lock_guard lock(mutex_);
  sequence->pending.insert(sequence->pending.end(), tokens.begin(), tokens.end());
  sequence->accepted += static_cast<int64_t>(tokens.size());
  enqueue(sequence);
}

void MaskWorkers::abandon(const std::shared_ptr<Sequence>& sequence) {
  {
    std::lock_guard lock(mutex_);
    sequence->abandoned = true;
  }
  found_.notify_all();
}

const MaskWorkers::Found& MaskWorkers::wait(const std::shared_ptr<Sequence>& sequence, int64_t tokens) {
  static const Found kAbandoned{false, {}, error(ErrorCode::kUnavailable, "the sequence was abandoned")};
  std::unique_lock lock(mutex_);
  FATHOM_CHECK_LE(sequence->found_for, tokens);
  found_.wait(lock, [&] { return sequence->found_for == tokens || sequence->abandoned; });
  return sequence->found_for == tokens ? sequence->result : kAbandoned;
}

void MaskWorkers::guess(const std::shared_ptr<Sequence>& sequence, GuessTree* guesses) {
  Sequence& s = *sequence;
  std::unique_lock lock(mutex_);
  found_.wait(lock, [&] { return (s.found_for == s.accepted && !s.taken) || s.abandoned; });
  if (s.abandoned || s.result.error) guesses->clear();
  s.guesses.clear();
  if (guesses->empty()) return;
  s.taken = true;
  lock.unlock();
  *guesses = allowed_part(*s.mask, *guesses);
  lock.lock();
  s.taken = false;
  if (guesses->empty()) return;
  s.guesses = *guesses;
  s.guesses_found = false;
  enqueue(sequence);
}

std::span<const MaskWorkers::Found> MaskWorkers::wait_guessed(const std::shared_ptr<Sequence>& sequence) {
  std::unique_lock lock(mutex_);
  found_.wait(lock, [&] { return sequence->guesses_found || sequence->abandoned; });
  if (!sequence->guesses_found) return {};
  return {sequence->guessed.data(), sequence->guesses.tokens.size()};
}

void MaskWorkers::find(TokenMask& mask, Found* found) const {
  found->error.reset();
  found->constrains = mask.constrains();
  if (!found->constrains) return;
  found->allowed.resize(num_mask_words(vocab_));
  const Result<void> filled = mask.fill(found->allowed);
  if (filled.ok()) return;
  found->error = filled.error();
  found->constrains = false;
}

void MaskWorkers::find_next(Sequence& sequence, std::span<const int32_t> tokens) const {
  for (const int32_t token : tokens) sequence.mask->accept(token);
  // One that has failed stays so.
  if (sequence.result.error)
    sequence.result.constrains = false;
  else
    find(*sequence.mask, &sequence.result);
}

void MaskWorkers::find_guessed(Sequence& sequence) const {
  const GuessTree& guesses = sequence.guesses;
  if (sequence.guessed.size() < guesses.tokens.size()) sequence.guessed.resize(guesses.tokens.size());
  Walk walk(*sequence.mask, guesses);
  for (int32_t node = 0; node < guesses.size(); ++node) {
    FATHOM_CHECK(walk.step(node), "a mask that allowed guess {} forbids it", node);
    find(*sequence.mask, &sequence.guessed[static_cast<size_t>(node)]);
  }
}

void MaskWorkers::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_ready_.wait(lock, [&] { return closed_ || !queue_.empty(); });
    if (closed_) return;
    const std::shared_ptr<Sequence> sequence = std::move(queue_.front());
    queue_.pop_front();
    Sequence& s = *sequence;
    // Guesses stand before tokens that were accepted after them.
    while (!s.guesses_found || s.found_for < s.accepted) {
      const bool guessed = !s.guesses_found;
      const std::vector<int32_t> tokens = guessed ? std::vector<int32_t>() : std::exchange(s.pending, {});
      const int64_t after = s.accepted;
      lock.unlock();
      if (guessed)
        find_guessed(s);
      else
        find_next(s, tokens);
      lock.lock();
      if (guessed)
        s.guesses_found = true;
      else
        s.found_for = after;
      found_.notify_all();
    }
    s.taken = false;
  }
}

}  // namespace fathom::sample
