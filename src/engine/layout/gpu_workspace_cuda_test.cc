#include "engine/layout/gpu_workspace.h"

#include <gtest/gtest.h>

#include "engine/cuda/gpu_engine.h"
#include "engine/settings.h"

namespace fathom::engine {
namespace {

// Needs the CUDA backend, but no GPU: what a model takes is a function of the GPU's properties.
TEST(GpuWorkspace, IsReckonedAsItIsTaken) {
  device::cuda::Gpu h100;
  h100.major = 9;
  h100.multiprocessors = 132;
  h100.shared_bytes_per_block = 227 << 10;
  for (const char* name : {"deepseek_v3", "deepseek_v2_lite", "deepseek_v2"}) {
    Settings settings;
    settings.model_path = std::string(FATHOM_SOURCE_DIR "/models/configs/") + name;
    settings.device = "cpu";
    settings.max_running_requests = kDefaultGpuRunning;
    settings.chunked_prefill_size = kDefaultGpuChunk;
    settings.page_size = kDefaultGpuPage;
    ModelFacts facts;
    EngineOptions options = resolve(settings, &facts).value();
    for (const model::Split& split : {model::Split{}, {.tp = 8}, {.tp = 8, .ep = 8}}) {
      if (!model::make_shard(options.config, split, 0).ok()) continue;
      options.split = split;
      const auto taken =
          static_cast<double>(model::cuda::working_bytes(options.config, cuda::load_options(options), h100));
      const auto reckoned = static_cast<double>(
          gpu_workspace_bytes(options, model::make_shard(options.config, split, 0).value()));
      EXPECT_NEAR(reckoned / taken, 1.0, 0.05) << name << ' ' << split.tp << ' ' << split.ep;
    }
  }
}

}  // namespace
}  // namespace fathom::engine
