// Small text files of a checkpoint (config.json, the index of shards), read with limits.
#pragma once

#include <cstddef>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fathom::weights {

// The whole file. kNotFound when there is none; kInvalidArgument when it is no regular file or above
// `max_bytes`.
Result<std::string> read_text_file(const std::string& path, size_t max_bytes);

// JSON nested at most `max_depth` deep. kInvalidArgument names `file` and the byte where it stops being JSON.
Result<nlohmann::json> parse_json(std::string_view text, const std::string& file, int max_depth = 32);

}  // namespace fathom::weights
