// A device fault: the step in flight and every later one answer with an error that names the step, and
// nothing hangs. The fault stays in the process, so each test is a process of its own.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>

#include "base/log.h"
#include "device/cuda/gpu.h"
#include "engine/settings.h"

namespace fathom::engine {
namespace {

__global__ void write_nowhere(int* nowhere) {
  nowhere[threadIdx.x] = 1;
}

BatchPlan prompt_step(uint64_t step) {
  BatchPlan plan;
  plan.step = step;
  plan.open.push_back({0, SlotInit{}, {0}});
  BatchRow row;
  row.mode = RowMode::kExtend;
  row.tokens = {1, 2, 3};
  row.sample = true;
  plan.rows.push_back(row);
  return plan;
}

// On the last of so many ranks' GPUs.
[[noreturn]] void fault_and_exit(int ranks) {
  set_log_level(LogLevel::kError);
  Settings settings;
  settings.model_path = std::string(FATHOM_SOURCE_DIR) + "/models/demo";
  settings.device = "cuda";
  settings.max_total_tokens = 4096;
  settings.max_running_requests = 4;
  settings.tp_size = ranks;
  settings.dist_timeout = 20;
  ModelFacts facts;
  auto engine = start_engine(settings, &facts).value();
  if (!engine->step(prompt_step(1)).get().ok()) std::exit(3);
  cudaSetDevice(ranks - 1);
  write_nowhere<<<1, 32>>>(nullptr);
  cudaDeviceSynchronize();
  for (const uint64_t step : {2, 3}) {
    const auto answer = engine->step(prompt_step(step)).get();
    if (answer.ok()) std::exit(4);
    std::fprintf(stderr, "%s\n", answer.error().message.c_str());
  }
  std::_Exit(0);
}

TEST(DeviceFault, EndsEveryStepWithAnErrorThatNamesIt) {
  if (device::cuda::gpu_count() == 0) GTEST_SKIP() << "no GPU";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(fault_and_exit(1), testing::ExitedWithCode(0),
              "step 2 \\(1 rows, 3 tokens\\).*illegal memory access");
}

// GPUs that reach each other's memory fail together, and whichever rank meets the fault first is named.
TEST(DeviceFault, OfARankEndsEveryStepOfAllAndNamesOne) {
  if (device::cuda::gpu_count() < 2) GTEST_SKIP() << "fewer than two GPUs";
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(fault_and_exit(2), testing::ExitedWithCode(0),
              "rank [01]: step 2 \\(1 rows, 3 tokens\\).*illegal memory access");
}

}  // namespace
}  // namespace fathom::engine
