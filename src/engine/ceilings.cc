#include "engine/ceilings.h"

#include "device/cpu/probe.h"
#include "engine/gpu.h"

namespace fathom::engine {
namespace {

class CpuCeilings final : public Ceilings {
 public:
  CpuCeilings(device::BandwidthProbe probe, std::unique_ptr<ThreadPool> own, ThreadPool& pool,
              device::Isa isa, bool bf16)
      : probe_(std::move(probe)), own_(std::move(own)), pool_(pool), isa_(isa), bf16_(bf16) {}

  double read_bandwidth() override { return probe_.measure(pool_); }
  double compute_peak() override { return device::measure_compute_peak(pool_, isa_, bf16_); }

 private:
  device::BandwidthProbe probe_;
  std::unique_ptr<ThreadPool> own_;  // or none: the engine's are used
  ThreadPool& pool_;
  device::Isa isa_;
  bool bf16_;
};

}  // namespace

Result<std::unique_ptr<Ceilings>> make_ceilings(const EngineOptions& options, Engine& engine) {
  const bool bf16 = options.load.compute == ops::Compute::kBF16;
  if (options.cuda) return make_gpu_ceilings(options.first_gpu, bf16);
  // Ranks have threads of their own, which no step of the engine's lends.
  std::unique_ptr<ThreadPool> own;
  if (options.split.world() > 1) own = std::make_unique<ThreadPool>(options.threads, available_cpus());
  ThreadPool& pool = own != nullptr ? *own : engine.pool();
  FATHOM_ASSIGN(auto probe, device::BandwidthProbe::create(pool));
  return std::unique_ptr<Ceilings>(
      std::make_unique<CpuCeilings>(std::move(probe), std::move(own), pool, options.load.target.isa, bf16));
}

}  // namespace fathom::engine
