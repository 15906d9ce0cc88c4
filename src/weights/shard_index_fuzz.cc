// Any bytes are refused in words that can be printed, or give names of files that stay in the index's folder.
#include <algorithm>
#include <cstdint>
#include <filesystem>

#include "base/check.h"
#include "weights/shard_index.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto shards =
      fathom::weights::parse_shard_index({reinterpret_cast<const char*>(data), size}, "index");
  if (!shards.ok()) {
    const std::string& message = shards.error().message;
    FATHOM_CHECK(std::all_of(message.begin(), message.end(), [](char c) { return c >= ' ' && c <= '~'; }),
                 "{}", message);
    return 0;
  }
  const std::filesystem::path folder("/folder");
  for (const auto& [name, shard] : *shards) {
    const auto path = (folder / shard).lexically_normal();
    FATHOM_CHECK(path.parent_path() == folder && path.filename() == shard, "{}", shard);
    FATHOM_CHECK(path == path.c_str(), "a name that ends within: {}", shard);
  }
  return 0;
}
