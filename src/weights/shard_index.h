// The index of a checkpoint in several files (model.safetensors.index.json): which tensor is in which shard.
#pragma once

#include <map>
#include <string>
#include <string_view>

#include "base/result.h"

namespace fathom::weights {

// name of tensor -> name of shard
using ShardIndex = std::map<std::string, std::string>;

// Takes any text. kInvalidArgument, with `file` and a reason in printable ASCII, for what is no index, and
// for a shard that is not the name of a file in the index's own folder: an index comes from outside and may
// not point elsewhere.
Result<ShardIndex> parse_shard_index(std::string_view text, const std::string& file);

}  // namespace fathom::weights
