#include "text/tokenizer/pre_tokenizer.h"

#include <algorithm>

#include "text/tokenizer/json_field.h"

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

}  // namespace

Result<PreTokenizer> PreTokenizer::parse_as_regex(const nlohmann::json& json) {
  return parse_with(json, true);
}

Result<PreTokenizer> PreTokenizer::parse(const nlohmann::json& json) {
  return parse_with(json, false);
}

Result<PreTokenizer> PreTokenizer::parse_with(const nlohmann::json& json, bool regex_only) {
  PreTokenizer result(regex_only);
  FATHOM_TRY(result.add(json, 0));
  if (!result.byte_level_) {
    return error(ErrorCode::kUnsupported,
                 "the pre-tokenizer has no ByteLevel: only byte-level BPE is supported");
  }
  result.deepseek_ = !regex_only && result.is_deepseek();
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
    const auto behavior = individual ? SplitBehavior::kIsolated : SplitBehavior::kContiguous;
    splits_.push_back({ClassPattern::number(), "", behavior, false});
    return {};
  }
  if (type == "Punctuation") {
    SplitBehavior behavior = SplitBehavior::kIsolated;
    if (!json_field(json, "behavior").is_null()) {
      FATHOM_ASSIGN(behavior, parse_behavior(json));
    }
    splits_.push_back({ClassPattern::punctuation(), "", behavior, false});
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
    auto simple = regex_only_ ? std::nullopt : ClassPattern::parse(source);
    if (!regex_only_ && source == SpaceAtLineEnd::kRegex) {
      splits_.push_back({SpaceAtLineEnd(), std::move(source), behavior, invert});
    } else if (simple) {
      splits_.push_back({*std::move(simple), std::move(source), behavior, invert});
    } else {
      splits_.push_back({std::move(regex), std::move(source), behavior, invert});
    }
    return {};
  }
  FATHOM_ASSIGN(const std::string literal, json_string(pattern, "String"));
  FATHOM_ASSIGN(Regex regex, Regex::compile_literal(literal));
  splits_.push_back({std::move(regex), "", behavior, invert});
  return {};
}

Result<void> PreTokenizer::add_byte_level(const nlohmann::json& json) {
  FATHOM_ASSIGN(add_prefix_space_, json_bool(json, "add_prefix_space", true));
  FATHOM_ASSIGN(const bool use_regex, json_bool(json, "use_regex", true));
  byte_level_ = true;
  if (use_regex) {
    FATHOM_ASSIGN(Regex regex, Regex::compile(kByteLevelPattern));
    byte_level_regex_.push_back({std::move(regex), "", SplitBehavior::kIsolated, false});
  }
  return {};
}

bool PreTokenizer::is_deepseek() const {
  const auto& expected = DeepseekScanner::patterns();
  if (splits_.size() != expected.size() || !byte_level_regex_.empty() || add_prefix_space_) return false;
  for (size_t i = 0; i < splits_.size(); ++i) {
    if (splits_[i].invert || splits_[i].behavior != SplitBehavior::kIsolated ||
        with_escaped_line_breaks(splits_[i].source) != expected[i]) {
      return false;
    }
  }
  return true;
}

void PreTokenizer::apply(const Split& split, std::string_view piece, std::vector<std::string_view>* out) {
  const auto put = [&](size_t begin, size_t end) {
    if (begin != end) out->push_back(piece.substr(begin, end - begin));
  };
  const auto for_each_match = [&](auto&& match) {
    std::visit([&](const auto& pattern) { pattern.for_each_match(piece, match); }, split.pattern);
  };
  size_t done = 0;
  if (split.behavior == SplitBehavior::kIsolated) {
    for_each_match([&](size_t begin, size_t end) {
      put(done, begin);
      put(begin, end);
      done = end;
    });
    put(done, piece.size());
    return;
  }
  std::vector<Piece> pieces;
  for_each_match([&](size_t begin, size_t end) {
    if (done != begin) pieces.push_back({done, begin, split.invert});
    pieces.push_back({begin, end, !split.invert});
    done = end;
  });
  if (done != piece.size()) pieces.push_back({done, piece.size(), split.invert});
  for (const Piece& part : merge_pieces(std::move(pieces), split.behavior)) put(part.begin, part.end);
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
