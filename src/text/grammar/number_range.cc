#include "text/grammar/number_range.h"

#include <algorithm>
#include <string>

namespace fathom::text {
namespace {

using Wide = Decimal::Wide;

constexpr int kDigits = 20;  // of the largest numbers written where there is no bound

Wide power(int exponent) {
  Wide result = 1;
  for (int i = 0; i < exponent; ++i) result *= 10;
  return result;
}

// value * 10^decimals, rounded down or up.
Wide scaled(const Decimal& number, int decimals, bool up) {
  if (decimals >= number.decimals) return number.value * power(decimals - number.decimals);
  const Wide divisor = power(number.decimals - decimals);
  Wide quotient = number.value / divisor;
  const Wide rest = number.value % divisor;
  if (up && rest > 0) ++quotient;
  if (!up && rest < 0) --quotient;
  return quotient;
}

std::string digits_of(Wide value, size_t length) {
  std::string text;
  for (; value > 0; value /= 10) text += static_cast<char>('0' + static_cast<int>(value % 10));
  while (text.size() < length) text += '0';
  std::reverse(text.begin(), text.end());
  return text;
}

// Digit strings of one length between two others, with a point before the last `decimals` digits.
class DigitStrings {
 public:
  DigitStrings(GrammarBuilder& builder, std::string low, std::string high, size_t decimals)
      : builder_(builder), low_(std::move(low)), high_(std::move(high)), decimals_(decimals) {}
  Fragment make() { return from(0, true, true); }

 private:
  // The digits from `at` on; bound below and above where all before equal the bound's.
  Fragment from(size_t at, bool bound_low, bool bound_high) {
    if (at == low_.size()) return builder_.empty();
    // Bounds that any digits keep are none.
    bound_low = bound_low && low_.find_first_not_of('0', at) != std::string::npos;
    bound_high = bound_high && high_.find_first_not_of('9', at) != std::string::npos;
    std::vector<Fragment> parts;
    if (decimals_ > 0 && at == low_.size() - decimals_) parts.push_back(builder_.literal("."));
    const char low = bound_low ? low_[at] : '0';
    const char high = bound_high ? high_[at] : '9';
    std::vector<Fragment> options;
    const auto add = [&](char first, char last, bool still_low, bool still_high) {
      if (first > last) return;
      options.push_back(
          builder_.sequence({builder_.byte_range(static_cast<uint8_t>(first), static_cast<uint8_t>(last)),
                             from(at + 1, still_low, still_high)}));
    };
    if (bound_low && bound_high && low == high) {
      add(low, low, true, true);
    } else {
      char first = low;
      char last = high;
      if (bound_low) add(first, first, true, false), ++first;
      if (bound_high) add(last, last, false, true), --last;
      add(first, last, false, false);
    }
    parts.push_back(builder_.choice(std::move(options)));
    return builder_.sequence(std::move(parts));
  }

  GrammarBuilder& builder_;
  const std::string low_, high_;
  const size_t decimals_;
};

// Numbers in [low, high] / 10^decimals, 0 <= low, with exactly so many decimals; then `tail`.
template <class Tail>
void add_lengths(GrammarBuilder& builder, Wide low, Wide high, int decimals, Tail tail,
                 std::vector<Fragment>* out) {
  const auto shortest = static_cast<size_t>(decimals) + 1;
  for (size_t length = shortest; low <= high && length <= static_cast<size_t>(kDigits + kMaxDecimals);
       ++length) {
    // Longer ones do not begin with 0.
    const Wide from = length == shortest ? low : std::max(low, power(static_cast<int>(length) - 1));
    const Wide to = std::min(high, power(static_cast<int>(length)) - 1);
    if (from > to) continue;
    const Fragment digits =
        DigitStrings(builder, digits_of(from, length), digits_of(to, length), static_cast<size_t>(decimals))
            .make();
    out->push_back(builder.sequence({digits, tail()}));
  }
}

// The part of the range on one side of zero, as numbers without sign.
struct Side {
  Decimal low;                  // at least 0
  std::optional<Decimal> high;  // nothing: without end
};

Wide top(const Side& side, int decimals) {
  return side.high ? scaled(*side.high, decimals, false) : power(kDigits + decimals) - 1;
}

void add_integers(GrammarBuilder& builder, const Side& side, std::vector<Fragment>* out) {
  add_lengths(
      builder, scaled(side.low, 0, true), top(side, 0), 0, [&] { return builder.empty(); }, out);
}

void add_numbers(GrammarBuilder& builder, const Side& side, std::vector<Fragment>* out) {
  const int decimals = std::max(side.low.decimals, side.high ? side.high->decimals : 0);
  for (int d = 0; d <= decimals; ++d) {
    add_lengths(
        builder, scaled(side.low, d, true), top(side, d), d, [&] { return builder.empty(); }, out);
  }
  // More decimals than the bounds have stay below the next step.
  constexpr int kMore = 12;
  const auto more = [&] {
    const Fragment digits = builder.repeat([&] { return builder.byte_range('0', '9'); }, 1, kMore);
    return decimals == 0 ? builder.sequence({builder.literal("."), digits}) : digits;
  };
  const Wide high = top(side, decimals) - (side.high ? 1 : 0);
  add_lengths(builder, scaled(side.low, decimals, true), high, decimals, more, out);
}

template <class Add>
Fragment signed_numbers(GrammarBuilder& builder, const NumberRange& range, Add add) {
  const auto negative = [](Decimal number) {
    number.value = -number.value;
    return number;
  };
  std::vector<Fragment> options;
  if (!range.high || range.high->value >= 0) {
    Side side;
    if (range.low && range.low->value > 0) side.low = *range.low;
    side.high = range.high;
    add(side, &options);
  }
  if (!range.low || range.low->value < 0) {
    Side side;
    if (range.high && range.high->value < 0) side.low = negative(*range.high);
    if (range.low) side.high = negative(*range.low);
    std::vector<Fragment> below;
    add(side, &below);
    if (!below.empty())
      options.push_back(builder.sequence({builder.literal("-"), builder.choice(std::move(below))}));
  }
  return options.empty() ? builder.characters({}) : builder.choice(std::move(options));
}

}  // namespace

Fragment integers_in(GrammarBuilder& builder, const NumberRange& range) {
  return signed_numbers(builder, range, [&](const Side& side, std::vector<Fragment>* out) {
    add_integers(builder, side, out);
  });
}

Fragment numbers_in(GrammarBuilder& builder, const NumberRange& range) {
  return signed_numbers(
      builder, range, [&](const Side& side, std::vector<Fragment>* out) { add_numbers(builder, side, out); });
}

}  // namespace fathom::text
