#include "text/tokenizer/bpe.h"

#include <algorithm>
#include <bit>
#include <queue>

#include "text/tokenizer/byte_level.h"
#include "text/tokenizer/json_field.h"

namespace fathom::text {
namespace {

constexpr uint64_t kFree = ~uint64_t{0};
constexpr int kIdBits = 21;
constexpr uint64_t kRankMask = (uint64_t{1} << kIdBits) - 1;
static_assert(Vocabulary::kMaxSize == 1 << kIdBits);

uint64_t pair_key(uint32_t left, uint32_t right) {
  return static_cast<uint64_t>(left) << kIdBits | static_cast<uint64_t>(right);
}

// Fibonacci hashing: the high bits of the product.
size_t pair_slot(uint64_t key, int shift) {
  return static_cast<size_t>(key * 0x9E3779B97F4A7C15u >> shift);
}

// A setting that changes what the merges mean, and that no byte-level tokenizer of this family uses.
Result<void> refuse(const nlohmann::json& model, std::string_view name) {
  const auto& value = json_field(model, name);
  const bool off = value.is_null() || value == false || value == "" || value == 0;
  if (off) return {};
  return error(ErrorCode::kUnsupported, "BPE with '{}' = {} is not supported", name, value.dump());
}

struct MergeText {
  std::string left;
  std::string right;
};

Result<MergeText> parse_merge(const nlohmann::json& json) {
  if (json.is_array() && json.size() == 2 && json[0].is_string() && json[1].is_string()) {
    return MergeText{json[0].get<std::string>(), json[1].get<std::string>()};
  }
  if (json.is_string()) {
    const auto& text = json.get_ref<const std::string&>();
    const size_t space = text.find(' ');
    if (space != std::string::npos && text.find(' ', space + 1) == std::string::npos) {
      return MergeText{text.substr(0, space), text.substr(space + 1)};
    }
  }
  return error(ErrorCode::kInvalidArgument, "a merge must be \"a b\" or [\"a\", \"b\"], got {}",
               json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace));
}

}  // namespace

Result<Bpe> Bpe::parse(const nlohmann::json& model, Vocabulary* vocabulary) {
  const auto& type = json_field(model, "type");
  if (type != "BPE") {
    return error(ErrorCode::kUnsupported, "model type {} is not supported, only \"BPE\"", type.dump());
  }
  for (const char* name :
       {"dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix", "byte_fallback"}) {
    FATHOM_TRY(refuse(model, name));
  }
  const auto& vocab = json_field(model, "vocab");
  if (!vocab.is_object()) return error(ErrorCode::kInvalidArgument, "'vocab' must be an object");
  Bpe bpe;
  std::vector<int32_t> byte_level_ids;
  byte_level_ids.reserve(vocab.size());
  for (const auto& [token, id] : vocab.items()) {
    FATHOM_ASSIGN(const int32_t token_id, json_token_id(id));
    // A token with a character outside the alphabet can never be made by merging; it is only decoded, as
    // itself.
    const auto bytes = byte_level_decode(token);
    if (!vocabulary->set_bytes(token_id, bytes ? *bytes : token)) {
      return error(ErrorCode::kInvalidArgument, "two tokens have the id {}; one is '{}'", token_id, token);
    }
    if (bytes) byte_level_ids.push_back(token_id);
  }
  vocabulary->index(byte_level_ids);
  for (int byte = 0; byte < 256; ++byte) {
    const char character = static_cast<char>(byte);
    bpe.byte_id_[byte] = vocabulary->find({&character, 1});
  }
  FATHOM_TRY(bpe.parse_merges(json_field(model, "merges"), *vocabulary));
  FATHOM_ASSIGN(const bool ignore_merges, json_bool(model, "ignore_merges", false));
  if (ignore_merges) bpe.whole_words_ = vocabulary;
  return bpe;
}

Result<void> Bpe::parse_merges(const nlohmann::json& merges, const Vocabulary& vocabulary) {
  if (!merges.is_array() || merges.size() >= kRankMask) {
    return error(ErrorCode::kInvalidArgument, "'merges' must be an array of less than {} merges", kRankMask);
  }
  const size_t slots = std::bit_ceil(merges.size() * 2 + 2);
  pairs_.assign(slots, kFree);
  pair_shift_ = 64 - std::countr_zero(slots);
  const auto find = [&vocabulary](std::string_view token) {
    const auto bytes = byte_level_decode(token);
    return bytes ? vocabulary.find(*bytes) : -1;
  };
  for (const auto& merge : merges) {
    FATHOM_ASSIGN(const MergeText text, parse_merge(merge));
    const int32_t left = find(text.left);
    const int32_t right = find(text.right);
    const int32_t merged = find(text.left + text.right);
    if (left < 0 || right < 0 || merged < 0) {
      return error(ErrorCode::kInvalidArgument,
                   "merge {}: '{}' + '{}' names a token that is not in the vocabulary", merged_id_.size(),
                   text.left, text.right);
    }
    set_rank(static_cast<uint32_t>(left), static_cast<uint32_t>(right),
             static_cast<uint32_t>(merged_id_.size()));
    merged_id_.push_back(merged);
  }
  byte_pair_rank_.assign(256 * 256, kNoRank);
  for (int left = 0; left < 256; ++left) {
    for (int right = 0; right < 256; ++right) {
      if (byte_id_[left] < 0 || byte_id_[right] < 0) continue;
      byte_pair_rank_[left * 256 + right] =
          rank(static_cast<uint32_t>(byte_id_[left]), static_cast<uint32_t>(byte_id_[right]));
    }
  }
  return {};
}

