#include "text/tokenizer/regex.h"

#include <oniguruma.h>

#include <mutex>

#include "text/tokenizer/utf8.h"

namespace fathom::text {
namespace {

const OnigUChar* bytes(const char* p) {
  return reinterpret_cast<const OnigUChar*>(p);
}

struct FreeRegion {
  void operator()(OnigRegion* region) const { onig_region_free(region, 1); }
};

void initialize_engine() {
  static std::once_flag once;
  std::call_once(once, [] {
    OnigEncoding encodings[] = {ONIG_ENCODING_UTF8};
    onig_initialize(encodings, 1);
  });
}

}  // namespace

void Regex::Free::operator()(re_pattern_buffer* regex) const {
  onig_free(regex);
}

Result<Regex> Regex::compile(std::string_view pattern) {
  initialize_engine();
  if (!is_valid_utf8(pattern)) return error(ErrorCode::kInvalidArgument, "a regex is not valid UTF-8");
  OnigRegex regex = nullptr;
  OnigErrorInfo info;
  const int code = onig_new(&regex, bytes(pattern.data()), bytes(pattern.data() + pattern.size()),
                            ONIG_OPTION_NONE, ONIG_ENCODING_UTF8, ONIG_SYNTAX_DEFAULT, &info);
  if (code != ONIG_NORMAL) {
    OnigUChar reason[ONIG_MAX_ERROR_MESSAGE_LEN];
    const int length = onig_error_code_to_str(reason, code, &info);
    return error(ErrorCode::kInvalidArgument, "the regex '{}' does not compile: {}", pattern,
                 std::string_view(reinterpret_cast<const char*>(reason), static_cast<size_t>(length)));
  }
  return Regex(regex);
}

Result<Regex> Regex::compile_literal(std::string_view literal) {
  std::string pattern;
  for (const char c : literal) {
    if (std::string_view("\\.+*?()|[]{}^$#&-~ ").find(c) != std::string_view::npos) pattern += '\\';
    pattern += c;
  }
  return compile(pattern);
}

void Regex::for_each_match(std::string_view text, const std::function<void(size_t, size_t)>& match) const {
  const std::unique_ptr<OnigRegion, FreeRegion> region(onig_region_new());
  const OnigUChar* begin = bytes(text.data());
  const OnigUChar* end = begin + text.size();
  constexpr size_t kNone = static_cast<size_t>(-1);
  size_t from = 0;
  size_t last_match_end = kNone;
  while (from <= text.size()) {
    onig_region_clear(region.get());
    const auto found =
        onig_search(regex_.get(), begin, end, begin + from, end, region.get(), ONIG_OPTION_NONE);
    if (found < 0) return;
    const auto match_begin = static_cast<size_t>(region->beg[0]);
    const auto match_end = static_cast<size_t>(region->end[0]);
    if (match_begin == match_end && match_end == last_match_end) {
      from += from < text.size() ? utf8_length(text[from]) : 1;
      continue;
    }
    from = match_end;
    last_match_end = match_end;
    match(match_begin, match_end);
  }
}

}  // namespace fathom::text
