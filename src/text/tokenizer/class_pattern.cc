#include "text/tokenizer/class_pattern.h"

#include <algorithm>
#include <array>
#include <charconv>
#include <limits>

namespace fathom::text {
namespace {

bool take(std::string_view* rest, std::string_view prefix) {
  if (!rest->starts_with(prefix)) return false;
  rest->remove_prefix(prefix.size());
  return true;
}

std::optional<CharClass> take_class_escape(std::string_view* rest) {
  constexpr std::pair<std::string_view, CharClass> kEscapes[] = {
      {R"(\p{L})", kLetter},      {R"(\p{M})", kMark},   {R"(\p{N})", kNumber},
      {R"(\p{P})", kPunctuation}, {R"(\p{S})", kSymbol}, {R"(\s)", kSpace}};
  for (const auto& [escape, classes] : kEscapes) {
    if (take(rest, escape)) return classes;
  }
  return std::nullopt;
}

// One character, plain or escaped; nothing where it could mean something else inside brackets.
std::optional<char32_t> take_character(std::string_view* rest) {
  if (rest->empty()) return std::nullopt;
  if (take(rest, "\\r")) return U'\r';
  if (take(rest, "\\n")) return U'\n';
  const bool escaped = take(rest, "\\");
  constexpr std::string_view kSyntax = R"([]\-^&)";
  if (rest->empty() || (kSyntax.find(rest->front()) != std::string_view::npos) != escaped)
    return std::nullopt;
  const size_t length = utf8_length(rest->front());
  const char32_t c = decode_utf8(rest->data(), length);
  rest->remove_prefix(length);
  return c;
}

}  // namespace

std::optional<ClassPattern> ClassPattern::parse(std::string_view regex) {
  if (!is_valid_utf8(regex)) return std::nullopt;
  ClassPattern pattern;
  std::string_view rest = regex;
  pattern.optional_space_ = take(&rest, R"(\s?)");
  if (!pattern.parse_class(&rest)) return std::nullopt;
  if (take(&rest, "+")) {
    pattern.most_ = std::numeric_limits<uint32_t>::max();
  } else if (take(&rest, "{1,")) {
    const auto [end, failed] = std::from_chars(rest.data(), rest.data() + rest.size(), pattern.most_);
    rest.remove_prefix(static_cast<size_t>(end - rest.data()));
    if (failed != std::errc() || pattern.most_ == 0 || !take(&rest, "}")) return std::nullopt;
  }
  if (!rest.empty()) return std::nullopt;
  return pattern;
}

bool ClassPattern::parse_class(std::string_view* rest) {
  if (const auto classes = take_class_escape(rest)) {
    add_classes(*classes);
    return true;
  }
  if (!take(rest, "[")) return false;
  do {
    if (const auto classes = take_class_escape(rest)) {
      add_classes(*classes);
      continue;
    }
    const auto first = take_character(rest);
    if (!first) return false;
    auto last = first;
    if (take(rest, "-")) last = take_character(rest);
    if (!last || *last < *first) return false;
    add(*first, *last);
  } while (!take(rest, "]"));
  return true;
}

void ClassPattern::add(char32_t first, char32_t last) {
  std::fill(members_.begin() + first, members_.begin() + last + 1, true);
}

void ClassPattern::add_classes(CharClass classes) {
  constexpr std::array<CharClass, 256> kUnassigned{};
  for (size_t index = 0; index < UnicodeClasses::kBlocks; ++index) {
    const auto& block = UnicodeClasses::get().block(index);
    if (block == kUnassigned) continue;
    for (size_t i = 0; i < block.size(); ++i) {
      if (block[i] & classes) members_[index * block.size() + i] = true;
    }
  }
}

ClassPattern ClassPattern::number() {
  ClassPattern pattern;
  pattern.add_classes(kNumber);
  return pattern;
}

ClassPattern ClassPattern::punctuation() {
  ClassPattern pattern;
  pattern.add_classes(kPunctuation);
  for (const auto& [first, last] : {std::pair(U'!', U'/'), {U':', U'@'}, {U'[', U'`'}, {U'{', U'~'}}) {
    pattern.add(first, last);
  }
  return pattern;
}

}  // namespace fathom::text
