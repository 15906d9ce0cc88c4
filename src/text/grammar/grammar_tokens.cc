#include "text/grammar/grammar_tokens.h"

#include <algorithm>

#include "core/token_mask.h"
#include "text/tokenizer/utf8.h"

namespace fathom::text {
namespace {

// How many plain characters the bytes are; 0: none, too many, or something else is among them.
int count_plain(std::string_view bytes) {
  if (!is_valid_utf8(bytes)) return 0;
  int count = 0;
  for (const char c : bytes) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte < 0x80 && !is_plain_ascii(byte)) return 0;
    if ((byte & 0xC0) != 0x80) ++count;
  }
  return count > GrammarTokens::kMaxPlain ? 0 : count;
}

}  // namespace

bool is_plain_ascii(uint8_t byte) {
  return byte >= 0x20 && byte < 0x80 && byte != '"' && byte != '\\';
}

void set_bit(std::span<uint64_t> bits, int32_t token) {
  const auto word = static_cast<size_t>(token) / 64;
  if (word < bits.size()) bits[word] |= uint64_t{1} << (token % 64);
}

TokenSet::TokenSet(std::vector<int32_t> tokens, size_t words) {
  if (tokens.size() <= words) {
    tokens.shrink_to_fit();
    tokens_ = std::move(tokens);
    return;
  }
  bits_.resize(words);
  for (const int32_t token : tokens) set_bit(bits_, token);
}

TokenSet::TokenSet(std::vector<uint64_t> bits, const std::vector<int32_t>& tokens) : bits_(std::move(bits)) {
  for (const int32_t token : tokens) set_bit(bits_, token);
}

void TokenSet::add_to(std::span<uint64_t> allowed) const {
  for (const int32_t token : tokens_) set_bit(allowed, token);
  const size_t words = std::min(bits_.size(), allowed.size());
  for (size_t i = 0; i < words; ++i) allowed[i] |= bits_[i];
}

GrammarTokens::GrammarTokens(const Tokenizer& tokenizer, std::vector<int32_t> eos_ids)
    : tokenizer_(tokenizer),
      eos_ids_(std::move(eos_ids)),
      all_(tokenizer, [](std::string_view) { return true; }),
      others_(tokenizer, [](std::string_view bytes) { return count_plain(bytes) == 0; }) {
  for (auto& set : plain_) set.resize(num_mask_words(tokenizer.vocab_size()));
  for (const TokenTrie::Node& node : all_.nodes()) {
    if (node.token < 0) continue;
    const int count = count_plain(tokenizer.token_bytes(node.token));
    for (int most = count; count > 0 && most <= kMaxPlain; ++most)
      set_bit(plain_[static_cast<size_t>(most)], node.token);
  }
}

std::shared_ptr<const BaseMask> GrammarTokens::find(const std::string& shape) const {
  std::lock_guard lock(mutex_);
  const auto it = by_shape_.find(shape);
  if (it == by_shape_.end()) return nullptr;
  used_.splice(used_.begin(), used_, it->second);
  return it->second->second;
}

void GrammarTokens::keep(const std::string& shape, std::shared_ptr<const BaseMask> mask) {
  std::lock_guard lock(mutex_);
  if (by_shape_.contains(shape)) return;  // another thread was faster
  used_.emplace_front(shape, std::move(mask));
  by_shape_[used_.front().first] = used_.begin();
  if (used_.size() <= kMaxKept) return;
  by_shape_.erase(used_.back().first);  // grammars that use the mask keep it
  used_.pop_back();
}

}  // namespace fathom::text
