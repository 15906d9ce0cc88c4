#include <algorithm>

#include "model/cuda/model.h"

namespace fathom::model::cuda {

std::vector<ExtendPass> plan_passes(const std::vector<ops::cuda::ExtendRow>& rows) {
  std::vector<ExtendPass> passes;
  // Stretch i of every row before stretch i + 1 of any: a row's passes are in order of place.
  for (int32_t begin = 0;; begin += static_cast<int32_t>(Model::kPassPlaces)) {
    bool any = false;
    ExtendPass pass;
    for (const auto& row : rows) {
      const int32_t end = row.start + row.count;
      if (begin >= end) continue;
      any = true;
      ops::cuda::ExtendRow part = row;
      part.key_begin = begin;
      part.key_end = std::min(begin + static_cast<int32_t>(Model::kPassPlaces), end);
      part.merge = begin > 0 ? 1 : 0;
      if (pass.keys + part.key_end - part.key_begin > Model::kPassPlaces) {
        passes.push_back(std::move(pass));
        pass = {};
      }
      part.key_row = static_cast<int32_t>(pass.keys);
      pass.keys += part.key_end - part.key_begin;
      pass.rows.push_back(part);
    }
    if (!any) return passes;
    passes.push_back(std::move(pass));
  }
}

}  // namespace fathom::model::cuda
