#include "weights/shard_index.h"

#include <algorithm>

#include "weights/json_file.h"

namespace fathom::weights {
namespace {

bool is_plain_file_name(std::string_view name) {
  // Control characters would also reach the terminal, in a message that names the shard.
  const auto stays_here = [](char c) {
    return c != '/' && c != '\\' && static_cast<unsigned char>(c) >= ' ' && c != '\x7f';
  };
  return !name.empty() && name.front() != '.' && std::all_of(name.begin(), name.end(), stays_here);
}

// As JSON in ASCII, so that it can be cut and printed whatever it holds.
std::string shown(const nlohmann::json& value) {
  return value.dump(-1, ' ', true).substr(0, 200);
}

}  // namespace

Result<ShardIndex> parse_shard_index(std::string_view text, const std::string& file) {
  FATHOM_ASSIGN(const nlohmann::json index, parse_json(text, file));
  const auto found = index.is_object() ? index.find("weight_map") : index.end();
  if (found == index.end() || !found->is_object()) {
    return error(ErrorCode::kInvalidArgument, "{}: expected an object 'weight_map'", file);
  }
  ShardIndex shards;
  for (const auto& [name, shard] : found->items()) {
    if (!shard.is_string() || !is_plain_file_name(shard.get_ref<const std::string&>())) {
      return error(ErrorCode::kInvalidArgument,
                   "{}: the shard of {} must be the name of a file in the same folder, got {}", file,
                   shown(name), shown(shard));
    }
    shards.emplace(name, shard.get<std::string>());
  }
  return shards;
}

}  // namespace fathom::weights
