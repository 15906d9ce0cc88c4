#include "app/plan_step_time.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "engine/layout/step_time.h"

namespace fathom::app {
namespace {

constexpr int64_t kBatches[] = {1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024};
constexpr int64_t kPromptTokens = 4096;  // of a prefill step, as --chunked-prefill-size on a GPU

struct Row {
  engine::Layout layout;
  std::string name;
  std::vector<double> step_us;  // of each batch; 0: the cache does not hold it
  double prefill = 0.0;         // tokens a second, all groups
};

// A table of one figure; the layout with the shortest step of a batch has a star.
template <class F>
void print_table(const char* title, const std::vector<Row>& rows, const char* format, const F& figure) {
  std::printf("\n%-31s", title);
  for (const int64_t batch : kBatches) std::printf(" %7lld", static_cast<long long>(batch));
  std::printf("\n");
  for (size_t r = 0; r < rows.size(); ++r) {
    std::printf("%3zu %-27s", r + 1, rows[r].name.c_str());
    for (size_t i = 0; i < std::size(kBatches); ++i) {
      const double us = rows[r].step_us[i];
      if (us == 0) {
        std::printf(" %6s ", "-");
        continue;
      }
      const bool best = std::none_of(rows.begin(), rows.end(), [&](const Row& other) {
        return other.step_us[i] > 0 && other.step_us[i] < us;
      });
      std::printf(" %6s%c", fmt::format(fmt::runtime(format), figure(kBatches[i], us)).c_str(),
                  best ? '*' : ' ');
    }
    std::printf("\n");
  }
}

// "TP 16, DP 2, EP 16"
std::string short_name(const engine::Layout& layout) {
  const auto& split = layout.split;
  std::string name = layout.replicas > 1 ? fmt::format("{} x ", layout.replicas) : "";
  name += fmt::format("TP {}", split.tp);
  if (split.dp > 1) name += fmt::format(", DP {}", split.dp);
  if (split.ep > 1) name += fmt::format(", EP {}", split.ep);
  if (split.pp > 1) name += fmt::format(", PP {}", split.pp);
  return name;
}

}  // namespace

Result<void> print_step_times(const engine::Settings& settings, const engine::LayoutRequest& request,
                              const engine::LayoutPlan& plan, int64_t length, double routing_bias) {
  if (!settings.speculation.algorithm.empty()) {
    return error(ErrorCode::kUnsupported,
                 "--step-time: steps with guesses are not predicted; leave --speculative-algorithm out");
  }
  if (request.layout.split.redundant > 0) {
    return error(ErrorCode::kUnsupported,
                 "--step-time: experts in several places are not predicted; leave --ep-num-redundant-experts "
                 "out");
  }
  if (request.machine.kind == nullptr) {
    return error(ErrorCode::kInvalidArgument,
                 "--step-time: needs --gpu h100 or h200, whose kernels were timed");
  }
  FATHOM_ASSIGN(auto times, engine::StepTimes::make(plan.config, *request.machine.kind,
                                                    {.bias_deviation = routing_bias}));
  std::vector<Row> rows;
  for (const auto& layout : engine::layouts_of(plan.config, request.layout.ranks(), request.layout.nodes)) {
    engine::LayoutRequest tried = request;
    tried.layout = layout;
    FATHOM_ASSIGN(const auto fit, engine::plan_layout(settings, tried));
    if (!fit.fits()) continue;
    Row row;
    row.layout = layout;
    row.name = short_name(layout);
    const int64_t room = fit.sequences(length);
    const auto context = static_cast<double>(length);
    for (const int64_t batch : kBatches) {
      row.step_us.push_back(batch <= room ? times.decode(layout, batch, context).total() : 0.0);
    }
    const double tokens = static_cast<double>(kPromptTokens * fit.groups());
    row.prefill =
        tokens * 1e6 / times.prefill(layout, kPromptTokens, std::min<double>(context, kPromptTokens)).total();
    rows.push_back(std::move(row));
  }
  if (rows.empty()) {
    return error(ErrorCode::kUnavailable,
                 "--step-time: no layout of {} x {} fits; without --step-time the plan "
                 "says what would",
                 request.layout.ranks(), request.machine.title);
  }
  std::printf(
      "%s on %d x %s, %d node(s), sequences of %lld tokens: predicted (docs/simulation.md), not measured\n",
      plan.facts.architecture.c_str(), request.layout.ranks(), request.machine.title.c_str(),
      request.layout.nodes, static_cast<long long>(length));
  print_table("step, ms, by sequences in all", rows, "{:.2f}", [](int64_t, double us) { return us * 1e-3; });
  print_table("output tok/s in all", rows, "{:.0f}",
              [](int64_t batch, double us) { return static_cast<double>(batch) * 1e6 / us; });
  print_table("output tok/s of a request", rows, "{:.1f}", [](int64_t, double us) { return 1e6 / us; });
  std::printf("*: the shortest step. -: the cache does not hold so many\n");
  std::printf("\nprompt tok/s in all, steps of %lld tokens a group; and the flags\n",
              static_cast<long long>(kPromptTokens));
  for (size_t r = 0; r < rows.size(); ++r) {
    std::printf("%3zu %8.0f   %s\n", r + 1, rows[r].prefill, engine::flags_of(rows[r].layout).c_str());
  }
  const engine::Links& links = engine::links();
  std::printf("links: %.0f GB/s in a node (%s); %.0f GB/s network (%s)\n",
              request.machine.kind->link_gbs.value, request.machine.kind->link_gbs.source,
              links.network_gbs.value, links.network_gbs.source);
  return {};
}

}  // namespace fathom::app
