#include "sample/mask_workers.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace fathom::sample {

// All but `mask` and `result` under the workers' mutex; those belong to the thread that has taken the
// sequence from the queue, and `result` to readers once `found_for` says so.
class MaskWorkers::Sequence {
 public:
  std::unique_ptr<TokenMask> mask;
  std::vector<int32_t> pending;  // accepted, not yet shown to the mask
  int64_t accepted = 0;
  int64_t found_for = -1;  // `result` is the mask after so many tokens
  bool taken = false;      // in the queue, or with a thread
  bool abandoned = false;
  Found result;
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
  sequence->mask = init.mask->begin();
  sequence->pending = init.output;
  sequence->accepted = static_cast<int64_t>(init.output.size());
  std::lock_guard lock(mutex_);
  while (threads_.size() < static_cast<size_t>(num_threads_)) threads_.emplace_back([this] { work(); });
  enqueue(sequence);
  return sequence;
}

void MaskWorkers::enqueue(const std::shared_ptr<Sequence>& sequence) {
  if (sequence->taken) return;  // the thread that has it looks again
  sequence->taken = true;
  queue_.push_back(sequence);
  work_ready_.notify_one();
}

void MaskWorkers::accept(const std::shared_ptr<Sequence>& sequence, int32_t token) {
  std::lock_guard lock(mutex_);
  sequence->pending.push_back(token);
  ++sequence->accepted;
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

void MaskWorkers::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    work_ready_.wait(lock, [&] { return closed_ || !queue_.empty(); });
    if (closed_) return;
    const std::shared_ptr<Sequence> sequence = std::move(queue_.front());
    queue_.pop_front();
    while (sequence->found_for < sequence->accepted) {
      const std::vector<int32_t> tokens = std::exchange(sequence->pending, {});
      const int64_t after = sequence->accepted;
      lock.unlock();
      Found& result = sequence->result;
      for (const int32_t token : tokens) sequence->mask->accept(token);
      result.constrains = !result.error && sequence->mask->constrains();
      if (result.constrains) {
        result.allowed.resize(num_mask_words(vocab_));
        const Result<void> filled = sequence->mask->fill(result.allowed);
        if (!filled.ok()) {
          result.error = filled.error();
          result.constrains = false;
        }
      }
      lock.lock();
      sequence->found_for = after;
      found_.notify_all();
    }
    sequence->taken = false;
  }
}

}  // namespace fathom::sample
