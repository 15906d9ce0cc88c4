#include "text/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "text/tokenizer/json_field.h"
#include "text/tokenizer/unicode_class.h"
#include "text/tokenizer/utf8.h"

namespace fathom::text {
namespace {

// What ByteLevel splits by when its "use_regex" is set.
constexpr std::string_view kByteLevelPattern =
    R"('s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+)";
constexpr int kMaxDepth = 16;

struct Piece {
  size_t begin;
  size_t end;
  bool matched;
};

Result<SplitBehavior> parse_behavior(const nlohmann::json& json) {
  FATHOM_ASSIGN(const std::string name, json_string(json, "behavior"));
  if (name == "Removed") return SplitBehavior::kRemoved;
  if (name == "Isolated") return SplitBehavior::kIsolated;
  if (name == "MergedWithPrevious") return SplitBehavior::kMergedWithPrevious;
  if (name == "MergedWithNext") return SplitBehavior::kMergedWithNext;
  if (name == "Contiguous") return SplitBehavior::kContiguous;
  return error(ErrorCode::kUnsupported, "pre-tokenizer behavior '{}' is not supported", name);
}

// Joins neighbours where the behavior says so. Unmatched pieces keep their place; a match is merged only when
// the piece it would join is not itself a match.
std::vector<Piece> merge_pieces(std::vector<Piece> pieces, SplitBehavior behavior) {
  if (behavior == SplitBehavior::kIsolated) return pieces;
  std::vector<Piece> merged;
  if (behavior == SplitBehavior::kRemoved) {
    std::copy_if(pieces.begin(), pieces.end(), std::back_inserter(merged),
                 [](const Piece& piece) { return !piece.matched; });
    return merged;
  }
  const bool backwards = behavior == SplitBehavior::kMergedWithNext;
  if (backwards) std::reverse(pieces.begin(), pieces.end());
  bool previous_matched = false;
  for (const Piece& piece : pieces) {
    const bool joins = behavior == SplitBehavior::kContiguous ? piece.matched == previous_matched
                                                              : piece.matched && !previous_matched;
    if (joins && !merged.empty()) {
      (backwards ? merged.back().begin : merged.back().end) = backwards ? piece.begin : piece.end;
    } else {
      merged.push_back(piece);
    }
    previous_matched = piece.matched;
  }
  if (backwards) std::reverse(merged.begin(), merged.end());
  return merged;
}

// A literal CR or LF as \r or \n, so that both ways of writing a pattern compare equal.
std::string with_escaped_line_breaks(std::string_view pattern) {
  std::string out;
  for (const char c : pattern) {
    if (c == '\r' || c == '\n') {
      out += c == '\r' ? "\\r" : "\\n";
    } else {
      out += c;
    }
  }
  return out;
}

bool is_ascii_punctuation(char32_t c) {
  return (c >= 0x21 && c <= 0x2F) || (c >= 0x3A && c <= 0x40) || (c >= 0x5B && c <= 0x60) ||
         (c >= 0x7B && c <= 0x7E);
}

template <class Belongs>
void match_characters(std::string_view text, Belongs belongs, std::vector<Piece>* pieces) {
  size_t unmatched_from = 0;
  for (size_t pos = 0; pos < text.size();) {
    const size_t length = utf8_length(text[pos]);
    if (belongs(decode_utf8(text.data() + pos, length))) {
      if (unmatched_from != pos) pieces->push_back({unmatched_from, pos, false});
      pieces->push_back({pos, pos + length, true});
      unmatched_from = pos + length;
    }
    pos += length;
  }
  if (unmatched_from != text.size()) pieces->push_back({unmatched_from, text.size(), false});
}

void match_regex(std::string_view text, const Regex& regex, std::vector<Piece>* pieces) {
  size_t unmatched_from = 0;
  regex.for_each_match(text, [&](size_t begin, size_t end) {
    if (unmatched_from != begin) pieces->push_back({unmatched_from, begin, false});
    pieces->push_back({begin, end, true});
    unmatched_from = end;
  });
  if (unmatched_from != text.size()) pieces->push_back({unmatched_from, text.size(), false});
}

}  // namespace

Result<PreTokenizer> PreTokenizer::parse_as_regex(const nlohmann::json& json) {
  PreTokenizer result;
  FATHOM_TRY(result.add(json, 0));
  if (!result.byte_level_) {
    return error(ErrorCode::kUnsupported,
                 "the pre-tokenizer has no ByteLevel: only byte-level BPE is supported");
  }
  return result;
}

Result<PreTokenizer> PreTokenizer::parse(const nlohmann::json& json) {
  FATHOM_ASSIGN(PreTokenizer result, parse_as_regex(json));
  result.deepseek_ = result.is_deepseek();
  return result;
}

Result<void> PreTokenizer::add(const nlohmann::json& json, int depth) {
  FATHOM_ASSIGN(const std::string type, json_string(json, "type"));
  if (byte_level_) {
    return error(ErrorCode::kUnsupported, "pre-tokenizer '{}' after ByteLevel is not supported", type);
  }
  if (type == "Sequence") {
    const auto& members = json_field(json, "pretokenizers");
    if (!members.is_array() || depth == kMaxDepth) {
      return error(ErrorCode::kInvalidArgument, "'pretokenizers' must be an array, nested at most {} deep",
                   kMaxDepth);
    }
    for (const auto& member : members) FATHOM_TRY(add(member, depth + 1));
    return {};
  }
  if (type == "Split") return add_split(json);
  if (type == "ByteLevel") return add_byte_level(json);
  if (type == "Digits") {
    FATHOM_ASSIGN(const bool individual, json_bool(json, "individual_digits", false));
    splits_.push_back(
        {MatchNumbers{}, individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous, false});
    return {};
  }
  if (type == "Punctuation") {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    if (!json_field(json, "behavior").is_null()) {
      FATHOM_ASSIGN(behavior, parse_behavior(json));
    }
    splits_.push_back({MatchPunctuation{}, behavior, false});
    return {};
  }
  return error(ErrorCode::kUnsupported, "pre-tokenizer '{}' is not supported", type);
}

Result<void> PreTokenizer::add_split(const nlohmann::json& json) {
  FATHOM_ASSIGN(const SplitBehavior behavior, parse_behavior(json));
  FATHOM_ASSIGN(const bool invert, json_bool(json, "invert", false));
  const auto& pattern = json_field(json, "pattern");
  if (json_field(pattern, "Regex").is_string()) {
    FATHOM_ASSIGN(std::string source, json_string(pattern, "Regex"));
    FATHOM_ASSIGN(Regex regex, Regex::compile(source));
    splits_.push_back({MatchPattern{std::move(regex), std::move(source)}, behavior, invert});
    return {};
  }
  FATHOM_ASSIGN(const std::string literal, json_string(pattern, "String"));
  FATHOM_ASSIGN(Regex regex, Regex::compile_literal(literal));
  splits_.push_back({MatchPattern{std::move(regex), ""}, behavior, invert});
  return {};
}

Result<void> PreTokenizer::add_byte_level(const nlohmann::json& json) {
  FATHOM_ASSIGN(add_prefix_space_, json_bool(json, "add_prefix_space", true));
  FATHOM_ASSIGN(const bool use_regex, json_bool(json, "use_regex", true));
  byte_level_ = true;
  if (use_regex) {
    FATHOM_ASSIGN(Regex regex, Regex::compile(kByteLevelPattern));
    byte_level_regex_.push_back({MatchPattern{std::move(regex), ""}, SplitBehavior::kIsolated, false});
  }
  return {};
}

bool PreTokenizer::is_deepseek() const {
  const auto& expected = DeepseekScanner::patterns();
  if (splits_.size() != expected.size() || !byte_level_regex_.empty() || add_prefix_space_) return false;
  for (size_t i = 0; i < splits_.size(); ++i) {
    const auto* pattern = std::get_if<MatchPattern>(&splits_[i].what);
    if (pattern == nullptr || splits_[i].invert || splits_[i].behavior != SplitBehavior::kIsolated ||
        with_escaped_line_breaks(pattern->source) != expected[i]) {
      return false;
    }
  }
  return true;
}

void PreTokenizer::apply(const Split& split, std::string_view piece, std::vector<std::string_view>* out) {
  std::vector<Piece> pieces;
  if (const auto* pattern = std::get_if<MatchPattern>(&split.what)) {
    match_regex(piece, pattern->regex, &pieces);
  } else {
    const auto& classes = UnicodeClasses::get();
    const bool numbers = std::holds_alternative<MatchNumbers>(split.what);
    match_characters(
        piece,
        [&](char32_t c) {
          return numbers ? (classes.of(c) & kNumber) != 0
                         : is_ascii_punctuation(c) || (classes.of(c) & kPunctuation) != 0;
        },
        &pieces);
  }
  if (split.invert) {
    for (Piece& part : pieces) part.matched = !part.matched;
  }
  for (const Piece& part : merge_pieces(std::move(pieces), split.behavior)) {
    if (part.begin != part.end) out->push_back(piece.substr(part.begin, part.end - part.begin));
  }
}

std::vector<std::string_view> PreTokenizer::split(std::string_view text,
                                                  std::deque<std::string>* storage) const {
  std::vector<std::string_view> pieces;
  if (!text.empty()) pieces.push_back(text);
  const auto run = [&pieces](const Split& split) {
    std::vector<std::string_view> next;
    for (const std::string_view piece : pieces) apply(split, piece, &next);
    pieces = std::move(next);
  };
  for (const Split& split : splits_) run(split);
  if (add_prefix_space_) {
    for (std::string_view& piece : pieces) {
      if (!piece.starts_with(' ')) piece = storage->emplace_back(" " + std::string(piece));
    }
  }
  for (const Split& split : byte_level_regex_) run(split);
  return pieces;
}

}  // namespace fathom::text
