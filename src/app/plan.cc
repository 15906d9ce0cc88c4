#include "engine/plan.h"

#include <cstdio>

#include "app/args.h"
#include "app/serving.h"
#include "base/log.h"

namespace fathom::app {
namespace {

double mib(int64_t bytes) {
  return static_cast<double>(bytes) / (1 << 20);
}

void print_part(const std::string& name, int64_t parameters, int64_t bytes) {
  std::printf("  %-22s %14.1f M parameters %12.1f MiB\n", name.c_str(),
              static_cast<double>(parameters) * 1e-6, mib(bytes));
}

}  // namespace

int run_plan(const PlanArgs& args) {
  set_log_level(LogLevel::kWarning);
  const auto plan = engine::plan(engine_settings(args.model));
  if (!plan.ok()) {
    std::fprintf(stderr, "fathom plan: %s\n", plan.error().message.c_str());
    return 1;
  }
  const auto& memory = plan->memory;
  std::printf("%s (%s)\n", plan->facts.architecture.c_str(), args.model.model_path.c_str());
  if (plan->ranks > 1) std::printf("%d ranks; of the largest one:\n", plan->ranks);
  std::printf("weights in memory, by part\n");
  for (const auto& part : memory.weights) print_part(part.name, part.parameters, part.bytes);
  print_part("all weights", memory.parameters, memory.weight_bytes);
  std::printf("  %-22s %14.1f M parameters %12.1f MiB read for one token\n", "active",
              static_cast<double>(memory.active_parameters) * 1e-6, mib(memory.decode_bytes));
  std::printf("  %-22s %12.1f MiB on disk\n", "checkpoint", mib(plan->checkpoint_bytes));
  std::printf("workspace                %12.1f MiB\n", mib(memory.workspace_bytes));
  std::printf("KV cache                 %12lld bytes a token, all layers\n",
              static_cast<long long>(memory.kv_bytes_per_token));
  if (plan->ranks > 1) {
    std::printf("between the ranks        %12.1f KiB summed a token, %.1f KiB gathered a chosen token\n",
                static_cast<double>(plan->sum_bytes) / 1024, static_cast<double>(plan->gather_bytes) / 1024);
  }
  std::printf("%-24s %12.1f MiB available\n", plan->device.c_str(), mib(plan->available_bytes));
  if (!plan->pool.ok()) {
    std::printf("does not fit: %s\n", plan->pool.error().message.c_str());
    return 1;
  }
  std::printf(
      "fits: KV pool of %lld tokens (%lld pages of %lld, %.1f MiB), bound by %s; %d sequences at once\n",
      static_cast<long long>(plan->pool->pages * plan->page_size), static_cast<long long>(plan->pool->pages),
      static_cast<long long>(plan->page_size), mib(plan->pool->bytes), plan->pool->bound, plan->max_running);
  return 0;
}

}  // namespace fathom::app
