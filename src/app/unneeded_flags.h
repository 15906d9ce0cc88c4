// Flags of the reference system that ask for what is so anyway, or for a choice among things of which there
// is one here: they are taken, each with a line in the log that says why it is not needed.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace fathom::app {

// Takes such flags, with their values, out of `words` (what follows the command's name), but for those among
// `known`, which the command obeys itself. Returns a line on each.
std::vector<std::string> take_unneeded_flags(std::vector<std::string>& words,
                                             const std::vector<std::string>& known);

// What such a flag would be taken with: "no value", "a value". Nothing where it is not one.
std::optional<std::string> form_of_unneeded_flag(const std::string& flag);

}  // namespace fathom::app
