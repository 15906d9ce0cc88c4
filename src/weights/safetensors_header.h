// The JSON header of a safetensors file, as written: nothing but its form is checked here.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"

namespace fathom::weights {

struct HeaderEntry {
  std::string name;
  std::string dtype;
  std::vector<uint64_t> shape;
  uint64_t begin = 0, end = 0;  // bytes, counted from the end of the header
};

// Entries in the order of the text, duplicates included; "__metadata__" is skipped. Streams through the text:
// memory grows with the number of tensors, not with the nesting of a hostile header.
Result<std::vector<HeaderEntry>> parse_header(std::string_view json);

}  // namespace fathom::weights