void Bpe::set_rank(uint32_t left, uint32_t right, uint32_t rank) {
  const uint64_t key = pair_key(left, right);
  const size_t mask = pairs_.size() - 1;
  size_t slot = pair_slot(key, pair_shift_);
  while (pairs_[slot] != kFree && pairs_[slot] >> kIdBits != key) slot = (slot + 1) & mask;
  pairs_[slot] = key << kIdBits | rank;  // of a merge given twice the later counts
}

inline uint32_t Bpe::rank(uint32_t left, uint32_t right) const {
  const uint64_t key = pair_key(left, right);
  const size_t mask = pairs_.size() - 1;
  for (size_t slot = pair_slot(key, pair_shift_); pairs_[slot] != kFree; slot = (slot + 1) & mask) {
    if (pairs_[slot] >> kIdBits == key) return static_cast<uint32_t>(pairs_[slot] & kRankMask);
  }
  return kNoRank;
}

void Bpe::encode(std::string_view word, std::vector<int32_t>* ids) const {
  if (whole_words_ != nullptr) {
    const int32_t id = whole_words_->find(word);
    if (id >= 0) {
      ids->push_back(id);
      return;
    }
  }
  if (word.size() <= kShortWord) {
    encode_short(word, ids);
  } else {
    encode_long(word, ids);
  }
}

void Bpe::encode_short(std::string_view word, std::vector<int32_t>* ids) const {
  std::array<uint32_t, kShortWord> symbols;
  std::array<uint32_t, kShortWord> ranks;  // of the pair that starts here
  size_t count = 0;
  uint8_t previous = 0;
  for (const char c : word) {
    const auto byte = static_cast<uint8_t>(c);
    if (byte_id_[byte] < 0) continue;
    if (count > 0) ranks[count - 1] = byte_pair_rank_[previous * 256 + byte];
    symbols[count++] = static_cast<uint32_t>(byte_id_[byte]);
    previous = byte;
  }
  while (count > 1) {
    const auto ranks_end = ranks.begin() + static_cast<ptrdiff_t>(count - 1);
    const auto best = std::min_element(ranks.begin(), ranks_end);
    if (*best == kNoRank) break;
    const auto at = static_cast<size_t>(best - ranks.begin());
    symbols[at] = static_cast<uint32_t>(merged_id_[*best]);
    std::copy(symbols.begin() + at + 2, symbols.begin() + count, symbols.begin() + at + 1);
    std::copy(ranks.begin() + at + 1, ranks.begin() + count - 1, ranks.begin() + at);
    --count;
    if (at + 1 < count) ranks[at] = rank(symbols[at], symbols[at + 1]);
    if (at > 0) ranks[at - 1] = rank(symbols[at - 1], symbols[at]);
  }
  ids->insert(ids->end(), symbols.begin(), symbols.begin() + count);
}

void Bpe::encode_long(std::string_view word, std::vector<int32_t>* ids) const {
  struct Symbol {
    uint32_t id;
    uint32_t rank;  // of the pair with the next symbol
    uint32_t previous;
    uint32_t next;
  };
  constexpr uint32_t kNone = ~uint32_t{0};
  std::vector<Symbol> symbols;
  symbols.reserve(word.size());
  for (const char c : word) {
    const int32_t id = byte_id_[static_cast<uint8_t>(c)];
    if (id < 0) continue;
    const auto index = static_cast<uint32_t>(symbols.size());
    symbols.push_back({static_cast<uint32_t>(id), kNoRank, index - 1, index + 1});
  }
  if (symbols.empty()) return;
  symbols.front().previous = kNone;
  symbols.back().next = kNone;

  // Rank above, position below: the order of merging. An entry is stale when the symbol's rank has changed
  // since.
  using Entry = uint64_t;
  std::vector<Entry> entries;
  entries.reserve(symbols.size());
  for (uint32_t i = 0; i + 1 < symbols.size(); ++i) {
    symbols[i].rank = rank(symbols[i].id, symbols[i + 1].id);
    if (symbols[i].rank != kNoRank) entries.push_back(static_cast<Entry>(symbols[i].rank) << 32 | i);
  }
  std::priority_queue<Entry, std::vector<Entry>, std::greater<>> queue({}, std::move(entries));
  const auto update_rank = [&](uint32_t at) {
    Symbol& symbol = symbols[at];
    symbol.rank = symbol.next == kNone ? kNoRank : rank(symbol.id, symbols[symbol.next].id);
    if (symbol.rank != kNoRank) queue.push(static_cast<Entry>(symbol.rank) << 32 | at);
  };
  while (!queue.empty()) {
    const auto at = static_cast<uint32_t>(queue.top());
    const auto top_rank = static_cast<uint32_t>(queue.top() >> 32);
    queue.pop();
    Symbol& symbol = symbols[at];
    if (symbol.rank != top_rank) continue;
    Symbol& absorbed = symbols[symbol.next];
    symbol.id = static_cast<uint32_t>(merged_id_[top_rank]);
    symbol.next = absorbed.next;
    absorbed.rank = kNoRank;
    if (symbol.next != kNone) symbols[symbol.next].previous = at;
    update_rank(at);
    if (symbol.previous != kNone) update_rank(symbol.previous);
  }
  for (uint32_t i = 0; i != kNone; i = symbols[i].next) ids->push_back(static_cast<int32_t>(symbols[i].id));
}

}  // namespace fathom::text
