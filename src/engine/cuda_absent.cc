#include "engine/bench_ops.h"
#include "engine/gpu.h"

namespace fathom::engine {
namespace {

Error absent() {
  return error(
      ErrorCode::kUnsupported,
      "--device cuda: this build has no CUDA backend; build with nvcc installed, or use --device cpu");
}

}  // namespace

bool gpu_available() {
  return false;
}

bool gpu_multiplies_fp8(int) {
  return false;
}

int gpu_count() {
  return 0;
}

Result<GpuMemory> gpu_memory(const EngineOptions& /*options*/) {
  return absent();
}

Result<std::vector<std::unique_ptr<Engine>>> start_gpu_engines(const EngineOptions& /*options*/) {
  return absent();
}

Result<std::unique_ptr<Node>> start_gpu_node(const EngineOptions& /*options*/) {
  return absent();
}

Result<std::unique_ptr<VerifyModel>> make_gpu_verify_model(const EngineOptions& /*options*/,
                                                           int64_t /*places*/) {
  return absent();
}

Result<std::unique_ptr<Ceilings>> make_gpu_ceilings(int /*gpu*/, bool /*bf16*/) {
  return absent();
}

Result<void> bench_ops(const std::function<void(const OpCeilings&)>& /*begin*/,
                       const std::function<void(const OpFigure&)>& /*each*/) {
  return absent();
}

}  // namespace fathom::engine
