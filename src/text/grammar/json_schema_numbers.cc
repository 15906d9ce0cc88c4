// json_schema.h: numbers and their bounds.
#include <algorithm>
#include <string>

#include "text/grammar/json_schema.h"
#include "text/grammar/json_schema_words.h"
#include "text/grammar/number_range.h"

namespace fathom::text {
namespace {

using Json = nlohmann::ordered_json;

// A bound as its digits say it, rounded inwards (up for lower bounds) where it has too many decimals.
struct Bound {
  Decimal at;
  bool exact = true;
  bool beyond = false;  // further from zero than numbers are written
  bool negative = false;
};
Bound to_bound(const Json& value, bool up) {
  std::string text = value.dump();
  int exponent = 0;
  if (const size_t e = text.find('e'); e != std::string::npos) {
    exponent = std::stoi(text.substr(e + 1));
    text.resize(e);
  }
  Bound bound;
  bound.negative = text[0] == '-';
  std::string digits;
  for (const char c : text) {
    if (c >= '0' && c <= '9') digits += c;
  }
  const size_t point = text.find('.');
  int decimals = (point == std::string::npos ? 0 : static_cast<int>(text.size() - point - 1)) - exponent;
  digits.erase(0, std::min(digits.find_first_not_of('0'), digits.size()));
  if (digits.empty()) return bound;
  if (static_cast<int>(digits.size()) - decimals > JsonRules::kMaxDigits) {
    bound.beyond = true;
    return bound;
  }
  for (; decimals < 0; ++decimals) digits += '0';
  for (; decimals > kMaxDecimals - 2; --decimals) {
    if (!digits.empty()) {
      bound.exact = bound.exact && digits.back() == '0';
      digits.pop_back();
    }
  }
  for (const char c : digits) bound.at.value = bound.at.value * 10 + (c - '0');
  bound.at.decimals = decimals;
  if (bound.negative) bound.at.value = -bound.at.value;
  if (!bound.exact && bound.negative != up) bound.at.value += up ? 1 : -1;
  while (bound.at.decimals > 0 && bound.at.value % 10 == 0) {
    bound.at.value /= 10;
    --bound.at.decimals;
  }
  return bound;
}

// A little above (or, with -1, below) the bound: by a step that a double still tells apart, in case the
// reader has doubles.
Decimal beside(Decimal bound, int direction, bool integer) {
  if (integer && bound.decimals > 0) return bound;  // no integer itself
  constexpr int kDoubleDigits = 15;
  int digits = 0;
  for (Decimal::Wide rest = bound.value; rest != 0; rest /= 10) ++digits;
  Decimal::Wide step = 1;
  if (!integer) {
    const int more = std::min(2, std::max(0, kDoubleDigits - digits));
    for (int i = 0; i < more; ++i) bound.value *= 10;
    bound.decimals += more;
    for (int i = digits; i > kDoubleDigits; --i) step *= 10;
  }
  bound.value += direction * step;
  return bound;
}

bool less(const Decimal& a, const Decimal& b) {
  Decimal::Wide left = a.value;
  Decimal::Wide right = b.value;
  for (int i = a.decimals; i < b.decimals; ++i) left *= 10;
  for (int i = b.decimals; i < a.decimals; ++i) right *= 10;
  return left < right;
}

}  // namespace

Fragment JsonSchema::number(const Json& schema, bool integer, const std::string& path) {
  NumberRange range;
  bool bounded = false;
  for (const auto& [keyword, low, exclusive] :
       {std::tuple{"minimum", true, false}, std::tuple{"exclusiveMinimum", true, true},
        std::tuple{"maximum", false, false}, std::tuple{"exclusiveMaximum", false, true}}) {
    const Json* value = get(schema, keyword);
    if (value == nullptr) continue;
    if (!value->is_number())
      return fail(ErrorCode::kInvalidArgument, path + "/" + keyword,
                  fmt::format("got {}, expected a number", value->dump()));
    const Bound bound = to_bound(*value, low);
    bounded = true;
    if (bound.beyond && (bound.negative == low || best_effort_)) continue;  // no number is as long
    if (bound.beyond)
      return fail(ErrorCode::kUnsupported, path + "/" + keyword,
                  fmt::format("got {}, but numbers are written with at most {} digits", value->dump(),
                              JsonRules::kMaxDigits));
    const Decimal inclusive = exclusive && bound.exact ? beside(bound.at, low ? 1 : -1, integer) : bound.at;
    std::optional<Decimal>& side = low ? range.low : range.high;
    if (!side || (low ? less(*side, inclusive) : less(inclusive, *side))) side = inclusive;
  }
  if (!bounded) return integer ? rules_.integer() : rules_.number();
  return integer ? integers_in(builder_, range) : numbers_in(builder_, range);
}

}  // namespace fathom::text
