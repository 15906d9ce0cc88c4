#include "engine/gpu.h"

#include "device/cuda/probe.h"
#include "engine/cuda/gpu_engine.h"
#include "engine/cuda/gpu_nodes.h"
#include "engine/cuda/gpu_verify.h"

namespace fathom::engine {

bool gpu_available() {
  return gpu_count() > 0;
}

int gpu_count() {
  return device::cuda::gpu_count();
}

bool gpu_multiplies_fp8(int gpu) {
  if (gpu >= gpu_count()) return false;
  const auto opened = device::cuda::open_gpu(gpu);
  return opened.ok() && opened->hopper();
}

namespace {

Result<void> need_gpus(const EngineOptions& options) {
  const int count = gpu_count();
  const int world = options.gpus();
  if (count > 0 && options.first_gpu + world <= count) return {};
  if (count > 0) {
    return error(
        ErrorCode::kUnavailable,
        "{} ranks{}: this machine has {} GPU(s) that Fathom runs on; use fewer ranks (--tp, --pp-size), or "
        "--device cpu",
        world, options.first_gpu > 0 ? fmt::format(" --base-gpu-id {}", options.first_gpu) : "", count);
  }
  return error(ErrorCode::kUnavailable,
               "--device cuda: this machine has no NVIDIA GPU that Fathom runs on (compute capability 8.0 or "
               "later, and its driver): "
               "use --device cpu");
}

}  // namespace

Result<GpuMemory> gpu_memory(const EngineOptions& options) {
  FATHOM_TRY(need_gpus(options));
  FATHOM_ASSIGN(const auto gpu, device::cuda::open_gpu(options.first_gpu));
  FATHOM_ASSIGN(const auto memory, device::cuda::memory_info());
  GpuMemory result;
  result.name = gpu.name;
  result.free_bytes = memory.free;
  result.workspace_bytes = model::cuda::working_bytes(options.config, cuda::load_options(options), gpu);
  return result;
}

Result<std::vector<std::unique_ptr<Engine>>> start_gpu_engines(const EngineOptions& options) {
  FATHOM_TRY(need_gpus(options));
  return cuda::GpuEngine::start(options);
}

Result<std::unique_ptr<Node>> start_gpu_node(const EngineOptions& options) {
  FATHOM_TRY(need_gpus(options));
  return cuda::GpuNode::start(options);
}

Result<std::unique_ptr<VerifyModel>> make_gpu_verify_model(const EngineOptions& options, int64_t places) {
  FATHOM_TRY(need_gpus(options));
  return cuda::GpuVerifyModel::make(options, places);
}

namespace {

class GpuCeilings final : public Ceilings {
 public:
  GpuCeilings(std::unique_ptr<device::cuda::Stream> stream, device::cuda::Probe probe, bool bf16)
      : stream_(std::move(stream)), probe_(std::move(probe)), bf16_(bf16) {}

  double read_bandwidth() override { return probe_.read_bandwidth(*stream_); }
  double compute_peak() override { return bf16_ ? probe_.bf16_peak(*stream_) : probe_.f32_peak(*stream_); }

 private:
  std::unique_ptr<device::cuda::Stream> stream_;
  device::cuda::Probe probe_;
  bool bf16_;
};

}  // namespace

Result<std::unique_ptr<Ceilings>> make_gpu_ceilings(int index, bool bf16) {
  FATHOM_TRY(need_gpus({}));
  FATHOM_ASSIGN(const auto gpu, device::cuda::open_gpu(index));
  FATHOM_ASSIGN(auto stream, device::cuda::Stream::create(gpu));
  FATHOM_ASSIGN(auto probe, device::cuda::Probe::create());
  return std::unique_ptr<Ceilings>(std::make_unique<GpuCeilings>(std::move(stream), std::move(probe), bf16));
}

}  // namespace fathom::engine
