// A model's weights on disk: one model.safetensors, or shards named by model.safetensors.index.json. Tensors
// are found by name; nothing is copied.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "base/result.h"
#include "weights/safetensors.h"

namespace fathom::weights {

// Movable; views die with it. Thread safe once open.
class Checkpoint {
 public:
  // kNotFound when the folder has no weights or the index names shards that are not there (all are listed);
  // kInvalidArgument for a malformed index or a shard outside the folder; kDataLoss for a broken file, or a
  // tensor that its index promised and its shard lacks.
  static Result<Checkpoint> open(const std::string& model_dir);

  // Null when there is none of that name. Valid as long as the checkpoint.
  const TensorView* find(std::string_view name) const;
  const std::map<std::string, const TensorView*, std::less<>>& tensors() const { return tensors_; }
  int64_t bytes() const { return bytes_; }  // of all tensors
  const std::vector<SafetensorsFile>& files() const { return files_; }
  // To be asked after tensors were read: kDataLoss when a file shrank meanwhile.
  Result<void> intact() const;

 private:
  std::vector<SafetensorsFile> files_;
  std::map<std::string, const TensorView*, std::less<>> tensors_;
  int64_t bytes_ = 0;
};

}  // namespace fathom::weights
