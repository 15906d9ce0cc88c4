// What the engine asks of the CUDA backend, whether this build has it (cuda/) or not (cuda_absent.cc).
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "engine/ceilings.h"
#include "engine/engine.h"
#include "engine/node.h"
#include "engine/verify_sequence.h"

namespace fathom::engine {

// Whether --device auto means the GPU: this build has the backend, and the machine a GPU for it.
bool gpu_available();
int gpu_count();
// Whether this GPU's tensor cores multiply FP8 by our kernels (Hopper).
bool gpu_multiplies_fp8(int gpu);

// What the GPU has, and what a model with these options takes of it beside weights and cache.
struct GpuMemory {
  std::string name;  // "NVIDIA H100 80GB HBM3"
  int64_t free_bytes = 0;
  int64_t workspace_bytes = 0;
};
Result<GpuMemory> gpu_memory(const EngineOptions& options);

// One for each group of requests (Split::dp).
Result<std::vector<std::unique_ptr<Engine>>> start_gpu_engines(const EngineOptions& options);
// On another node than 0.
Result<std::unique_ptr<Node>> start_gpu_node(const EngineOptions& options);
Result<std::unique_ptr<VerifyModel>> make_gpu_verify_model(const EngineOptions& options, int64_t places);

Result<std::unique_ptr<Ceilings>> make_gpu_ceilings(int gpu, bool bf16);

}  // namespace fathom::engine
