#include <algorithm>
#include <cstdio>

#include "app/args.h"
#include "app/plan_flags.h"
#include "app/plan_step_time.h"
#include "app/serving.h"
#include "base/log.h"

namespace fathom::app {
namespace {

double mib(double bytes) {
  return bytes / (1 << 20);
}
double mib(int64_t bytes) {
  return mib(static_cast<double>(bytes));
}

void print_part(const std::string& name, int64_t parameters, int64_t bytes) {
  std::printf("  %-22s %14.1f M parameters %12.1f MiB\n", name.c_str(),
              static_cast<double>(parameters) * 1e-6, mib(bytes));
}

void print_layout(const engine::LayoutPlan& plan) {
  const engine::Layout& layout = plan.layout;
  if (layout.ranks() == 1) return;
  std::printf("%d ranks (%s), %d a node; of the rank with most", layout.ranks(),
              engine::flags_of(layout).c_str(), layout.ranks_a_node());
  if (layout.split.pp > 1) std::printf(" (stage %d)", plan.stage);
  std::printf(":\n");
}

void print_memory(const engine::LayoutPlan& plan) {
  const auto& memory = plan.memory;
  const bool reckoned = plan.format != nullptr && !plan.format->readable;
  std::printf("weights in memory, by part\n");
  for (const auto& part : memory.weights) print_part(part.name, part.parameters, part.bytes);
  print_part("all weights", memory.parameters, memory.weight_bytes);
  std::printf("  %-22s %14.1f M parameters", "active", static_cast<double>(memory.active_parameters) * 1e-6);
  if (!reckoned) std::printf(" %12.1f MiB read for one token", mib(memory.decode_bytes));
  std::printf("\n");
  if (!reckoned) std::printf("  %-22s %12.1f MiB on disk\n", "checkpoint", mib(plan.checkpoint_bytes));
  std::printf("workspace                %12.1f MiB\n", mib(memory.workspace_bytes));
  std::printf("KV cache                 %12lld bytes a token, all layers\n",
              static_cast<long long>(memory.kv_bytes_per_token));
  if (reckoned) {
    std::printf("note: an estimate by bytes a parameter (%s: %s); this version does not read %s weights\n",
                plan.format->name, plan.format->scales, plan.format->name);
  }
}

const char* name_of(engine::Meeting meeting) {
  switch (meeting) {
    case engine::Meeting::kAllReduce:
      return "all-reduce";
    case engine::Meeting::kAllGather:
      return "gather";
    case engine::Meeting::kReduceScatter:
      return "reduce-scatter";
    case engine::Meeting::kHandOver:
      return "hand-over";
  }
  return "";
}

// Of a rank, for each token; what passes inside a node and what over its network card.
void print_traffic(const engine::LayoutPlan& plan) {
  if (plan.traffic.empty()) return;
  std::printf("between the ranks, KiB that each sends for a token\n");
  std::printf("  %-35s %10s %8s %12s %12s %10s\n", "", "times", "ranks", "message", "in the node", "network");
  double link = 0.0;
  double network = 0.0;
  for (const auto& traffic : plan.traffic) {
    const std::string what = std::string(name_of(traffic.meeting)) + " " + traffic.where;
    std::printf("  %-35s %10d %8d %12.1f %12.1f %10.1f%s\n", what.c_str(), traffic.times, traffic.ranks,
                static_cast<double>(traffic.row_bytes) / 1024, traffic.link_bytes() / 1024,
                traffic.network_bytes() / 1024,
                traffic.chosen_rows  ? " a chosen token"
                : traffic.all_groups ? " tokens of all groups"
                                     : "");
    if (traffic.chosen_rows) continue;
    link += traffic.times * traffic.link_bytes();
    network += traffic.times * traffic.network_bytes();
  }
  std::printf("  %-35s %10s %8s %12s %12.1f %10.1f\n", "a step, for each token", "", "", "", link / 1024,
              network / 1024);
}

int print_fit(const engine::LayoutPlan& plan, const engine::Settings& settings,
              const engine::LayoutRequest& request, int64_t length) {
  std::printf("%-24s %12.1f MiB available%s\n", plan.machine.title.c_str(), mib(plan.available_bytes),
              plan.layout.ranks() > 1 ? " to the rank" : "");
  if (!plan.fits()) {
    std::printf("does not fit: %s\n", plan.pool.error().message.c_str());
    for (const auto& way : engine::what_would_fit(settings, request))
      std::printf("would fit: %s\n", way.c_str());
    return 1;
  }
  std::printf(
      "fits: KV pool of %lld tokens (%lld pages of %lld, %.1f MiB), bound by %s; %d sequences at once\n",
      static_cast<long long>(plan.pool_tokens()), static_cast<long long>(plan.pool->pages),
      static_cast<long long>(plan.page_size), mib(plan.pool->bytes), plan.pool->bound, plan.max_running);
  if (plan.groups() > 1) {
    std::printf("%d groups of requests, each with such a pool\n", plan.groups());
  }
  const int64_t whole = std::min<int64_t>(length, plan.facts.context_length);
  std::printf("room for %lld sequences of %lld tokens in all\n",
              static_cast<long long>(plan.sequences(whole)), static_cast<long long>(whole));
  return 0;
}

int fail(const Error& failure) {
  std::fprintf(stderr, "fathom plan: %s\n", failure.message.c_str());
  return 1;
}

}  // namespace

int run_plan(const PlanArgs& args) {
  set_log_level(LogLevel::kWarning);
  const auto settings = engine_settings(args.model);
  const auto request = layout_request(args);
  if (!request.ok()) return fail(request.error());
  const auto plan = engine::plan_layout(settings, *request);
  if (!plan.ok()) return fail(plan.error());
  if (args.step_time) {
    const auto printed = print_step_times(settings, *request, *plan, args.sequence_length, args.routing_bias);
    return printed.ok() ? 0 : fail(printed.error());
  }
  std::printf("%s (%s)\n", plan->facts.architecture.c_str(), args.model.model_path.c_str());
  print_layout(*plan);
  print_memory(*plan);
  print_traffic(*plan);
  return print_fit(*plan, settings, *request, args.sequence_length);
}

}  // namespace fathom::app
