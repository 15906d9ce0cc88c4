#include "weights/checkpoint.h"

#include <fmt/ranges.h>

#include <filesystem>
#include <set>
#include <utility>

#include "weights/json_file.h"
#include "weights/shard_index.h"

namespace fathom::weights {

namespace {

constexpr size_t kMaxIndexBytes = size_t{64} << 20;
constexpr char kIndexName[] = "model.safetensors.index.json";
constexpr char kSingleName[] = "model.safetensors";

Result<ShardIndex> read_index(const std::string& path) {
  FATHOM_ASSIGN(const std::string text, read_text_file(path, kMaxIndexBytes));
  return parse_shard_index(text, path);
}

}  // namespace

Result<Checkpoint> Checkpoint::open(const std::string& model_dir) {
  const std::filesystem::path dir(model_dir);
  std::error_code code;
  if (!std::filesystem::is_directory(dir, code)) {
    return error(ErrorCode::kNotFound, "{}: no such folder", model_dir);
  }
  Checkpoint checkpoint;
  ShardIndex shard_of;  // empty for a single file
  std::vector<std::string> names;
  if (std::filesystem::exists(dir / kSingleName, code)) {
    names.emplace_back(kSingleName);
  } else if (std::filesystem::exists(dir / kIndexName, code)) {
    FATHOM_ASSIGN(shard_of, read_index((dir / kIndexName).string()));
    std::set<std::string> shards;
    for (const auto& [name, shard] : shard_of) shards.insert(shard);
    std::vector<std::string> missing;
    for (const auto& shard : shards) {
      if (!std::filesystem::exists(dir / shard, code)) missing.push_back(shard);
    }
    if (!missing.empty()) {
      return error(ErrorCode::kNotFound, "{}: {} of {} shards are missing: {}", model_dir, missing.size(),
                   shards.size(), fmt::join(missing, ", "));
    }
    names.assign(shards.begin(), shards.end());
  } else {
    return error(ErrorCode::kNotFound, "{}: neither {} nor {} is there", model_dir, kSingleName, kIndexName);
  }

  checkpoint.files_.reserve(names.size());
  for (const auto& name : names) {
    FATHOM_ASSIGN(auto file, SafetensorsFile::open((dir / name).string()));
    checkpoint.files_.push_back(std::move(file));
    for (const auto& tensor : checkpoint.files_.back().tensors()) {
      const auto owner = shard_of.find(tensor.name);
      if (owner != shard_of.end() && owner->second != name) continue;
      if (!checkpoint.tensors_.emplace(tensor.name, &tensor).second) {
        return error(ErrorCode::kDataLoss, "{}: tensor '{}' is in several shards and in none of the index",
                     model_dir, tensor.name);
      }
      checkpoint.bytes_ += static_cast<int64_t>(tensor.bytes);
    }
  }
  for (const auto& [name, shard] : shard_of) {
    if (checkpoint.find(name) == nullptr) {
      return error(ErrorCode::kDataLoss, "{}: the index promises tensor '{}' in {}, which lacks it",
                   model_dir, name, shard);
    }
  }
  return checkpoint;
}

const TensorView* Checkpoint::find(std::string_view name) const {
  const auto found = tensors_.find(name);
  return found == tensors_.end() ? nullptr : found->second;
}

Result<void> Checkpoint::intact() const {
  for (const auto& file : files_) FATHOM_TRY(file.intact());
  return {};
}

}  // namespace fathom::weights
