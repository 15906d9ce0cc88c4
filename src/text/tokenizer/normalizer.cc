#include "text/tokenizer/normalizer.h"

#include <utf8proc.h>

#include <cstdlib>
#include <memory>

#include "text/tokenizer/json_field.h"

namespace fathom::text {
namespace {

constexpr int kMaxDepth = 16;

std::string to_unicode_form(std::string_view text, bool compose, bool compatibility) {
  int options = UTF8PROC_STABLE | (compose ? UTF8PROC_COMPOSE : UTF8PROC_DECOMPOSE);
  if (compatibility) options |= UTF8PROC_COMPAT;
  utf8proc_uint8_t* out = nullptr;
  const auto length =
      utf8proc_map(reinterpret_cast<const utf8proc_uint8_t*>(text.data()),
                   static_cast<utf8proc_ssize_t>(text.size()), &out, static_cast<utf8proc_option_t>(options));
  const std::unique_ptr<utf8proc_uint8_t, decltype(&std::free)> owner(out, &std::free);
  FATHOM_CHECK(length >= 0, "{}", utf8proc_errmsg(length));
  return std::string(reinterpret_cast<const char*>(out), static_cast<size_t>(length));
}

}  // namespace

Result<Normalizer> Normalizer::parse(const nlohmann::json& json) {
  Normalizer result;
  if (!json.is_null()) FATHOM_TRY(result.add(json, 0));
  return result;
}

Result<void> Normalizer::add(const nlohmann::json& json, int depth) {
  FATHOM_ASSIGN(const std::string type, json_string(json, "type"));
  if (type == "Sequence") {
    const auto& members = json_field(json, "normalizers");
    if (!members.is_array() || depth == kMaxDepth) {
      return error(ErrorCode::kInvalidArgument, "'normalizers' must be an array, nested at most {} deep",
                   kMaxDepth);
    }
    for (const auto& member : members) FATHOM_TRY(add(member, depth + 1));
    return {};
  }
  if (type == "NFC" || type == "NFD" || type == "NFKC" || type == "NFKD") {
    steps_.push_back(UnicodeForm{type.back() == 'C', type.size() == 4});
    return {};
  }
  if (type == "Prepend") {
    FATHOM_ASSIGN(std::string prefix, json_string(json, "prepend"));
    steps_.push_back(Prepend{std::move(prefix)});
    return {};
  }
  if (type == "Replace") {
    const auto& pattern = json_field(json, "pattern");
    const bool is_regex = json_field(pattern, "Regex").is_string();
    FATHOM_ASSIGN(const std::string source, json_string(pattern, is_regex ? "Regex" : "String"));
    FATHOM_ASSIGN(Regex regex, is_regex ? Regex::compile(source) : Regex::compile_literal(source));
    FATHOM_ASSIGN(std::string content, json_string(json, "content"));
    steps_.push_back(Replace{std::move(regex), std::move(content)});
    return {};
  }
  return error(ErrorCode::kUnsupported, "normalizer '{}' is not supported", type);
}

std::string Normalizer::apply(std::string_view text) const {
  std::string out(text);
  for (const auto& step : steps_) {
    if (const auto* form = std::get_if<UnicodeForm>(&step)) {
      out = to_unicode_form(out, form->compose, form->compatibility);
    } else if (const auto* prepend = std::get_if<Prepend>(&step)) {
      if (!out.empty()) out.insert(0, prepend->prefix);
    } else {
      const auto& replace = std::get<Replace>(step);
      std::string replaced;
      size_t copied = 0;
      replace.pattern.for_each_match(out, [&](size_t begin, size_t end) {
        replaced.append(out, copied, begin - copied).append(replace.content);
        copied = end;
      });
      out = replaced.append(out, copied);
    }
  }
  return out;
}

}  // namespace fathom::text
