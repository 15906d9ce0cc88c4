#include "api/turn_memory.h"

#include <algorithm>

#include "api/active_requests.h"

namespace fathom::api {
namespace {

constexpr size_t kTurnOverhead = 256;
// A candidate is compared byte by byte; hashes that agree by chance are few.
constexpr int kMaxCompared = 16;

bool is_inside_character(std::string_view text, size_t at) {
  return at < text.size() && (static_cast<unsigned char>(text[at]) & 0xC0) == 0x80;
}

}  // namespace

size_t TurnMemory::Turn::bytes() const {
  return kTurnOverhead + cache_namespace.size() + prompt.size() +
         (prompt_ids.size() + output_ids.size()) * sizeof(int32_t);
}

TurnMemory::TurnMemory(const text::Tokenizer& tokenizer, size_t max_bytes)
    : tokenizer_(tokenizer),
      max_bytes_(max_bytes),
      end_of_turn_(tokenizer.eos_token()),
      factor_(random_seed() | 1) {}

uint64_t TurnMemory::hash_of(const std::string& cache_namespace, std::string_view text) const {
  uint64_t hash = std::hash<std::string>()(cache_namespace);
  for (const char c : text) hash = hash * factor_ + static_cast<unsigned char>(c) + 1;
  return hash;
}

void TurnMemory::remember(const std::string& cache_namespace, std::string_view prompt,
                          const std::vector<int32_t>& prompt_ids, const std::vector<int32_t>& output_ids) {
  if (output_ids.empty() || prompt_ids.empty()) return;
  Turn turn{cache_namespace, std::string(prompt), prompt_ids, output_ids, hash_of(cache_namespace, prompt)};
  const size_t bytes = turn.bytes();
  if (bytes > max_bytes_ / 8) return;
  const std::lock_guard lock(mutex_);
  const auto [begin, end] = by_hash_.equal_range(turn.hash);
  for (auto it = begin; it != end; ++it) {
    const Turn& known = *it->second;
    if (known.output_ids == output_ids && known.prompt == prompt) return;
  }
  while (!turns_.empty() && (bytes_ + bytes > max_bytes_ || turns_.size() == kMaxTurns)) forget_oldest();
  bytes_ += bytes;
  ++lengths_[turn.prompt.size()];
  turns_.push_front(std::move(turn));
  by_hash_.emplace(turns_.front().hash, turns_.begin());
}

void TurnMemory::forget_oldest() {
  const auto oldest = std::prev(turns_.end());
  bytes_ -= oldest->bytes();
  const auto length = lengths_.find(oldest->prompt.size());
  if (--length->second == 0) lengths_.erase(length);
  const auto [begin, end] = by_hash_.equal_range(oldest->hash);
  by_hash_.erase(std::find_if(begin, end, [&](const auto& entry) { return entry.second == oldest; }));
  turns_.erase(oldest);
}

size_t TurnMemory::follow(const Turn& turn, std::string_view text, size_t* end) const {
  size_t at = turn.prompt.size();
  size_t count = 0;
  size_t whole = 0;  // tokens up to the last whole character, which end at *end
  *end = at;
  while (count < turn.output_ids.size()) {
    const std::string_view bytes = tokenizer_.token_bytes(turn.output_ids[count]);
    if (text.substr(at, bytes.size()) != bytes) break;
    at += bytes.size();
    ++count;
    if (is_inside_character(text, at)) continue;
    whole = count;
    *end = at;
  }
  if (whole == turn.output_ids.size()) return whole;
  // The client has another message there, unless it only lacks the end that a stop string cut off.
  const size_t message_end = std::min(text.find(end_of_turn_, *end), text.size());
  const std::string_view left = text.substr(*end, message_end - *end);
  const bool cut_off = whole > 0 && tokenizer_.token_bytes(turn.output_ids[whole]).starts_with(left);
  if (cut_off) return whole;
  *end = turn.prompt.size();
  return 0;
}

TurnMemory::Begin TurnMemory::recall(const std::string& cache_namespace, std::string_view text) const {
  const std::lock_guard lock(mutex_);
  std::vector<std::pair<size_t, uint64_t>> begins;  // of the text, as long as some prompt
  uint64_t hash = hash_of(cache_namespace, {});
  size_t hashed = 0;
  for (const auto& [length, unused] : lengths_) {
    if (length > text.size()) break;
    for (; hashed < length; ++hashed) hash = hash * factor_ + static_cast<unsigned char>(text[hashed]) + 1;
    if (by_hash_.contains(hash)) begins.emplace_back(length, hash);
  }
  int compared = 0;
  for (auto begin = begins.rbegin(); begin != begins.rend(); ++begin) {
    const auto [first, last] = by_hash_.equal_range(begin->second);
    const Turn* best = nullptr;
    size_t count = 0;
    size_t end = 0;
    for (auto it = first; it != last && compared < kMaxCompared; ++it, ++compared) {
      const Turn& turn = *it->second;
      if (turn.cache_namespace != cache_namespace || turn.prompt != text.substr(0, begin->first)) continue;
      size_t turn_end = 0;
      const size_t turn_count = follow(turn, text, &turn_end);
      if (best != nullptr && turn_end <= end) continue;
      best = &turn;
      count = turn_count;
      end = turn_end;
    }
    if (best == nullptr) continue;
    // A prompt may end in the middle of a word, where only its own answer goes on.
    const int32_t last_id = best->prompt_ids.back();
    if (count == 0 && !tokenizer_.is_special(last_id) && !tokenizer_.is_added(last_id)) continue;
    Begin found{best->prompt_ids, end};
    found.ids.insert(found.ids.end(), best->output_ids.begin(),
                     best->output_ids.begin() + static_cast<std::ptrdiff_t>(count));
    return found;
  }
  return {};
}

size_t TurnMemory::turns() const {
  const std::lock_guard lock(mutex_);
  return turns_.size();
}

}  // namespace fathom::api
