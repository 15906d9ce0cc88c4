// `fathom verify` on the GPU.
#pragma once

#include <memory>

#include "engine/engine.h"
#include "engine/verify_sequence.h"

namespace fathom::engine::cuda {

class GpuVerifyModel {
 public:
  static Result<std::unique_ptr<VerifyModel>> make(const EngineOptions& options, int64_t places);
};

}  // namespace fathom::engine::cuda
