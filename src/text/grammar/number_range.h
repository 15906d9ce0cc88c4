// Numbers between two bounds, as fragments.
#pragma once

#include <optional>

#include "text/grammar/grammar_builder.h"

namespace fathom::text {

// A decimal number: value / 10^decimals.
struct Decimal {
  __extension__ typedef __int128 Wide;
  Wide value = 0;
  int decimals = 0;
};

inline constexpr int kMaxDecimals = 14;

struct NumberRange {
  std::optional<Decimal> low, high;  // inclusive
};

// Integers, or numbers without exponent, in the range; nothing else. A range that holds none gives a fragment
// that nothing matches. |bounds| must be below 10^20.
Fragment integers_in(GrammarBuilder& builder, const NumberRange& range);
Fragment numbers_in(GrammarBuilder& builder, const NumberRange& range);

}  // namespace fathom::text
