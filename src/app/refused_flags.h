// Flags of the reference system that this build does not have: why, and what to use instead. A flag is obeyed
// or refused, or asks for what is so anyway (unneeded_flags.h); none is ignored silently.
#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace fathom::app {

// The reason to refuse `flag` ("--tp-size", without a value), if it is one of the reference system's.
std::optional<std::string> refusal_of(std::string_view flag);

// The name among `known` nearest to `flag` by edits, if any is near enough to be meant.
std::optional<std::string> nearest_flag(std::string_view flag, const std::vector<std::string>& known);

}  // namespace fathom::app
