#include "api/special_tokens.h"

#include <algorithm>
#include <set>

#include "text/tokenizer/utf8.h"

namespace fathom::api {
namespace {

// Two noncharacters (U+FDD0, U+FDD1), which no text in use holds.
constexpr std::string_view kMark = "\xEF\xB7\x90\xEF\xB7\x91";

// Also of those that come to be when one inside goes.
std::string without_marks(std::string_view text) {
  if (text.find(kMark) == std::string_view::npos) return std::string(text);
  std::string out;
  for (const char byte : text) {
    out += byte;
    if (byte == kMark.back() && out.ends_with(kMark)) out.resize(out.size() - kMark.size());
  }
  return out;
}

}  // namespace

SpecialTokenGuard::SpecialTokenGuard(const text::Tokenizer& tokenizer) : tokenizer_(tokenizer) {
  std::set<size_t, std::greater<>> lengths;
  for (int32_t id = 0; id < tokenizer.vocab_size(); ++id) {
    const std::string_view bytes = tokenizer.token_bytes(id);
    longest_token_ = std::max(longest_token_, bytes.size());
    const bool marker = tokenizer.is_special(id) || tokenizer.is_added(id);
    if (!marker || bytes.empty()) continue;
    tokens_.emplace(bytes);
    lengths.insert(bytes.size());
    first_byte_[static_cast<uint8_t>(bytes[0])] = true;
  }
  lengths_.assign(lengths.begin(), lengths.end());
}

size_t SpecialTokenGuard::fewest_tokens(size_t bytes) const {
  constexpr size_t kNormalization = 3;  // NFC composes three code points of a Hangul syllable to one
  return bytes / (longest_token_ * kNormalization);
}

size_t SpecialTokenGuard::match_at(std::string_view text, size_t pos) const {
  if (!first_byte_[static_cast<uint8_t>(text[pos])]) return 0;
  for (size_t length : lengths_) {
    if (pos + length <= text.size() && tokens_.contains(std::string(text.substr(pos, length)))) return length;
  }
  return 0;
}

std::string SpecialTokenGuard::mark(std::string_view untrusted) const {
  const std::string text = without_marks(untrusted);  // only our own marks may be cut at
  std::string out;
  size_t copied = 0;
  for (size_t pos = 0; pos < text.size(); ++pos) {
    if (match_at(text, pos) == 0) continue;
    // A mark after its first character breaks this token; one that begins inside it is found next.
    pos += text::utf8_length(text[pos]);
    out.append(text, copied, pos - copied);
    out += kMark;
    copied = pos--;
  }
  return out.append(text, copied);
}

std::string SpecialTokenGuard::unmark(std::string_view rendered) {
  std::string out;
  while (true) {
    const size_t end = rendered.find(kMark);
    out += rendered.substr(0, end);
    if (end == std::string_view::npos) return out;
    rendered.remove_prefix(end + kMark.size());
  }
}

std::vector<int32_t> SpecialTokenGuard::encode(std::string_view rendered) const {
  std::vector<int32_t> ids;
  while (true) {
    const size_t end = rendered.find(kMark);
    const std::vector<int32_t> part = tokenizer_.encode(rendered.substr(0, end), false);
    ids.insert(ids.end(), part.begin(), part.end());
    if (end == std::string_view::npos) return ids;
    rendered.remove_prefix(end + kMark.size());
  }
}

}  // namespace fathom::api
